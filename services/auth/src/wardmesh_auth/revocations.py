"""What has been revoked: told by events within milliseconds, read from PostgreSQL at start and as a safety net."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_auth.break_glass import LIFE_SECONDS
from wardmesh_auth.database import Database
from wardmesh_auth.tables import revocation
from wardmesh_common.questions import SessionRevoked
from wardmesh_common.tokens import VerifiedToken

# A row becomes visible when its transaction commits, later than its time stamp says.
_OVERLAP_SECONDS = 60.0
# Longer than any access token that was issued before it or its principal was revoked.
_KEEP_SECONDS = 7 * 86_400.0
_PASS_SECONDS = LIFE_SECONDS + 300.0  # clocks of replicas and database may differ by less

Tell = Callable[[SessionRevoked], Awaitable[None]]

log = logging.getLogger("wardmesh.auth")


class Revocations:
    """In memory per replica; a replica that missed an event learns of it at its next `refresh`."""

    def __init__(
        self, database: Database, clock: Callable[[], float] = time.time, *, session_seconds: float = _KEEP_SECONDS
    ) -> None:
        self._database = database
        # No session lives longer, and no pass of break-glass: one that ended is soon of no interest.
        self._session_seconds = max(session_seconds, _PASS_SECONDS)
        self._clock = clock
        self._seen_until = 0.0
        self._ends: dict[tuple[str, str], float] = {}  # (kind, subject) -> when it may be forgotten
        self._principals: dict[str, float] = {}  # principal id -> everything issued up to then is void

    def token_revoked(self, token: VerifiedToken) -> bool:
        if ("token", token.digest) in self._ends:
            return True
        # `iat` counts whole seconds: a token of the very second of a log-out is refused, before or after it.
        return token.issued_at <= self._principals.get(token.principal_id, -1.0)

    def session_revoked(self, session: str, principal_id: str, created_at: float) -> bool:
        return ("session", session) in self._ends or created_at <= self._principals.get(principal_id, -1.0)

    def heard(self, event: SessionRevoked) -> None:
        """Take in an event: of this replica or another, once or several times, in any order."""
        at = event.at or self._clock()
        for kind, subject in named(event):
            self._take(kind, subject, at, at + self._kept(kind))

    async def write(self, connection: AsyncConnection, event: SessionRevoked) -> SessionRevoked:
        """Store inside the caller's transaction; answers the event with the database's time in it."""
        at = 0.0
        for kind, subject in named(event):
            seconds = func.make_interval(0, 0, 0, 0, 0, 0, self._kept(kind))
            row = insert(revocation).values(kind=kind, subject=subject, keep_until=func.now() + seconds)
            row = row.on_conflict_do_update(
                index_elements=["kind", "subject"],
                set_={"revoked_at": func.now(), "keep_until": row.excluded.keep_until},
            )
            stored = row.returning(func.extract("epoch", revocation.c.revoked_at))
            at = float((await connection.execute(stored)).scalar_one())
        return SessionRevoked(session=event.session, principal=event.principal, token_digest=event.token_digest, at=at)

    async def refresh(self) -> None:
        """Read what is new; raises Unavailable, and what is known already goes on being refused."""
        async with self._database.transaction() as connection:
            now, rows = await self._read(connection)
        for kind, subject, at, keep_until in rows:
            self._take(kind, subject, float(at), float(keep_until))
        self._seen_until = now
        for key in [k for k, end in self._ends.items() if end < now]:
            del self._ends[key]
            if key[0] == "principal":
                self._principals.pop(key[1], None)

    async def sweep(self) -> int:
        """Delete rows that have had their time."""
        async with self._database.transaction() as connection:
            gone = await connection.execute(revocation.delete().where(revocation.c.keep_until < func.now()))
        return gone.rowcount

    async def _read(self, connection: AsyncConnection) -> tuple[float, list[Any]]:
        def epoch(moment: Any) -> Any:
            return func.extract("epoch", moment)

        now = float((await connection.execute(select(epoch(func.now())))).scalar_one())
        since = self._seen_until - _OVERLAP_SECONDS
        columns = (revocation.c.kind, revocation.c.subject)
        times = (epoch(revocation.c.revoked_at), epoch(revocation.c.keep_until))
        query = select(*columns, *times).where(
            revocation.c.keep_until > func.now(), revocation.c.revoked_at > func.to_timestamp(since)
        )
        return now, list((await connection.execute(query)).all())

    def _kept(self, kind: str) -> float:
        return self._session_seconds if kind == "session" else _KEEP_SECONDS

    def _take(self, kind: str, subject: str, at: float, keep_until: float) -> None:
        self._ends[kind, subject] = max(keep_until, self._ends.get((kind, subject), 0.0))
        if kind == "principal":
            self._principals[subject] = max(at, self._principals.get(subject, 0.0))


def named(event: SessionRevoked) -> list[tuple[str, str]]:
    """What an event revokes: several things may stand in one."""
    given = (("session", event.session), ("principal", event.principal), ("token", event.token_digest))
    return [(kind, subject) for kind, subject in given if subject]
