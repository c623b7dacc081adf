"""What the gateway refuses by itself is recorded, and nobody can flood the ledger with it (FG-19)."""

from __future__ import annotations

import asyncio

import pytest

from gateway.mcp_stage import READER as MCP_READER
from gateway.mcp_stage import Hub
from gateway.mcp_stage import stage as mcp_stage
from gateway.rest_stage import READER, FakeBus, Stage
from wardmesh_common.contracts import Call, Caller, Outcome
from wardmesh_common.errors import AuditUnavailable, Problem
from wardmesh_common.leaf import draft_events
from wardmesh_common.vocabulary import Face
from wardmesh_gateway.security_records import SecurityRecords

pytestmark = pytest.mark.anyio
P = "smarthealthit-sandbox-patient"
NOBODY = {"x-nobody": "1"}
PROBLEM = Problem(code="invalid_token", status=401, detail="no")


def events(bus: FakeBus) -> list[str]:
    return [outcome.event for _, outcome in bus.recorded]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "event"),
    [
        ("GET", "/api/fhir/store/Patient/p1", {"authorization": "Bearer no"}, 401, "security.invalid_token"),
        ("GET", "/fhir/store/Patient/p1", {"authorization": "Bearer no"}, 401, "security.invalid_token"),
        ("POST", "/v1/tools/read", {"authorization": "Bearer no"}, 401, "security.invalid_token"),
        ("GET", "/api/fhir/store/Patient/p1", NOBODY, 401, "error.resource_access"),
        ("GET", "/api/fhir/store/patient", READER, 400, "error.validation"),
        ("GET", "/fhir/store/Patient/p$1", READER, 400, "error.validation"),
        ("GET", "/api/fhir/nowhere/Patient", READER, 404, "error.platform"),
        ("DELETE", f"/api/fhir/{P}/Patient/p1", {"cookie": "app_session=x"}, 403, "security.csrf_violation"),
        ("POST", f"/auth/{P}/logout", NOBODY, 403, "security.csrf_violation"),
    ],
)
async def test_a_refusal_without_a_call_leaves_a_record(
    method: str, path: str, headers: dict[str, str], status: int, event: str
) -> None:
    stage = Stage()
    assert (await stage.send(method, path, headers=headers)).status_code == status
    await stage.parts.security.close()
    assert events(stage.bus) == [event]
    call, outcome = stage.bus.recorded[0]
    assert (call.caller.ip, outcome.status) == ("203.0.113.7", status)
    assert (call.caller.bearer, call.caller.cookie, call.query) == ("", "", "")


async def test_too_many_requests_are_recorded_with_their_number() -> None:
    stage = Stage(rate_limit=2)
    for _ in range(7):
        await stage.get("/api/fhir/store/Patient/p1")
    await stage.parts.security.close()
    assert events(stage.bus) == ["security.rate_limit"] * 2
    assert [outcome.touched[0].count for _, outcome in stage.bus.recorded] == [1, 4]
    (draft,) = draft_events(stage.bus.recorded[1][0], stage.bus.recorded[1][1], stage.bus.recorded[1][1].touched, 0.0)
    assert (draft.data["event"], draft.data["resource"]["count"]) == ("security.rate_limit", 4)
    assert draft.event_class == "login"
    assert draft.secrets == {}


async def test_a_call_that_a_station_has_recorded_is_not_recorded_again() -> None:
    stage = Stage()
    await stage.send("DELETE", "/api/fhir/store/Patient/p1", headers=READER)  # the door refuses: its own record
    await stage.get("/api/fhir/store/Patient/p1")
    await stage.parts.security.close()
    assert events(stage.bus) == [""]


class Held:
    """Records that are stored when the test says so."""

    def __init__(self, *, fails: bool = False) -> None:
        self.taken: list[tuple[str, str, int]] = []
        self.fails = fails

    async def outcome(self, call: Call, outcome: Outcome) -> None:
        if self.fails:
            raise AuditUnavailable("away")
        self.taken.append((outcome.event, call.caller.ip, outcome.touched[0].count))


async def test_an_attacker_writes_two_records_a_window_per_address_and_a_bounded_number_in_all() -> None:
    held = Held()
    records = SecurityRecords(held, window_seconds=60, max_open=3)
    for _ in range(1000):
        for last in range(10):
            records.note("security.invalid_token", PROBLEM, Caller(ip=f"198.51.100.{last}"), Face.REST)
    await records.close()
    assert len(held.taken) == 8
    assert sum(count for _, _, count in held.taken) == 10_000
    assert {address for _, address, _ in held.taken} == {"198.51.100.0", "198.51.100.1", "198.51.100.2", ""}


async def test_a_window_ends_by_itself_and_the_next_refusal_is_recorded_at_once() -> None:
    held = Held()
    records = SecurityRecords(held, window_seconds=0.05)
    for _ in range(3):
        records.note("security.invalid_token", PROBLEM, Caller(ip="198.51.100.1"), Face.REST)
    async with asyncio.timeout(30):
        while len(held.taken) < 2:
            await asyncio.sleep(0.01)
    records.note("security.invalid_token", PROBLEM, Caller(ip="198.51.100.1"), Face.REST)
    async with asyncio.timeout(30):
        while len(held.taken) < 3:
            await asyncio.sleep(0.01)
    await records.close()
    assert [count for _, _, count in held.taken] == [1, 2, 1]


async def test_without_a_ledger_the_answer_goes_out_all_the_same() -> None:
    records = SecurityRecords(Held(fails=True))
    records.note("security.invalid_token", PROBLEM, Caller(ip="198.51.100.1"), Face.REST)
    await records.close()


async def test_refusals_at_the_mcp_edge_are_recorded_and_a_first_visit_without_a_token_is_not() -> None:
    held = Held()
    security = SecurityRecords(held)
    async with mcp_stage(hub=Hub(), security=security) as one:
        await one.modern("tools/list", token="")
        await one.modern("tools/list", token="wrong")
        await one.modern("tools/list", origin="https://evil.test")
        await one.modern("tools/call", {"name": "delete", "arguments": {}}, token=MCP_READER)
        one.limiter.wait = 9
        await one.modern("tools/list")
    await security.close()
    assert [event for event, _, _ in held.taken] == [
        "security.invalid_token",
        "security.csrf_violation",
        "security.scope_violation",
        "security.rate_limit",
    ]
