"""The body limit: what was received counts, not what was announced (X-15)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.rest_stage import WRITER, Stage
from wardmesh_common.errors import TooLarge
from wardmesh_gateway.limits import Incomplete, read_body

pytestmark = pytest.mark.anyio
LIMIT = 10_000
HEADERS = {**WRITER, "content-type": "application/fhir+json"}


async def chunks(count: int) -> AsyncIterator[bytes]:
    yield b'{"resourceType":"Patient","x":"'
    for _ in range(count):
        yield b"x" * 1000
    yield b'"}'


def resource(size: int) -> bytes:
    empty = b'{"resourceType":"Patient","x":""}'
    return empty[:-2] + b"x" * (size - len(empty)) + empty[-2:]


@pytest.mark.requirement("X-15")
@pytest.mark.parametrize("path", ["/api/fhir/store/Patient", "/fhir/store/Patient"])
async def test_a_chunked_body_above_the_limit_does_not_pass(path: str) -> None:
    stage = Stage(max_body_bytes=LIMIT)
    answer = await stage.send("POST", path, headers=HEADERS, content=chunks(11))
    assert answer.status_code == 413
    assert f"Request body too large. Maximum size is {LIMIT} bytes." in answer.text
    assert answer.headers["connection"] == "close"
    assert stage.bus.calls == []
    assert (await stage.send("POST", path, headers=HEADERS, content=chunks(9))).status_code == 200


@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 413)])
async def test_the_limit_is_exact(size: int, status: int) -> None:
    stage = Stage(max_body_bytes=LIMIT)
    answer = await stage.send("POST", "/api/fhir/store/Patient", headers=HEADERS, content=resource(size))
    assert answer.status_code == status


async def test_an_announced_size_above_the_limit_is_refused_on_every_route_before_anything_else() -> None:
    stage = Stage()
    headers = {"content-length": str(10 * 1024 * 1024 + 1)}
    for path in ("/api/fhir/store/Patient", "/v1/tools/read", "/health", "/api/platforms"):
        answer = await stage.send("POST", path, headers=headers)
        assert answer.status_code == 413
        assert "Request body too large. Maximum size is 10485760 bytes." in answer.text


class Channel:
    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = list(messages)

    async def __call__(self) -> dict[str, Any]:
        return self.messages.pop(0)


async def test_a_false_length_changes_nothing() -> None:
    part = {"type": "http.request", "body": b"x" * 6, "more_body": True}
    with pytest.raises(TooLarge):
        await read_body(Channel(part, dict(part)), 10)
    with pytest.raises(TooLarge):
        await read_body(Channel({"type": "http.request", "body": b"x" * 11}), 10)


async def test_a_body_that_breaks_off_is_no_body() -> None:
    part = {"type": "http.request", "body": b"x", "more_body": True}
    with pytest.raises(Incomplete):
        await read_body(Channel(part, {"type": "http.disconnect"}), 10)
