"""ST-73: every committed version becomes an event on the bus, also when store, broker or both died on the way."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import msgspec
import nkeys
import pytest
from nats.aio.client import Client
from store_stage import Fhir, StoreProcess, new_process, observation, patient

from engines import Nats, Postgres, nats, postgres
from wardmesh_common.contracts import EVENT_VERSION_COMMITTED, USERS
from wardmesh_common.questions import VersionCommitted
from wardmesh_fhir_store.feed.queue import settled

CONF = Path(__file__).resolve().parents[2] / "deploy" / "nats" / "nats.conf"
WAIT_SECONDS = 60
DEFAULT = "1234567890abcdef1234567890abcdef"
pytestmark = [pytest.mark.requirement("ST-73"), pytest.mark.timeout(400)]


def new_key() -> tuple[str, str]:
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return seed.decode(), bytes(nkeys.from_seed(seed).public_key).decode()


class Stage:
    """A broker with the permissions of the deployment, a database, and stores on them."""

    def __init__(self, broker: Nats, database: Postgres, seeds: dict[str, str]) -> None:
        self.broker = broker
        self.database = database
        self.seeds = seeds

    def store(self) -> StoreProcess:
        made = new_process(self.database.url())
        made.settings = {
            "WARDMESH_NATS_URL": self.broker.url,
            "WARDMESH_NATS_SEED": self.seeds["fhir-store"],
            "WARDMESH_OPERATIONS_SEED": self.seeds["operations"],
            "WARDMESH_FEED_POLL_SECONDS": "0.05",
        }
        return made

    def waiting(self) -> int:
        """Events in the outbox."""

        async def count() -> int:
            connection = await asyncpg.connect(self.database.url(), timeout=10)
            try:
                return int(await connection.fetchval("SELECT count(*) FROM outbox"))
            finally:
                await connection.close()

        return asyncio.run(count())

    def emptied(self) -> None:
        until(lambda: self.waiting() == 0, "the outbox was not emptied")

    def count(self) -> int:
        """Events that the stream has taken."""
        return asyncio.run(_count(self.broker.url, self.seeds["reader"]))

    def stored(self, after: int = 0) -> list[tuple[str, dict[str, str], VersionCommitted]]:
        """What the stream holds behind a place, in its order: subject, headers, event."""
        return asyncio.run(self.read(after))

    async def read(self, after: int) -> list[tuple[str, dict[str, str], VersionCommitted]]:
        nc = Client()
        await nc.connect(self.broker.url, nkeys_seed_str=self.seeds["reader"], inbox_prefix="_INBOX_reader")
        try:
            stream = nc.jetstream()
            state = (await stream.stream_info("STORE")).state
            found: list[tuple[str, dict[str, str], VersionCommitted]] = []
            for sequence in range(after + 1, state.last_seq + 1):
                message = await stream.get_msg("STORE", sequence)
                event = msgspec.msgpack.decode(message.data or b"", type=VersionCommitted)
                found.append((message.subject or "", message.headers or {}, event))
            return found
        finally:
            await nc.close()


async def _count(url: str, seed: str) -> int:
    nc = Client()
    await nc.connect(url, nkeys_seed_str=seed, inbox_prefix="_INBOX_reader")
    try:
        return (await nc.jetstream().stream_info("STORE")).state.last_seq
    finally:
        await nc.close()


def until(done: Callable[[], bool], why: str) -> None:
    limit = time.monotonic() + WAIT_SECONDS
    while not done():
        assert time.monotonic() < limit, why
        time.sleep(0.05)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    keys = {user: new_key() for user in (*USERS, "reader")}
    environ = {f"WARDMESH_NKEY_{user.upper().replace('-', '_')}": public for user, (_, public) in keys.items()}
    environ |= {"WARDMESH_NATS_HOST": "127.0.0.1", "WARDMESH_NATS_MONITOR": "127.0.0.1:-1"}
    reader = "users: [\n      { nkey: $WARDMESH_NKEY_READER }"  # of the tests alone
    with nats(CONF.read_text().replace("users: [", reader, 1), environ) as broker, postgres("feed") as database:
        found = Stage(broker, database, {user: seed for user, (seed, _) in keys.items()})
        store = found.store()
        assert store.command("migrate").returncode == 0
        assert b"made STORE" in store.command("provision").stdout
        assert store.command("provision").returncode == 0, "safe to repeat"
        yield found


@pytest.fixture
def store(stage: Stage) -> Iterator[StoreProcess]:
    made = stage.store()
    made.start()
    yield made
    made.kill()


@pytest.fixture
def fhir(store: StoreProcess) -> Iterator[Fhir]:
    client = Fhir(store.base)
    yield client
    client.http.close()


def versions(stage: Stage, kind: str = "") -> dict[tuple[str, str], list[int]]:
    """Every version that the database holds."""

    async def read() -> list[Any]:
        connection = await asyncpg.connect(stage.database.url(), timeout=10)
        try:
            return await connection.fetch("SELECT resource_type, resource_id, version FROM fhir_version ORDER BY 3")
        finally:
            await connection.close()

    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in asyncio.run(read()):
        if kind in ("", row[0]):
            found[row[0], row[1]].append(row[2])
    return found


def told(events: list[tuple[str, dict[str, str], VersionCommitted]]) -> dict[tuple[str, str], list[int]]:
    """In the order of the stream."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for _, _, event in events:
        found[event.type, event.id].append(event.version)
    return found


