"""Races between two processes of the store, and crashes at many moments of a transaction."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
from store_stage import FHIR_JSON, Fhir, StoreProcess, patient, running

SYSTEM = "http://hospital.example.org/mrn"
CLIENTS = 20
# Seconds between sending a transaction and the SIGKILL: from before it is read until after its answer.
MOMENTS = (0.005, 0.02, 0.04, 0.07, 0.12, 0.4)
ENTRIES = 40
WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def replicas(database_url: str) -> Iterator[list[StoreProcess]]:
    with running(database_url) as one, running(database_url) as other:
        yield [one, other]


@contextlib.contextmanager
def client(process: StoreProcess) -> Iterator[Fhir]:
    found = Fhir(process.base)
    try:
        yield found
    finally:
        found.http.close()


@pytest.fixture
def fhir(replicas: list[StoreProcess]) -> Iterator[Fhir]:
    """The first replica."""
    with client(replicas[0]) as found:
        yield found


def race(requests: list[httpx.Request]) -> Counter[int]:
    """All at once; each process gets every second one."""

    async def every() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=len(requests))
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            return await asyncio.gather(*(client.send(request) for request in requests))

    return Counter(answer.status_code for answer in asyncio.run(every()))


def identified(value: str) -> dict[str, object]:
    return patient("Race", identifier=[{"system": SYSTEM, "value": value}])


@pytest.mark.requirement("ST-18")
def test_of_twenty_writers_at_two_replicas_with_one_if_match_exactly_one_wins(
    replicas: list[StoreProcess], fhir: Fhir
) -> None:
    identity = fhir.create(patient("Shared"))["id"]
    headers = {"If-Match": 'W/"1"', "Content-Type": FHIR_JSON}
    bodies = [patient(f"Writer{n}") | {"id": identity} for n in range(CLIENTS)]
    requests = [
        httpx.Request("PUT", f"{replicas[n % 2].base}/Patient/{identity}", json=body, headers=headers)
        for n, body in enumerate(bodies)
    ]
    assert race(requests) == {200: 1, 412: CLIENTS - 1}
    history = fhir.get(f"Patient/{identity}/_history").json()
    assert history["total"] == 2
    winner = history["entry"][0]["resource"]["name"][0]["family"]
    with client(replicas[1]) as other:
        assert other.get(f"Patient/{identity}").json()["name"][0]["family"] == winner


@pytest.mark.requirement("ST-18")
def test_of_twenty_conditional_creates_in_different_words_at_two_replicas_one_makes_a_resource(
    replicas: list[StoreProcess], fhir: Fhir, mark: str
) -> None:
    # The same condition said in several ways: a lock on its text would not see that they are the same.
    words = (f"identifier={SYSTEM}|{mark}", f"identifier={mark}", f"identifier={mark}&family=race")
    requests = [
        httpx.Request(
            "POST",
            f"{replicas[n % 2].base}/Patient",
            json=identified(mark),
            headers={"If-None-Exist": words[n % len(words)], "Content-Type": FHIR_JSON},
        )
        for n in range(CLIENTS)
    ]
    assert race(requests) == {201: 1, 200: CLIENTS - 1}
    assert len(fhir.ids(f"Patient?identifier={SYSTEM}|{mark}")) == 1


@pytest.mark.requirement("ST-18")
def test_conditional_creates_inside_racing_transactions_make_one_resource(
    replicas: list[StoreProcess], fhir: Fhir, mark: str
) -> None:
    condition = {"method": "POST", "url": "Patient", "ifNoneExist": f"identifier={SYSTEM}|{mark}"}
    reference = f"urn:uuid:8f9a2c3e-0000-4c2d-9f3e-{mark[1:13]}"
    flag = {"resourceType": "Flag", "status": "active", "code": {"text": mark}, "subject": {"reference": reference}}
    entries = [
        {"fullUrl": reference, "resource": identified(mark), "request": condition},
        {"resource": flag, "request": {"method": "POST", "url": "Flag"}},
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    headers = {"Content-Type": FHIR_JSON}
    requests = [httpx.Request("POST", replicas[n % 2].base, json=bundle, headers=headers) for n in range(8)]
    assert race(requests) == {200: 8}
    (only,) = fhir.ids(f"Patient?identifier={SYSTEM}|{mark}")
    assert len(fhir.ids(f"Flag?patient={only}")) == 8, "every transaction refers to the one that won"


@pytest.mark.requirement("ST-23")
def test_a_store_killed_at_any_moment_of_a_transaction_stored_all_of_it_or_nothing(
    replicas: list[StoreProcess], fhir: Fhir, mark: str
) -> None:
    victim, witness = replicas[1], fhir
    answered: dict[int, int] = {}
    for number, moment in enumerate(MOMENTS):
        sender = threading.Thread(target=_send, args=(victim, f"{mark}-{number}", number, answered))
        sender.start()
        time.sleep(moment)  # the moment is what is tested, not waited for
        victim.kill()
        sender.join(WAIT_SECONDS)
        stored = _settled(witness, f"{mark}-{number}")
        assert stored in {0, ENTRIES}, f"killed after {moment} s: {stored} of {ENTRIES} are stored"
        if number in answered:
            assert (answered[number], stored) == (200, ENTRIES), "what was answered is stored"
        versions = witness.get(f"Basic/{mark}-{number}-0/_history")
        assert versions.status_code == (200 if stored else 404), "no trace in the history either"
        victim.start()


def _send(process: StoreProcess, family: str, number: int, answered: dict[int, int]) -> None:
    code = {"coding": [{"system": "http://example.org/crash", "code": family}]}
    entries = [
        {
            "resource": {"resourceType": "Basic", "id": f"{family}-{n}", "code": code},
            "request": {"method": "PUT", "url": f"Basic/{family}-{n}"},
        }
        for n in range(ENTRIES)
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    with contextlib.suppress(httpx.HTTPError), client(process) as fhir:
        answered[number] = fhir.post("", bundle).status_code


def _settled(witness: Fhir, family: str) -> int:
    """What another replica finds; a second look sees what the database still did with the connection of the dead."""
    counts: list[int] = []
    limit = time.monotonic() + WAIT_SECONDS
    while len(counts) < 3 or counts[-1] != counts[-3]:
        assert time.monotonic() < limit, "the count of what is stored does not settle"
        counts.append(witness.get(f"Basic?code={family}&_summary=count").json()["total"])
        time.sleep(0.05)
    return counts[-1]
