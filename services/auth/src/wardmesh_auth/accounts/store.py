"""Accounts, refresh tokens and failed log-ins in PostgreSQL, counted for all replicas together."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from typing import Any

from msgspec import Struct
from sqlalchemy import case, func, select
from sqlalchemy.dialects.postgresql import insert

from wardmesh_auth.accounts.seed import SeedAccount
from wardmesh_auth.database import Database
from wardmesh_auth.tables import account, account_refresh, failed_log_in
from wardmesh_common.local_tokens import LocalUser

WINDOW_SECONDS = 900
_REFRESH_SECONDS = 24 * 3600


class Account(Struct, frozen=True, kw_only=True):
    user: LocalUser
    roles: tuple[str, ...]
    tenant: str
    password_hash: str
    disabled: bool

    def __repr__(self) -> str:
        return f"Account({self.user.user_id!r})"


class Accounts:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, *, username: str = "", account_id: str = "") -> Account | None:
        which = account.c.username == username.lower() if username else account.c.id == account_id
        async with self._database.transaction() as connection:
            found = (await connection.execute(select(account).where(which))).one_or_none()
        return _read(found) if found is not None else None

    async def add(self, seed: SeedAccount, password_hash: str) -> bool:
        """False when the name is taken: an account that exists is never changed by a file."""
        row = insert(account).values(
            id=uuid.uuid4().hex,
            username=seed.username.lower(),
            email=seed.email,
            roles=list(seed.roles),
            patient=seed.patient,
            practitioner=seed.practitioner,
            password_hash=password_hash,
        )
        added = row.on_conflict_do_nothing(index_elements=["username"]).returning(account.c.id)
        async with self._database.transaction() as connection:
            return (await connection.execute(added)).one_or_none() is not None

    async def names(self) -> frozenset[str]:
        async with self._database.transaction() as connection:
            return frozenset((await connection.execute(select(account.c.username))).scalars())

    async def rehash(self, account_id: str, password_hash: str) -> None:
        changed = account.update().where(account.c.id == account_id)
        async with self._database.transaction() as connection:
            await connection.execute(changed.values(password_hash=password_hash, updated_at=func.now()))

    # --- refresh tokens ---

    async def new_refresh(self, account_id: str) -> str:
        token = secrets.token_urlsafe(32)
        row = account_refresh.insert().values(
            digest=_digest(token), account_id=account_id, expires_at=func.now() + _seconds(_REFRESH_SECONDS)
        )
        async with self._database.transaction() as connection:
            await connection.execute(row)
        return token

    async def refreshed(self, token: str) -> Account | None:
        query = (
            select(account)
            .join(account_refresh, account_refresh.c.account_id == account.c.id)
            .where(account_refresh.c.digest == _digest(token), account_refresh.c.expires_at > func.now())
        )
        async with self._database.transaction() as connection:
            found = (await connection.execute(query)).one_or_none()
        return _read(found) if found is not None else None

    async def end_refresh(self, account_id: str) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(account_refresh.delete().where(account_refresh.c.account_id == account_id))

    # --- failures ---

    async def counted(self, subjects: tuple[str, ...]) -> dict[str, tuple[int, int]]:
        """Count one more attempt; per subject how many there were in its window, and the seconds until that ends."""
        digests = {_digest(subject): subject for subject in subjects}
        left = func.extract("epoch", failed_log_in.c.until - func.now())
        until = func.now() + _seconds(WINDOW_SECONDS)
        seen: dict[str, tuple[int, int]] = {}
        over = failed_log_in.c.until <= func.now()
        async with self._database.transaction() as connection:
            # In a fixed order: two attempts at once must not wait for each other.
            for subject in sorted(digests):
                row = insert(failed_log_in).values(subject=subject, failures=1, until=until)
                row = row.on_conflict_do_update(
                    index_elements=["subject"],
                    set_={
                        "failures": case((over, 1), else_=failed_log_in.c.failures + 1),
                        "until": case((over, until), else_=failed_log_in.c.until),
                    },
                )
                stored = row.returning(failed_log_in.c.failures, left.label("left"))
                found = (await connection.execute(stored)).one()
                seen[digests[subject]] = found.failures, int(found.left) + 1
        return seen

    async def forgive(self, account: str, address: str) -> None:
        """It was no failure: the account begins anew, the address gets this one attempt back."""
        back = failed_log_in.update().where(failed_log_in.c.subject == _digest(address), failed_log_in.c.failures > 0)
        async with self._database.transaction() as connection:
            await connection.execute(failed_log_in.delete().where(failed_log_in.c.subject == _digest(account)))
            await connection.execute(back.values(failures=failed_log_in.c.failures - 1))

    async def sweep(self) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(account_refresh.delete().where(account_refresh.c.expires_at < func.now()))
            await connection.execute(failed_log_in.delete().where(failed_log_in.c.until < func.now()))


def _read(found: Any) -> Account:
    roles = tuple(found.roles)
    user = LocalUser(
        user_id=found.id,
        username=found.username,
        role=roles[0] if roles else "",
        email=found.email,
        patient=found.patient,
        practitioner=found.practitioner,
    )
    return Account(
        user=user, roles=roles, tenant=found.tenant, password_hash=found.password_hash, disabled=found.disabled
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _seconds(amount: int) -> Any:
    return func.make_interval(0, 0, 0, 0, 0, 0, amount)
