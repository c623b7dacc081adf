"""What became of a sign-in: asked once, or waited for in slices that stay below every client's patience (B-7)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

from wardmesh_auth.grant_store import GrantKey, GrantStore, principal_digest
from wardmesh_auth.platform_token import PlatformToken
from wardmesh_auth.refusals import NoSignIn, SignInCancelled, SignInFailed
from wardmesh_auth.sign_in.arguments import OfPlatform, Wait
from wardmesh_auth.sign_in.attempts import Attempts
from wardmesh_auth.sign_in.browsers import caller
from wardmesh_auth.sign_in.consents import CANCELLED, FAILED, PENDING, Consents
from wardmesh_auth.sign_in.finishing import seconds_left
from wardmesh_auth.sign_in.results import answer
from wardmesh_auth.sign_in.starting import platform_of
from wardmesh_common.contracts import Call, Outcome
from wardmesh_common.questions import GrantChanged
from wardmesh_common.station import Hop

_SLICE_SECONDS = 20.0
_LOOK_SECONDS = 2.0  # in case the event that told of the end was missed
_ENDING_SECONDS = 1.0


class Waiters:
    """Who waits in this replica; an event of any replica wakes them."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = {}

    @contextmanager
    def at(self, key: GrantKey) -> Generator[asyncio.Event]:
        name, event = (principal_digest(key), key.platform), asyncio.Event()
        self._waiting.setdefault(name, set()).add(event)
        try:
            yield event
        finally:
            self._waiting[name].discard(event)
            if not self._waiting[name]:
                del self._waiting[name]

    def heard(self, changed: GrantChanged) -> None:
        for event in self._waiting.get((changed.principal, changed.platform), ()):
            event.set()


class Watching:
    def __init__(
        self,
        attempts: Attempts,
        consents: Consents,
        store: GrantStore,
        waiters: Waiters,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._attempts, self._consents, self._store = attempts, consents, store
        self._waiters, self._clock = waiters, clock

    async def wait(self, call: Call, asked: Wait, hop: Hop) -> Outcome:
        platform = platform_of(call, asked.platform_id)
        site = await self._attempts.site(platform)
        principal = caller(call)
        key = GrantKey(principal.tenant, principal.id, site.facts.id)
        patience = min(asked.timeout, _SLICE_SECONDS, hop.remaining() - _ENDING_SECONDS)
        limit = time.monotonic() + patience
        with self._waiters.at(key) as changed:
            while True:
                token = await self._finished(key)
                left = limit - time.monotonic()
                if token is not None or left <= 0:
                    break
                changed.clear()
                # Not `wait_for`: until Python 3.12 that forgets a cancellation which comes with the event.
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(left, _LOOK_SECONDS)):
                        await changed.wait()
        if token is None:
            return answer({"success": False, "pending": True, "platform_id": platform})
        body = {
            "success": True,
            "platform_id": platform,
            "expires_in": seconds_left(token),
            "message": "Authentication completed",
        }
        return answer(body)

    async def status(self, call: Call, asked: OfPlatform) -> Outcome:
        principal = caller(call)
        if not call.platform and not asked.platform_id:
            held = {} if principal.anonymous else await self._store.all_of(principal.tenant, principal.id)
            return answer({"platforms": {name: self._state(name, token) for name, token in held.items()}})
        platform = platform_of(call, asked.platform_id)
        site = await self._attempts.site(platform)
        key = GrantKey(principal.tenant, principal.id, site.facts.id)
        token = None if principal.anonymous else await self._store.load(key)
        return answer(self._state(platform, token))

    async def _finished(self, key: GrantKey) -> PlatformToken | None:
        """The token of a sign-in that is over, None while it is under way. Raises when it came to nothing."""
        consent = await self._consents.find(key)
        if consent is not None and consent.status == PENDING:
            return None
        if consent is not None and consent.status == FAILED:
            raise SignInFailed("the sign-in failed or was refused; call start_auth again")
        if consent is not None and consent.status == CANCELLED:
            raise SignInCancelled("the sign-in was called off; call start_auth again")
        if consent is not None and consent.status == "expired":
            raise SignInFailed("the link was not used in time; call start_auth again")
        token = await self._store.load(key)
        if token is None:
            raise NoSignIn("no sign-in was started at this platform: call start_auth first")
        return token

    def _state(self, platform: str, token: PlatformToken | None) -> dict[str, Any]:
        usable = token is not None and (token.expires_at > self._clock() or bool(token.refresh_token))
        return {
            "platform_id": platform,
            "authenticated": usable,
            "has_token": token is not None,
            "expires_at": int(token.expires_at) if token else None,
            "scopes": list(token.scopes) if token else [],
        }
