"""The process: health, an orderly end, faults of its database and of itself."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from subprocess import CompletedProcess

import asyncpg
import httpx
import pytest
from store_stage import Fhir, StoreProcess, new_process, patient, running

from engines import Postgres, postgres

WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def engine() -> Iterator[Postgres]:
    with postgres("crash", durable=True) as found:
        yield found


@pytest.fixture
def store(engine: Postgres) -> Iterator[StoreProcess]:
    with running(engine.url("crash")) as made:
        yield made


@pytest.fixture
def fhir(store: StoreProcess) -> Iterator[Fhir]:
    client = Fhir(store.base)
    yield client
    client.http.close()


def test_health_follows_the_life_of_the_process(store: StoreProcess) -> None:
    for path in ("livez", "readyz", "startupz"):
        assert httpx.get(f"http://127.0.0.1:{store.admin_port}/{path}").status_code == 200
    assert store.stop() == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{store.admin_port}/livez")


def without_temporary_tables(engine: Postgres) -> CompletedProcess[bytes]:
    """How a store ends whose user lost a right that everybody has by default."""
    url = engine.create("bare")
    assert new_process(url).command("migrate").returncode == 0

    async def revoke() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute("REVOKE TEMPORARY ON DATABASE bare FROM PUBLIC; CREATE ROLE bare LOGIN")
            await connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO bare")
        finally:
            await connection.close()

    asyncio.run(revoke())
    ended = new_process(engine.url("bare", user="bare")).command()
    assert (ended.returncode, b"GRANT TEMPORARY" in ended.stdout + ended.stderr) == (1, True)
    return ended


def test_what_keeps_the_store_from_starting_is_named(engine: Postgres, store: StoreProcess) -> None:
    ended = new_process(engine.url("postgres")).command()
    assert (ended.returncode, b"migrate" in ended.stdout + ended.stderr) == (1, True)
    second = StoreProcess(store.database_url, store.port, store.admin_port).command()
    assert (second.returncode, b"port" in second.stdout + second.stderr) == (1, True)
    nowhere = new_process("postgresql://postgres@127.0.0.1:9/none").command()
    assert (nowhere.returncode, b"database" in nowhere.stdout + nowhere.stderr) == (1, True)
    bare = without_temporary_tables(engine)
    for ending in (ended, second, nowhere, bare):
        assert b"Traceback" not in ending.stdout + ending.stderr


async def _blocked(url: str, crash: threading.Event, ready: threading.Event) -> None:
    """Hold a lock that stops the transaction in its middle, until the store has been killed."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE fhir_version IN SHARE MODE")
            ready.set()
            limit = time.monotonic() + WAIT_SECONDS
            query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while await connection.fetchval(query) == 0:
                assert time.monotonic() < limit, "the transaction never reached the lock"
                await asyncio.sleep(0.02)
            crash.set()
            while await connection.fetchval(query) > 0 and time.monotonic() < limit:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                )
                await asyncio.sleep(0.02)
    finally:
        await connection.close()


@pytest.mark.requirement("ST-23")
def test_a_store_killed_in_a_transaction_leaves_nothing_of_it(
    store: StoreProcess, engine: Postgres, fhir: Fhir
) -> None:
    kept = fhir.create(patient("Kept"))["id"]
    entries = [
        {"resource": patient("Crash") | {"id": f"crash-{n}"}, "request": {"method": "PUT", "url": f"Patient/crash-{n}"}}
        for n in range(50)
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    crash, ready = threading.Event(), threading.Event()
    holder = threading.Thread(target=lambda: asyncio.run(_blocked(engine.url("crash"), crash, ready)))
    holder.start()
    assert ready.wait(WAIT_SECONDS)
    answers: list[int] = []

    def send() -> None:
        try:
            answers.append(fhir.post("", bundle).status_code)
        except httpx.HTTPError:
            answers.append(0)

    sender = threading.Thread(target=send)
    sender.start()
    assert crash.wait(WAIT_SECONDS)
    store.kill()
    sender.join(WAIT_SECONDS)
    holder.join(WAIT_SECONDS)
    assert answers == [0], "the caller got no answer"
    store.start()
    assert fhir.ids("Patient?family=Crash") == []
    assert fhir.get("Patient/crash-0").status_code == 404
    assert fhir.get("_history?_count=0").json()["total"] == fhir.get(f"Patient/{kept}/_history").json()["total"] == 1
    assert fhir.post("", bundle).status_code == 200, "and it can be sent again"
    assert fhir.get("Patient?family=Crash&_summary=count").json()["total"] == 50


def test_the_store_comes_back_with_its_database(engine: Postgres, fhir: Fhir) -> None:
    identity = fhir.create(patient("Back"))["id"]
    engine.kill()
    broken = fhir.get(f"Patient/{identity}")
    assert broken.status_code == 503
    assert broken.headers["retry-after"]
    assert broken.json()["issue"][0]["code"] == "transient"
    engine.start()
    limit = time.monotonic() + WAIT_SECONDS
    while fhir.get(f"Patient/{identity}").status_code != 200:
        assert time.monotonic() < limit, "the store did not recover"
        time.sleep(0.1)
