"""Cookie sessions in PostgreSQL, shared by all replicas, cached in process for a short while (FG-14, FG-33, X-24)."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import func, or_, update
from sqlalchemy.sql import ColumnElement

from wardmesh_auth.bounded import Bounded, SingleFlight
from wardmesh_auth.database import Database
from wardmesh_auth.revocations import Revocations, Tell
from wardmesh_auth.tables import session
from wardmesh_common.errors import Unauthenticated
from wardmesh_common.questions import SessionRevoked
from wardmesh_common.vocabulary import Principal

_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
_CACHE_SECONDS = 30.0


class NewSession(Struct, frozen=True):
    """`secret` goes into the cookie and nowhere else; its SHA-256 is the handle and names the session in records."""

    secret: str
    principal: Principal

    @property
    def handle(self) -> str:
        return self.principal.session

    def __repr__(self) -> str:
        return f"NewSession({self.handle[:16]})"


class _Live(Struct, frozen=True):
    principal: Principal
    created_at: float


class Sessions:
    """The database's clock alone decides what has expired: replicas may disagree about the time."""

    def __init__(
        self,
        database: Database,
        revocations: Revocations,
        tell: Tell,
        *,
        max_age_seconds: int,
        idle_seconds: int,
        cache_size: int = 20_000,
    ) -> None:
        self._database, self._revocations, self._tell = database, revocations, tell
        self.max_age, self._idle = max_age_seconds, idle_seconds
        # Not longer than a quarter of the idle time: a cached session is not seen by the database.
        self._cache_seconds = min(_CACHE_SECONDS, idle_seconds / 4)
        self._cache: Bounded[str, _Live] = Bounded(cache_size)
        self._loading: SingleFlight[str, _Live | None] = SingleFlight()

    async def create(self, person: Principal | None) -> NewSession:
        """`None`: nobody signed in, the session is a principal of its own.

        Raises Unavailable without a database: a session that is not stored is none.
        """
        secret = secrets.token_urlsafe(32)
        handle = handle_of(secret)
        principal = msgspec.structs.replace(person or Principal(id=session_principal(handle)), session=handle)
        row = session.insert().values(
            id=handle,
            tenant=principal.tenant,
            principal_id=principal.id,
            roles=list(principal.roles),
            scopes=list(principal.scopes),
            patient=principal.patient,
            practitioner=principal.practitioner,
            client_id=principal.client_id,
            idle_seconds=self._idle,
            expires_at=func.now() + _seconds(self.max_age),
        )
        async with self._database.transaction() as connection:
            await connection.execute(row)
        return NewSession(secret, principal)

    async def find(self, secret: str) -> Principal:
        """Raises Unauthenticated when there is no such session (any more), Unavailable when nobody can say."""
        if _SECRET.fullmatch(secret) is None:
            raise _no_session()
        handle = handle_of(secret)
        live = self._cache.get(handle) or await self._loading.run(handle, lambda: self._load(handle))
        if live is None:
            raise _no_session()
        principal = live.principal
        if self._revocations.session_revoked(handle, principal.id, live.created_at):
            self._cache.drop(handle)
            raise _no_session()
        return principal

    async def revoke(self, handle: str) -> None:
        """End one session on every replica."""
        await self._revoke(session.c.id == handle, SessionRevoked(session=handle))

    async def revoke_principal(self, principal_id: str) -> None:
        """Log out everywhere: every session, and every token that was issued up to now."""
        await self._revoke(session.c.principal_id == principal_id, SessionRevoked(principal=principal_id))

    def heard(self, event: SessionRevoked) -> None:
        if event.session:
            self._cache.drop(event.session)
        if event.principal:
            self._cache.drop_where(lambda live: live.principal.id == event.principal)

    async def sweep(self) -> int:
        """Delete sessions that are over."""
        over = or_(
            session.c.expires_at < func.now(),
            session.c.revoked_at.is_not(None),
            session.c.last_seen < func.now() - _seconds(session.c.idle_seconds),
        )
        async with self._database.transaction() as connection:
            return (await connection.execute(session.delete().where(over))).rowcount

    async def _load(self, handle: str) -> _Live | None:
        """One statement reads the session and notes that it was seen: at most once per cache time and replica."""
        left = func.extract("epoch", session.c.expires_at - func.now())
        created = func.extract("epoch", session.c.created_at)
        touch = (
            update(session)
            .where(
                session.c.id == handle,
                session.c.revoked_at.is_(None),
                session.c.expires_at > func.now(),
                session.c.last_seen > func.now() - _seconds(session.c.idle_seconds),
            )
            .values(last_seen=func.now())
            .returning(session, left.label("left"), created.label("created"))
        )
        async with self._database.transaction() as connection:
            row = (await connection.execute(touch)).mappings().one_or_none()
        if row is None:
            return None
        live = _Live(_principal_of(row), float(row["created"]))
        self._cache.put(handle, live, min(self._cache_seconds, float(row["left"])))
        return live

    async def _revoke(self, which: ColumnElement[bool], event: SessionRevoked) -> None:
        async with self._database.transaction() as connection:
            ended = update(session).where(which, session.c.revoked_at.is_(None)).values(revoked_at=func.now())
            await connection.execute(ended)
            event = await self._revocations.write(connection, event)
        self._revocations.heard(event)
        self.heard(event)
        await self._tell(event)


def session_principal(handle: str) -> str:
    """A browser session in which nobody signed in is a principal of its own."""
    return f"session:{handle[:32]}"


def is_session(principal_id: str) -> bool:
    return principal_id.startswith("session:")


def handle_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _seconds(amount: Any) -> Any:
    return func.make_interval(0, 0, 0, 0, 0, 0, amount)


def _principal_of(row: Any) -> Principal:
    return Principal(
        id=row["principal_id"],
        roles=tuple(row["roles"]),
        patient=row["patient"],
        practitioner=row["practitioner"],
        scopes=tuple(row["scopes"]),
        client_id=row["client_id"],
        session=row["id"],
        tenant=row["tenant"],
    )


def _no_session() -> Unauthenticated:
    return Unauthenticated("the session is not valid any more")
