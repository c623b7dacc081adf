"""What every role checks of its database before it works, and again every ten minutes (audit.md section 8)."""

from __future__ import annotations

import logging

from wardmesh_audit.ledger import Connection
from wardmesh_audit.schema import GUARDED

_log = logging.getLogger("wardmesh.audit")

MINIMUM_VERSION = (15,)

_GUARDS = """
select c.relname, t.tgname from pg_trigger t join pg_class c on c.oid = t.tgrelid
where not t.tgisinternal and t.tgenabled = 'A' and c.relnamespace = 'public'::regnamespace
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
    found = {(row["relname"], row["tgname"]) for row in await conn.fetch(_GUARDS)}
    tables = await conn.fetch("select relid::regclass::text as name from pg_partition_tree('event')")
    partitions = {row["name"] for row in tables}
    for table in (*partitions, *GUARDED, "retention_run"):
        for trigger in ("no_change", "no_truncate"):
            if (table, trigger) not in found:
                raise Unsafe(f"trigger {trigger} on {table} is missing or not enabled always")
    for trigger in ("no_shrink", "no_truncate"):
        if ("tree_state", trigger) not in found:
            raise Unsafe(f"trigger {trigger} on tree_state is missing or not enabled always")
    if ("tile", "no_loss") not in found:
        raise Unsafe("trigger no_loss on tile is missing or not enabled always")
    months = [row[0] for row in await conn.fetch(_MONTHS)]
    logs = [row[0] for row in await conn.fetch("select log_id from tree_state")]
    wanted = {f"event_{log}_{part}" for log in logs for part in (*months, "default")}
    if missing := wanted - partitions:
        raise Unsafe(f"partition {min(missing)} is missing")