def test_each_committed_version_is_told_once_in_order_and_without_content(stage: Stage, fhir: Fhir) -> None:
    before = stage.count()
    family = "Kanarienvogel"
    made = fhir.create(patient(family))
    identity = made["id"]
    assert fhir.put(f"Patient/{identity}", made | {"gender": "other"}).status_code == 200
    patch = [{"op": "replace", "path": "/gender", "value": "female"}]
    assert (
        fhir.call("PATCH", f"Patient/{identity}", patch, Content_Type="application/json-patch+json").status_code == 200
    )
    assert fhir.call("DELETE", f"Patient/{identity}").status_code == 204
    bad = [
        {"resource": patient(family), "request": {"method": "POST", "url": "Patient"}},
        {"resource": observation() | {"status": 7}, "request": {"method": "POST", "url": "Observation"}},
    ]
    assert fhir.post("", {"resourceType": "Bundle", "type": "transaction", "entry": bad}).status_code >= 400
    assert fhir.call("PUT", f"Patient/{identity}", made, If_Match='W/"1"').status_code == 412
    stage.emptied()
    events = stage.stored(before)
    assert [(e.type, e.id, e.version, e.method) for _, _, e in events] == [
        ("Patient", identity, number, method) for number, method in enumerate(("POST", "PUT", "PATCH", "DELETE"), 1)
    ], "what was refused or undone is not told"
    for subject, headers, event in events:
        assert subject == f"{EVENT_VERSION_COMMITTED}.{DEFAULT}.Patient"
        assert set(headers) == {"Nats-Msg-Id"}
        assert identity not in subject + headers["Nats-Msg-Id"]
        assert event.datastore == DEFAULT
        assert event.at > time.time() - 120
        assert family.encode() not in msgspec.msgpack.encode(event)


def test_transactions_and_loads_are_told_too(stage: Stage, store: StoreProcess, fhir: Fhir, tmp_path: Path) -> None:
    before = stage.count()
    entries = [{"resource": patient("Many"), "request": {"method": "POST", "url": "Patient"}} for _ in range(30)]
    assert fhir.post("", {"resourceType": "Bundle", "type": "transaction", "entry": entries}).status_code == 200
    lines = tmp_path / "lines.ndjson"
    lines.write_bytes(b"".join(msgspec.json.encode(patient("Line") | {"id": f"line-{n}"}) + b"\n" for n in range(1200)))
    assert store.command("load", str(lines)).returncode == 0
    stage.emptied()
    assert len(stage.stored(before)) == 30 + 1200
    assert told(stage.stored()) == versions(stage)


