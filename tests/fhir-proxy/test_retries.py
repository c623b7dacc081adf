"""PX-9, B-16, AR-5, AR-7: attempts that cannot repeat an effect, a circuit per platform, places that are kept."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import msgspec
import pytest
from aiohttp import web

from wardmesh_common.contracts import Call
from wardmesh_common.errors import AuditUnavailable, Denied, OutcomeUnknown, PlatformDown, TimedOut
from wardmesh_common.vocabulary import Grant
from wardmesh_fhir_proxy.exchange import Exchanges
from wardmesh_fhir_proxy.headers import MAX_RETRY_AFTER, retry_after_seconds
from wardmesh_fhir_proxy.healthlake_signing import Signer
from wardmesh_fhir_proxy.lanes import FAILURES_TO_OPEN, Circuit
from wardmesh_fhir_proxy.upstream import Transport

pytestmark = pytest.mark.anyio

BODY = b'{"resourceType":"Patient","id":"p1","gender":"female"}'
METHODS = {"update": "PUT", "delete": "DELETE", "patch": "PATCH"}
CASES: list[tuple[str, str, dict[str, Any], int]] = [
    ("read", "p1", {}, 3),
    ("search", "", {}, 3),
    ("search", "", {"body": b"name=x", "media_type": "application/x-www-form-urlencoded"}, 3),
    ("update", "p1", {"body": BODY, "headers": {"if-match": 'W/"1"'}}, 3),
    ("delete", "p1", {"headers": {"if-match": 'W/"1"'}}, 3),
    ("create", "", {"body": b'{"resourceType":"Patient"}', "headers": {"if-none-exist": "identifier=1"}}, 3),
    ("create", "", {"body": b'{"resourceType":"Patient"}'}, 1),
    ("update", "p1", {"body": BODY}, 1),
    ("delete", "p1", {}, 1),
    ("patch", "p1", {"body": b"[]", "headers": {"if-match": 'W/"1"'}}, 1),
    ("batch", "", {"body": b'{"resourceType":"Bundle","type":"batch"}'}, 1),
    ("transaction", "", {"body": b'{"resourceType":"Bundle","type":"transaction"}'}, 1),
]


@pytest.mark.requirement("PX-9")
@pytest.mark.parametrize(("interaction", "identity", "more", "attempts"), CASES)
async def test_px9_attempts_per_method(
    bench: Any, interaction: str, identity: str, more: dict[str, Any], attempts: int
) -> None:
    bench.policy.search = {"Patient"}
    bench.upstream.answer(b"", 503, Content_Type="text/plain")
    kind = "" if interaction in ("batch", "transaction") else "Patient"
    outcome = await bench.perform(interaction, kind, identity, **more)
    assert outcome.status == 502
    assert len(bench.upstream.requests) == attempts


@pytest.mark.requirement("PX-9")
async def test_px9_a_broken_connection_is_retried_for_reads_and_unknown_for_writes(bench: Any) -> None:
    async def cut(seen: Any) -> web.Response:
        response = web.Response(body=b"{}", content_type="application/fhir+json")
        response.force_close()
        bench.upstream.cut_next = True
        return response

    bench.upstream.respond = cut
    with pytest.raises(PlatformDown):
        await bench.perform("read", "Patient", "p1")
    assert len(bench.upstream.requests) == 3
    for method, more in (("update", {"body": BODY}), ("delete", {}), ("patch", {"body": b"[]"})):
        bench.upstream.requests.clear()
        bench.upstream.answer(BODY)
        await bench.perform("read", "Patient", "p1")  # leaves a kept connection behind
        bench.upstream.respond = cut
        with pytest.raises(OutcomeUnknown):
            await bench.perform(method, "Patient", "p1", **more)
        assert [seen.method for seen in bench.upstream.requests][1:] == [METHODS[method]]
    release = asyncio.Event()

    async def hang(seen: Any) -> web.Response:
        await release.wait()
        return web.Response()

    bench.upstream.requests.clear()
    bench.upstream.respond = hang
    with pytest.raises(OutcomeUnknown):
        await bench.perform("create", "Patient", body=b'{"resourceType":"Patient"}', seconds=3)
    release.set()
    assert len(bench.upstream.requests) == 1


@pytest.mark.requirement("PX-9")
async def test_px9_retry_after_is_obeyed_within_the_deadline(bench: Any) -> None:
    bench.upstream.answer(b"", 429, Content_Type="text/plain", Retry_After="1")
    started = time.monotonic()
    outcome = await bench.perform("read", "Patient", "p1", seconds=8)
    assert outcome.status == 429 and outcome.headers["Retry-After"] == "1"
    assert len(bench.upstream.requests) == 3
    assert time.monotonic() - started >= 2.0
    bench.upstream.answer(b"", 429, Content_Type="text/plain", Retry_After="100")
    bench.upstream.requests.clear()
    await bench.perform("read", "Patient", "p1")
    assert len(bench.upstream.requests) == 1


@pytest.mark.requirement("PX-9")
async def test_px9_retry_after_may_be_a_date_and_is_capped(bench: Any) -> None:
    started = time.monotonic()
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=1.2), usegmt=True)
    answers = iter([web.Response(status=503, headers={"Retry-After": when})])
    patient = web.json_response({"resourceType": "Patient", "id": "p1"}, content_type="application/fhir+json")
    bench.upstream.respond = lambda _: next(answers, patient)
    assert (await bench.perform("read", "Patient", "p1", seconds=10)).status == 200
    assert time.monotonic() - started >= 0.15, "as long as the date says, which is in whole seconds"
    for said in ("999999", format_datetime(datetime.now(UTC) + timedelta(days=9), usegmt=True)):
        assert retry_after_seconds(said, time.time()) == MAX_RETRY_AFTER
    for said in ("soon", "-5", format_datetime(datetime.now(UTC) - timedelta(days=9), usegmt=True)):
        assert retry_after_seconds(said, time.time()) == 0


@pytest.mark.requirement("PX-9")
async def test_px9_full_jitter_spreads_the_pauses() -> None:
    drawn = iter((0.0, 0.999, 0.5))
    exchanges = Exchanges(Transport(), Signer(lambda: None), jitter=lambda: next(drawn))  # type: ignore[arg-type]
    pauses = [exchanges._pause(None, attempt) for attempt in (0, 0, 1)]
    assert pauses == pytest.approx([0.0, 0.0999, 0.1])


@pytest.mark.requirement("PX-9")
async def test_px9_retries_are_at_most_a_tenth_of_the_requests(bench: Any) -> None:
    bench.describe(max_concurrent=4)
    lane = bench.exchanges.lane(bench.platforms.descriptors["probe"])
    allowed = 0
    for _ in range(200):
        lane.count_request()
        allowed += lane.may_retry()
    assert allowed <= 200 * 0.1 + 11


@pytest.mark.requirement("PX-9")
@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (b'{"resourceType":"Patient","id":"p1","meta":{"versionId":"2"},"gender":"female"}', 200),
        (b'{"resourceType":"Patient","id":"p1","gender":"male"}', 412),
    ],
)
async def test_px9_an_ambiguous_put_is_settled_by_reading_back(bench: Any, stored: bytes, expected: int) -> None:
    answers = iter(
        [
            web.Response(status=503),
            web.Response(status=412),
            web.Response(body=stored, content_type="application/fhir+json", headers={"ETag": 'W/"2"'}),
        ]
    )
    bench.upstream.respond = lambda _: next(answers)
    outcome = await bench.perform("update", "Patient", "p1", body=BODY, headers={"if-match": 'W/"1"'})
    assert outcome.status == expected
    assert [seen.method for seen in bench.upstream.requests] == ["PUT", "PUT", "GET"]


@pytest.mark.requirement("PX-9")
async def test_px9_the_circuit_opens_half_opens_and_closes(bench: Any) -> None:
    now = [0.0]
    circuit = Circuit(lambda: now[0])
    for _ in range(FAILURES_TO_OPEN):
        circuit.enter()
        circuit.leave(failed=True)
    with pytest.raises(PlatformDown) as refused:
        circuit.enter()
    assert refused.value.problem.retry_after > 0
    now[0] = 0.6
    circuit.enter()
    with pytest.raises(PlatformDown):
        circuit.enter()  # one probe at a time
    circuit.leave(failed=True)
    now[0] = 1.2
    with pytest.raises(PlatformDown):
        circuit.enter()  # left alone for longer after a probe that failed
    now[0] = 1.7
    circuit.enter()
    circuit.leave(failed=False)
    circuit.enter()


def test_px9_a_platform_that_stays_away_is_asked_every_ten_seconds() -> None:
    now = [0.0]
    circuit = Circuit(lambda: now[0])
    for _ in range(FAILURES_TO_OPEN - 1):
        circuit.leave(failed=True)
    probes = 0
    while now[0] < 120.0:
        try:
            circuit.enter()
        except PlatformDown:
            pass
        else:
            probes += 1
            circuit.leave(failed=True)
        now[0] += 0.25
    assert 14 <= probes <= 17


@pytest.mark.requirement("PX-9")
async def test_px9_client_errors_never_open_the_circuit_and_failures_do(bench: Any) -> None:
    for status in (401, 403, 404, 412):
        bench.upstream.answer(b"", status, Content_Type="text/plain")
        for _ in range(FAILURES_TO_OPEN + 1):
            assert (await bench.perform("read", "Patient", "p1")).status == status
    bench.upstream.answer(b"", 500, Content_Type="text/plain")
    for _ in range(FAILURES_TO_OPEN):
        await bench.perform("read", "Patient", "p1")
    bench.upstream.requests.clear()
    with pytest.raises(PlatformDown):
        await bench.perform("read", "Patient", "p1")
    assert bench.upstream.requests == []


@pytest.mark.requirement("PX-9")
async def test_px9_each_platform_has_a_circuit_of_its_own(bench: Any) -> None:
    other = {"id": "other", "name": "Other", "type": "sandbox", "bases": {"patient": f"{bench.upstream.base}/other"}}
    (bench.directory / "other.yaml").write_bytes(msgspec.json.encode(other))
    bench.platforms.reload()

    def respond(seen: Any) -> web.Response:
        if "/other/" not in seen.path:
            return web.Response(status=500)
        return web.json_response({"resourceType": "Patient", "id": "p1"}, content_type="application/fhir+json")

    bench.upstream.respond = respond
    for _ in range(FAILURES_TO_OPEN):
        await bench.perform("read", "Patient", "p1")
    with pytest.raises(PlatformDown):
        await bench.perform("read", "Patient", "p1")
    assert (await bench.perform("read", "Patient", "p1", platform="other")).status == 200


async def test_b16_no_more_than_the_concurrent_places_reach_the_platform(bench: Any) -> None:
    bench.describe(max_concurrent=2)
    inside, peak = [0], [0]
    gate = asyncio.Event()

    async def slow(seen: Any) -> web.Response:
        inside[0] += 1
        peak[0] = max(peak[0], inside[0])
        await gate.wait()
        inside[0] -= 1
        return web.Response(body=b'{"resourceType":"Patient","id":"p1"}', content_type="application/fhir+json")

    bench.upstream.respond = slow
    calls = [asyncio.create_task(bench.perform("read", "Patient", "p1", seconds=5)) for _ in range(8)]
    async with asyncio.timeout(30):
        while inside[0] < 2:
            await asyncio.sleep(0)
    gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert peak[0] == 2
    statuses = [getattr(r, "status", None) for r in results]
    assert statuses.count(200) == 4, "two in place, two waiting, the others are told busy at once"


def tamper(call: Call, what: str) -> None:
    assert call.decision is not None
    if what == "none":
        call.decision = None
    elif what == "denied":
        call.decision = msgspec.structs.replace(call.decision, allowed=False)
    elif what == "expired":
        call.decision = msgspec.structs.replace(call.decision, expires=time.time() - 1)
    elif what == "query":
        call.query = "name=x"
    elif what == "resource":
        call.resource = msgspec.structs.replace(call.resource, id="p2")
    elif what == "principal":
        call.principal = msgspec.structs.replace(call.principal, id="p2")  # type: ignore[type-var]
    elif what == "nobody":
        call.principal = None
    elif what == "body":
        call.body = b"{}"
    elif what == "id":
        call.id = "call-2"
    elif what == "grant":
        call.grant = Grant(platform="other")


@pytest.mark.requirement("AR-5")
@pytest.mark.parametrize(
    "what", ["none", "denied", "expired", "query", "resource", "principal", "nobody", "body", "id", "grant"]
)
async def test_ar5_a_decision_for_anything_else_is_refused_without_an_upstream_call(bench: Any, what: str) -> None:
    bench.upstream.answer({"resourceType": "Patient", "id": "p1"})
    call = bench.call("read", "Patient", "p1")
    tamper(call, what)
    with pytest.raises(Denied):
        await bench.send(call)
    assert bench.upstream.requests == []


async def test_ar7_a_call_without_time_left_is_not_sent(bench: Any) -> None:
    with pytest.raises(TimedOut):
        await bench.perform("read", "Patient", "p1", seconds=0.2)
    assert bench.upstream.requests == []


async def test_ar3_a_write_is_not_sent_when_its_intent_cannot_be_recorded(bench: Any) -> None:
    bench.audit_down = True
    with pytest.raises(AuditUnavailable):
        await bench.perform("update", "Patient", "p1", body=BODY)
    assert bench.upstream.requests == []
    bench.audit_down = False
    bench.upstream.answer(BODY)
    await bench.perform("update", "Patient", "p1", body=BODY)
    assert bench.intents[0][1][0].patient == "probe/Patient/p1"


@pytest.mark.parametrize(
    ("kind", "identity"),
    [
        ("Patient", ".."),
        ("Patient", "."),
        ("Patient", "a/b"),
        ("../x", "1"),
        ("Patient", "1?x=y"),
        ("Patient", "%2e%2e"),
    ],
)
async def test_a_path_can_never_leave_the_base(bench: Any, kind: str, identity: str) -> None:
    with pytest.raises(Exception, match="well-formed"):
        await bench.perform("read", kind, identity)
    assert bench.upstream.requests == []
