"""What every role checks of its database before it works, and again every ten minutes (audit.md section 8)."""

from __future__ import annotations

import logging

from wardmesh_audit.ledger import Connection
from wardmesh_audit.schema import GUARDED

_log = logging.getLogger("wardmesh.audit")

MINIMUM_VERSION = (15,)

# One statement, so that a month that is made or dropped meanwhile is seen with its triggers or not at all.
_GUARDS = """
with recursive tree(oid) as (
  select 'event'::regclass::oid union all select i.inhrelid from pg_inherits i join tree on i.inhparent = tree.oid
)
select c.relname, c.oid in (select oid from tree) as partition,
  array(select t.tgname::text from pg_trigger t
    where t.tgrelid = c.oid and not t.tgisinternal and t.tgenabled = 'A') as triggers
from pg_class c where c.oid in (select oid from tree)
  or (c.relkind = 'r' and c.relnamespace = 'public'::regnamespace and c.relname = any($1))
"""

_MONTHS = """
select to_char((date_trunc('month', now() at time zone 'UTC') + make_interval(months => i)), 'YYYYMM')
from generate_series(0, 3) as i
"""


class Unsafe(Exception):
    """The database must not be worked with; names what is wrong."""


async def check_server(conn: Connection) -> None:
    """Settings without which a commit is no promise. Raises Unsafe."""
    if conn.get_server_version() < MINIMUM_VERSION:
        raise Unsafe("the PostgreSQL server is older than 15")
    for name, allowed in (
        ("fsync", ("on",)),
        ("full_page_writes", ("on",)),
        ("synchronous_commit", ("on", "remote_apply")),
        ("session_replication_role", ("origin",)),
    ):
        if await conn.fetchval("select current_setting($1)", name) not in allowed:
            raise Unsafe(f"{name} is not {' or '.join(allowed)}")
    if await conn.fetchval("show data_checksums") != "on":
        _log.warning("the PostgreSQL cluster has no data checksums")


async def check_role(conn: Connection, owner: str) -> None:
    """The login must not be able to switch the protections off. Raises Unsafe."""
    if await conn.fetchval("select rolsuper from pg_roles where rolname = current_user"):
        raise Unsafe("the database role is a superuser")
    if await conn.fetchval("select pg_has_role(current_user, $1, 'member')", owner):
        raise Unsafe(f"the database role is a member of {owner}")


async def check_guards(conn: Connection) -> None:
    """All append-only triggers exist and fire always; the coming months have partitions. Raises Unsafe."""
    wanted = {table: {"no_change", "no_truncate"} for table in (*GUARDED, "retention_run", "log_list")}
    wanted |= {"tree_state": {"no_shrink", "no_truncate"}, "tile": {"no_loss"}}
    rows = await conn.fetch(_GUARDS, list(wanted))
    partitions = {row["relname"] for row in rows if row["partition"]}
    wanted |= {name: {"no_change", "no_truncate"} for name in partitions}
    found = {row["relname"]: set(row["triggers"]) for row in rows}
    for table, triggers in wanted.items():
        if lacking := triggers - found.get(table, set()):
            raise Unsafe(f"trigger {min(lacking)} on {table} is missing or not enabled always")
    months = [row[0] for row in await conn.fetch(_MONTHS)]
    logs = [row[0] for row in await conn.fetch("select log_id from tree_state")]
    ahead = {f"event_{log}_{part}" for log in logs for part in (*months, "default")}
    if missing := ahead - partitions:
        raise Unsafe(f"partition {min(missing)} is missing")