def write(base: str, worker: int, enough: threading.Event) -> None:
    """Creates and changes; what fails because the store was killed is tried again."""
    fhir = Fhir(base)
    for number in itertools.takewhile(lambda _: not enough.is_set(), itertools.count()):
        for gender in ("male", "female"):
            until(lambda n=number, g=gender: _put(fhir, f"w{worker}-{n}", g), "the store did not come back")
    fhir.http.close()


def _put(fhir: Fhir, identity: str, gender: str) -> bool:
    try:
        body = patient("Kill") | {"id": identity, "gender": gender}
        return fhir.put(f"Patient/{identity}", body).status_code in (200, 201)
    except httpx.HTTPError:
        time.sleep(0.02)
        return False


def test_nothing_is_lost_doubled_or_turned_round_when_the_publisher_is_killed(stage: Stage) -> None:
    one, two, enough = stage.store(), stage.store(), threading.Event()
    one.start()
    two.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            writers = [pool.submit(write, (one, two)[worker % 2].base, worker, enough) for worker in range(4)]
            try:
                for victim in (one, two, one, two):
                    known = stage.count()
                    until(lambda known=known: stage.count() > known, "nobody publishes")
                    victim.kill()
                    victim.start()
            finally:
                enough.set()
            for writer in writers:
                writer.result(WAIT_SECONDS)
        stage.emptied()
    finally:
        one.kill()
        two.kill()
    assert told(stage.stored()) == versions(stage), "each version once, each resource's in order"


def test_writing_goes_on_without_a_broker_and_its_events_follow(stage: Stage, store: StoreProcess, fhir: Fhir) -> None:
    stage.broker.kill()
    identity = fhir.create(patient("Alone"))["id"]
    for gender in ("male", "female", "other"):
        assert fhir.put(f"Patient/{identity}", patient("Alone") | {"id": identity, "gender": gender}).status_code == 200
    assert stage.waiting() == 4
    store.kill()
    store.start()
    assert fhir.get(f"Patient/{identity}").status_code == 200, "a store without a broker serves"
    stage.broker.start()
    stage.emptied()
    assert told(stage.stored())["Patient", identity] == [1, 2, 3, 4]


def test_a_publisher_without_its_database_comes_back(stage: Stage, fhir: Fhir) -> None:
    stage.database.kill()
    stage.database.start()
    until(lambda: fhir.get("metadata").status_code == 200, "the store did not come back")
    until(lambda: fhir.post("Patient", patient("Again")).status_code == 201, "the store did not write again")
    stage.emptied()
    assert told(stage.stored()) == versions(stage)


async def _hold_open(url: str) -> asyncpg.Connection:
    """A writer that is not finished: what began after it waits (fhir.md §4.2)."""
    connection = await asyncpg.connect(url, timeout=10)
    await connection.execute("BEGIN")
    await connection.execute("SELECT pg_current_xact_id()")
    return connection


def test_events_go_up_to_the_oldest_transaction_that_still_runs(stage: Stage, fhir: Fhir) -> None:
    async def act() -> None:
        before = await _count(stage.broker.url, stage.seeds["reader"])
        older = await _hold_open(stage.database.url())
        assert (await asyncio.to_thread(fhir.post, "Patient", patient("Late"))).status_code == 201
        await asyncio.sleep(0.3)  # several looks of the publisher
        assert await _count(stage.broker.url, stage.seeds["reader"]) == before
        await older.execute("COMMIT")
        await older.close()

    asyncio.run(act())
    stage.emptied()
    assert told(stage.stored()) == versions(stage)


def test_a_version_does_not_overtake_the_one_before_it_that_may_not_go_yet() -> None:
    rows = [
        {"public_id": "d", "resource_type": "Patient", "resource_id": name, "version": version, "settled": done}
        for name, version, done in (("a", 1, False), ("b", 1, True), ("a", 2, True), ("b", 2, True))
    ]
    assert [(row["resource_id"], row["version"]) for row in settled(rows)] == [("b", 1), ("b", 2)]
