"""How the ledger stands: sizes, checkpoints, the last verification, what lags, and producers with missing events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from wardmesh_audit.ledger import Connection

# A check of the health endpoint: fine or not, and what to say.
Check = Callable[[], tuple[bool, str]]


class Verified(Struct, frozen=True, kw_only=True):
    ended_at: datetime
    size: int
    exit_code: int
    findings: list[Any]


class Verifying(Struct, frozen=True, kw_only=True):
    """How far the background verification is, or was when it ended."""

    started_at: datetime
    looked_at: datetime
    checked: int
    size: int
    findings: int
    running: bool


class LogState(Struct, frozen=True, kw_only=True):
    log: int
    size: int
    root: str
    last_recorded_at: datetime | None
    checkpoint_size: int
    checkpoint_at: datetime | None
    checkpoint: str
    cosigned_by: list[str]
    cosigned_size: int  # of the newest checkpoint that a witness has cosigned
    cosigned_at: datetime | None
    uncovered: int  # events after the newest checkpoint
    unverified: bool  # no verification has ended yet, or the last one found something
    last_verification: Verified | None
    verifying: Verifying | None  # None: no background verification has begun yet


class Overview(Struct, frozen=True, kw_only=True):
    logs: list[LogState]
    roles: dict[str, str]  # of the replica that answers: what its writer and publisher say, guard included
    guard: str
    open_reviews: int
    default_rows: int  # events with an absurd clock


_STATE = """
select t.log_id, t.size, t.root, e.recorded_at, c.size as checkpoint_size, c.signed_at, c.note, c.cosigs,
  w.size as cosigned_size, w.signed_at as cosigned_at,
  v.ended_at, v.size as verified_size, v.exit_code, v.findings, to_jsonb(p) as progress
from tree_state t
left join lateral (select recorded_at from event where log_id = t.log_id and seq = t.size - 1) e on true
left join lateral (select * from checkpoint where log_id = t.log_id order by size desc limit 1) c on true
left join lateral (select * from checkpoint where log_id = t.log_id and cosigs is not null
  order by size desc limit 1) w on true
left join lateral (select * from verification_run where log_id = t.log_id order by ended_at desc limit 1) v on true
left join verification_progress p on p.log_id = t.log_id
order by t.log_id
"""

# By the statistics: the default partitions are empty, or something is wrong with a clock.
_STRAY = "select sum(n_live_tup)::bigint from pg_stat_user_tables where relname ~ '^event_[0-9]+_default$'"


async def overview(conn: Connection, checks: Mapping[str, Check]) -> Overview:
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        rows = await conn.fetch(_STATE)
        reviews = await conn.fetchval("select count(*) from review where status = 'open'")
        stray = await conn.fetchval(_STRAY)
    said = {name: check() for name, check in checks.items()}
    tripped = [text for name, (good, text) in said.items() if not good and name.startswith(("writer", "publisher"))]
    return Overview(
        logs=[_state(dict(row)) for row in rows],
        roles={name: text for name, (_, text) in said.items()},
        guard="; ".join(tripped) or "holds",
        open_reviews=reviews or 0,
        default_rows=stray or 0,
    )


def progress_text(progress: Verifying) -> str:
    """One line for people."""
    found = f", {progress.findings} findings" if progress.findings else ""
    if not progress.running:
        return f"ended {progress.looked_at:%Y-%m-%d %H:%M} UTC, {progress.checked} events{found}"
    return f"at {progress.checked} of {progress.size} events since {progress.started_at:%Y-%m-%d %H:%M} UTC{found}"


def _state(row: dict[str, Any]) -> LogState:
    verified = None
    if row["ended_at"] is not None:
        verified = Verified(
            ended_at=row["ended_at"],
            size=row["verified_size"],
            exit_code=row["exit_code"],
            findings=msgspec.json.decode(row["findings"]),
        )
    note = (row["note"] or "") + (row["cosigs"] or "")
    return LogState(
        log=row["log_id"],
        size=row["size"],
        root=row["root"].hex(),
        last_recorded_at=row["recorded_at"],
        checkpoint_size=row["checkpoint_size"] or 0,
        checkpoint_at=row["signed_at"],
        checkpoint=note,
        cosigned_by=_signers(row["cosigs"] or ""),
        cosigned_size=row["cosigned_size"] or 0,
        cosigned_at=row["cosigned_at"],
        uncovered=row["size"] - (row["checkpoint_size"] or 0),
        unverified=verified is None or verified.exit_code != 0,
        last_verification=verified,
        verifying=msgspec.json.decode(row["progress"], type=Verifying) if row["progress"] else None,
    )


def _signers(cosigs: str) -> list[str]:
    """The names in cosignature lines (`— name base64`)."""
    return [line.split(" ")[1] for line in cosigs.splitlines() if line.count(" ") == 2]
