"""The rate limit: per principal, shared by the replicas, never by something that the client can choose (X-10)."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.rest_stage import READER, Clock, Stage
from wardmesh_common.contracts import GW_RATE, encode
from wardmesh_common.errors import RateLimited
from wardmesh_common.questions import RateReport
from wardmesh_gateway.ratelimit import RateLimits

pytestmark = pytest.mark.anyio
PATH = "/api/fhir/store/Patient/p1"


class Replicas:
    """Several replicas whose reports reach the others when `spread` is called."""

    def __init__(self, count: int, limit: int = 100) -> None:
        self.clock = Clock()
        self.sent: list[RateReport] = []
        self.all = [self._one(f"gateway-{number}", limit) for number in range(count)]

    def _one(self, name: str, limit: int) -> RateLimits:
        return RateLimits(self._tell, replica=name, key=b"k" * 32, limit=limit, window_seconds=60.0, clock=self.clock)

    async def _tell(self, subject: str, event: Any) -> None:
        assert subject == GW_RATE
        self.sent.append(event)

    async def spread(self) -> None:
        for replica in self.all:
            await replica.report()
        reports, self.sent = self.sent, []
        for report in reports:
            for replica in self.all:
                await replica.on_report(report)


def admitted(limits: RateLimits, caller: str, times: int) -> int:
    passed = 0
    for _ in range(times):
        try:
            limits.take(caller)
        except RateLimited:
            continue
        passed += 1
    return passed


async def test_a_window_admits_the_limit_and_opens_again_as_it_slides() -> None:
    replicas = Replicas(1)
    (limits,) = replicas.all
    assert admitted(limits, "a", 60) == 60
    replicas.clock.now += 30
    assert admitted(limits, "a", 60) == 40
    assert admitted(limits, "b", 10) == 10
    replicas.clock.now += 35
    assert admitted(limits, "a", 100) == 60
    replicas.clock.now += 600
    assert admitted(limits, "a", 200) == 100


async def test_replicas_share_one_budget() -> None:
    replicas = Replicas(3)
    passed = 0
    for _ in range(40):
        for limits in replicas.all:
            passed += admitted(limits, "a", 1)
        await replicas.spread()
    assert 100 <= passed <= 102


async def test_a_report_leaves_at_once_when_the_unsent_count_reaches_five_percent() -> None:
    replicas = Replicas(1)
    (limits,) = replicas.all
    admitted(limits, "a", 4)
    assert not limits._wake.is_set()
    admitted(limits, "a", 1)
    assert limits._wake.is_set()
    await limits.report()
    assert [list(report.counts.values()) for report in replicas.sent] == [[5]]
    await limits.report()
    assert len(replicas.sent) == 1


async def test_a_report_names_nobody() -> None:
    replicas = Replicas(1)
    (limits,) = replicas.all
    admitted(limits, "principal:demo_doctor", 1)
    await limits.report()
    assert b"demo_doctor" not in encode(replicas.sent[0])
    assert [len(digest) for digest in replicas.sent[0].counts] == [16]


async def test_a_foreign_report_cannot_grow_a_budget_or_overflow() -> None:
    replicas = Replicas(2)
    limits = replicas.all[0]
    admitted(limits, "a", 10)
    digest = next(iter(limits._windows))
    await limits.on_report(RateReport(replica="x", counts={digest: -50, b"short": 5}))
    assert admitted(limits, "a", 200) == 90
    replicas.clock.now += 120
    await limits.on_report(RateReport(replica="x", counts={digest: 10**12}))
    assert admitted(limits, "a", 1) == 0
    replicas.clock.now += 120
    assert admitted(limits, "a", 1) == 1


async def test_the_client_of_a_token_does_not_open_a_new_budget() -> None:
    (limits,) = Replicas(1, limit=2).all
    assert [await limits.admit(f"who.client{n}", "read") for n in range(3)] == [0, 0, 60]


@pytest.mark.requirement("X-10")
async def test_neither_a_made_up_cookie_nor_another_header_opens_a_new_budget() -> None:
    stage = Stage(rate_limit=3)
    statuses = [
        (await stage.get(PATH, {"cookie": f"app_session=made-up-{n}", "user-agent": f"agent/{n}"})).status_code
        for n in range(5)
    ]
    assert statuses == [200, 200, 200, 429, 429]
    forged = {"cookie": "app_session=x", "x-forwarded-for": "198.51.100.99"}
    assert (await stage.get(PATH, forged)).status_code == 429
    assert (await stage.get(PATH, {"cookie": "app_session=x"}, peer="203.0.113.8")).status_code == 200


@pytest.mark.requirement("X-10")
async def test_a_session_that_auth_knows_has_a_budget_of_its_own_and_many_sessions_share_a_larger_one() -> None:
    stage = Stage(rate_limit=3)
    mine = {"cookie": "app_session=" + "m" * 43}
    statuses = [(await stage.get(PATH, mine)).status_code for _ in range(5)]
    # The first request was paid for by the address: nobody had vouched for the cookie yet.
    assert statuses == [200, 200, 200, 200, 429]
    assert (await stage.get(PATH, mine, peer="198.51.100.77")).status_code == 429
    stage.clock.now += 61
    sessions = [{"cookie": f"app_session={number:043d}"} for number in range(40)]
    for number, cookie in enumerate(sessions):
        assert (await stage.get(PATH, cookie, peer=f"203.0.113.{100 + number}")).status_code == 200
    statuses = [(await stage.get(PATH, cookie)).status_code for cookie in sessions]
    assert statuses == [200] * 30 + [429] * 10


async def test_tokens_are_counted_per_principal_on_every_route_and_guesses_per_address() -> None:
    stage = Stage(rate_limit=2)
    assert (await stage.get(PATH)).status_code == 200
    assert (await stage.get("/fhir/store/Patient/p1", peer="203.0.113.9")).status_code == 200
    body = b'{"platform_id":"store","resource_type":"Patient"}'
    answer = await stage.send("POST", "/v1/tools/search", headers=READER, content=body)
    assert answer.status_code == 429
    other = {"authorization": "Bearer nurse:fhir.read"}
    assert (await stage.get(PATH, other)).status_code == 200
    guesses = [(await stage.get(PATH, {"authorization": f"Bearer g{n}"})).status_code for n in range(4)]
    assert guesses == [401, 401, 429, 429]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", PATH, {"detail": "Too many requests. Please try again later."}),
        ("POST", "/v1/tools/read", {"error": "throttled", "message": "Too many requests. Please try again later."}),
        (
            "GET",
            "/fhir/store/Patient/p1",
            {
                "resourceType": "OperationOutcome",
                "issue": [
                    {
                        "severity": "error",
                        "code": "throttled",
                        "diagnostics": "Too many requests. Please try again later.",
                    }
                ],
            },
        ),
    ],
)
async def test_a_full_window_says_so_in_each_shape(method: str, path: str, body: dict[str, Any]) -> None:
    stage = Stage(rate_limit=1)
    await stage.get(PATH)
    answer = await stage.send(method, path, headers=READER, content=b"{}" if method == "POST" else None)
    assert (answer.status_code, answer.headers["retry-after"], answer.json()) == (429, "60", body)
