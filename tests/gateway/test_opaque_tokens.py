"""Tokens that carry no proof themselves: introspected through auth, kept for a moment, never beyond their end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.rest_stage import Clock, FakeVerifier
from wardmesh_common.asking import Refused
from wardmesh_common.contracts import ASK_TOKEN
from wardmesh_common.errors import Problem, Unauthenticated, Unavailable
from wardmesh_common.questions import TokenAnswer, TokenQuestion
from wardmesh_gateway.opaque_tokens import BAD_SECONDS, GOOD_SECONDS, MAX_KEPT, BearerTokens, OpaqueTokens

pytestmark = pytest.mark.anyio
GOOD = "opaque-good"


class Auth:
    """Knows one token; remembers what it was asked."""

    def __init__(self, clock: Clock, seconds: float = 600.0) -> None:
        self.asked: list[str] = []
        self.clock, self.seconds = clock, seconds
        self.away = False

    async def ask(self, subject: str, question: Any, answer_type: type[Any]) -> TokenAnswer:
        assert (subject, answer_type) == (ASK_TOKEN, TokenAnswer)
        assert isinstance(question, TokenQuestion)
        self.asked.append(question.token)
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("away")
        if question.token != GOOD:
            raise Refused(Problem(code="invalid_token", status=401, detail="no"))
        return TokenAnswer(
            issuer="https://issuer.test",
            subject="doctor",
            principal_id="12345678:doctor",
            client_id="app",
            scopes=("fhir.read",),
            roles=("Doctor",),
            expires_at=self.clock.now + self.seconds,
        )


def tokens(**auth: Any) -> tuple[OpaqueTokens, Auth, Clock]:
    clock = Clock()
    asked = Auth(clock, **auth)
    return OpaqueTokens(asked, clock), asked, clock


async def test_an_active_token_is_asked_about_once_a_minute() -> None:
    opaque, auth, clock = tokens()
    verified = [await opaque.verify(GOOD) for _ in range(3)]
    assert {token.principal_id for token in verified} == {"12345678:doctor"}
    assert (verified[0].scopes, verified[0].claims) == (("fhir.read",), {"roles": ["Doctor"]})
    assert len(auth.asked) == 1
    clock.now += GOOD_SECONDS
    await opaque.verify(GOOD)
    assert len(auth.asked) == 2


async def test_what_is_kept_ends_with_the_token() -> None:
    opaque, auth, clock = tokens(seconds=5.0)
    await opaque.verify(GOOD)
    clock.now += 5.0
    auth.seconds = -1.0
    with pytest.raises(Unauthenticated):
        await opaque.verify(GOOD)


async def test_many_requests_with_one_token_are_one_question() -> None:
    opaque, auth, _ = tokens()
    assert len(await asyncio.gather(*(opaque.verify(GOOD) for _ in range(20)))) == 20
    assert len(auth.asked) == 1


async def test_a_token_that_does_not_hold_is_refused_and_not_asked_about_again_for_a_while() -> None:
    opaque, auth, clock = tokens()
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            await opaque.verify("made-up")
    assert len(auth.asked) == 1
    clock.now += BAD_SECONDS
    with pytest.raises(Unauthenticated):
        await opaque.verify("made-up")
    assert len(auth.asked) == 2
    for bad in ("x" * 20_000, "tökén"):
        with pytest.raises(Unauthenticated):
            await opaque.verify(bad)
    assert len(auth.asked) == 2


async def test_a_revocation_forgets_the_token_and_an_absent_auth_is_not_a_bad_token() -> None:
    opaque, auth, _ = tokens()
    await opaque.verify(GOOD)
    opaque.forget(subject="12345678:doctor")
    auth.away = True
    with pytest.raises(Unavailable):
        await opaque.verify(GOOD)
    auth.away = False
    first = await opaque.verify(GOOD)
    opaque.forget(digest=first.digest)
    await opaque.verify(GOOD)
    assert len(auth.asked) == 4


async def test_what_is_kept_is_bounded() -> None:
    opaque, auth, _ = tokens()
    for number in range(MAX_KEPT + 1):
        with pytest.raises(Unauthenticated):
            await opaque.verify(f"t{number}")
    with pytest.raises(Unauthenticated):
        await opaque.verify("t0")
    assert auth.asked.count("t0") == 2


async def test_signed_tokens_never_leave_the_gateway_for_a_check() -> None:
    class Signed(FakeVerifier):
        def forget(self, *, digest: str = "", subject: str = "") -> None:
            raise AssertionError("nothing is revoked here")

    opaque, auth, _ = tokens()
    both = BearerTokens(Signed(), opaque)
    assert (await both.verify(GOOD)).client_id == "app"
    with pytest.raises(Unauthenticated):
        await both.verify("a.b.c")
    assert auth.asked == [GOOD]
    with pytest.raises(Unauthenticated):
        await BearerTokens(Signed(), None).verify(GOOD)
    assert auth.asked == [GOOD]
    assert "CANARY" not in repr(TokenQuestion(token="CANARY"))
