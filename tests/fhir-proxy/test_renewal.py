"""A platform that refuses a token: one new token is asked for, and what may be repeated is repeated, once."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from wardmesh_common.vocabulary import Grant

pytestmark = pytest.mark.anyio
LENT = Grant(platform="probe", sealed_token=b"sealed", scopes=("user/*.rs",))


def only(bench: Any, good: str) -> None:
    """The platform takes this token and no other."""

    def respond(seen: Any) -> web.Response:
        right = seen.headers.get("Authorization") == f"Bearer {good}"
        return web.json_response({"resourceType": "Patient", "id": "p1"} if right else {}, status=200 if right else 401)

    bench.upstream.respond = respond


@pytest.mark.requirement("PX-9")
async def test_a_read_is_repeated_once_with_the_new_token(bench: Any) -> None:
    only(bench, "second")
    bench.renewed = "second"
    outcome = await bench.perform("read", "Patient", "p1", grant=LENT)
    assert outcome.status == 200
    assert [seen.headers["Authorization"] for seen in bench.upstream.requests] == ["Bearer first", "Bearer second"]


async def test_a_new_token_that_is_refused_too_is_not_followed_by_another(bench: Any) -> None:
    only(bench, "third")
    bench.renewed = "second"
    assert (await bench.perform("read", "Patient", "p1", grant=LENT)).status == 401
    assert (len(bench.upstream.requests), bench.renewals) == (2, 1)


async def test_without_a_new_token_the_refusal_of_the_platform_stands(bench: Any) -> None:
    only(bench, "second")
    outcome = await bench.perform("read", "Patient", "p1", grant=LENT)
    assert (outcome.status, outcome.problem.code) == (401, "sign_in_required")
    assert len(bench.upstream.requests) == 1


@pytest.mark.requirement("PX-9")
async def test_a_conditional_write_is_repeated_once_with_the_new_token(bench: Any) -> None:
    only(bench, "second")
    bench.renewed = "second"
    body = b'{"resourceType":"Patient","id":"p1"}'
    more: dict[str, Any] = {"body": body, "headers": {"if-match": 'W/"1"'}, "grant": LENT}
    assert (await bench.perform("update", "Patient", "p1", **more)).status == 200
    assert (len(bench.upstream.requests), bench.renewals, len(bench.intents)) == (2, 1, 1)


@pytest.mark.requirement("PX-9")
async def test_a_bare_write_and_a_call_without_token_are_sent_once(bench: Any) -> None:
    only(bench, "second")
    bench.renewed = "second"
    body = b'{"resourceType":"Patient"}'
    assert (await bench.perform("create", "Patient", body=body, grant=LENT)).status == 401
    assert (await bench.perform("read", "Patient", "p1")).status == 401
    assert (len(bench.upstream.requests), bench.renewals) == (2, 0)
