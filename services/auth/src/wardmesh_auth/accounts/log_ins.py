"""Log-ins with a password: rate limited by account and by address, and equally slow for names that do not exist."""

from __future__ import annotations

import logging

import msgspec

from wardmesh_auth.accounts.passwords import Passwords
from wardmesh_auth.accounts.seed import SeedAccount
from wardmesh_auth.accounts.store import Account, Accounts
from wardmesh_auth.refusals import TooManyLogIns, WrongPassword
from wardmesh_auth.sign_in.arguments import LogIn, Refresh
from wardmesh_auth.sign_in.results import answer
from wardmesh_common.contracts import Call, Outcome
from wardmesh_common.errors import NotFound
from wardmesh_common.local_tokens import ISSUER, LocalTokens
from wardmesh_common.tokens import principal_id
from wardmesh_common.vocabulary import Principal

_BY_ACCOUNT, _BY_ADDRESS = 10, 50  # per WINDOW_SECONDS

log = logging.getLogger("wardmesh.auth")


class LogIns:
    def __init__(self, accounts: Accounts, passwords: Passwords, tokens: LocalTokens | None) -> None:
        self._accounts, self._passwords, self._tokens = accounts, passwords, tokens

    async def seed(self, seeds: tuple[SeedAccount, ...]) -> None:
        """Adds accounts that are not there yet; an existing one is left as it is."""
        known = await self._accounts.names() if seeds else frozenset()
        for seed in seeds:
            if seed.username.lower() not in known and (seed.password_hash or seed.password):
                hashed = seed.password_hash or await self._passwords.hash(seed.password)
                if await self._accounts.add(seed, hashed):
                    log.info("a local account was added")

    async def issue(self, call: Call, asked: LogIn) -> Outcome:
        """issue_tokens (SH-9). The record names who logged in."""
        tokens = self._switched_on()
        found = await self.checked(call, asked.username, asked.password)
        call.principal = principal_of(found, call.principal)
        body = {"access": tokens.issue(found.user), "refresh": await self._accounts.new_refresh(found.user.user_id)}
        return answer(body, "auth.success")

    async def refresh(self, call: Call, asked: Refresh) -> Outcome:
        tokens = self._switched_on()
        found = await self._accounts.refreshed(asked.refresh)
        if found is None or found.disabled:
            raise WrongPassword("the refresh token is not valid: log in again")
        call.principal = principal_of(found, call.principal)
        return answer({"access": tokens.issue(found.user)}, "token.refresh")

    async def checked(self, call: Call, username: str, password: str) -> Account:
        """Raises WrongPassword, TooManyLogIns."""
        self._switched_on()
        account, address = f"account:{username.lower()}", f"address:{call.caller.ip}"
        limits = {account: _BY_ACCOUNT, address: _BY_ADDRESS}
        # Counted before it is judged: guesses that arrive at once do not all pass the same count.
        seen = await self._accounts.counted((account, address))
        waits = [left for subject, (attempts, left) in seen.items() if attempts > limits[subject]]
        if waits:
            raise TooManyLogIns("too many failed log-ins: try again later", retry_after=max(waits))
        # What PostgreSQL cannot even store is nobody's name.
        found = await self._accounts.find(username=username) if username.isprintable() else None
        right = await self._passwords.matches(found.password_hash if found else None, password)
        if found is None or not right or found.disabled:
            raise WrongPassword("the user name or the password is wrong")
        await self._accounts.forgive(account, address)
        if self._passwords.outdated(found.password_hash):
            await self._accounts.rehash(found.user.user_id, await self._passwords.hash(password))
        return found

    async def ended(self, principal: Principal) -> None:
        """Logged out everywhere: no refresh token of this account is good any more."""
        tag, _, account_id = principal.id.partition(":")
        if principal.id == principal_id(ISSUER, account_id) and tag:
            await self._accounts.end_refresh(account_id)

    def _switched_on(self) -> LocalTokens:
        if self._tokens is None:
            raise NotFound("there are no local accounts here")
        return self._tokens


def principal_of(found: Account, before: Principal | None) -> Principal:
    user = found.user
    principal = Principal(
        id=principal_id(ISSUER, user.user_id),
        roles=found.roles,
        patient=user.patient,
        practitioner=user.practitioner,
        tenant=found.tenant,
    )
    return msgspec.structs.replace(principal, agent=before.agent) if before else principal
