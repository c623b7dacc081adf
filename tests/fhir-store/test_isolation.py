"""Datastores side by side: equal ids, own links, own rows, and a second barrier in the database itself."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator

import asyncpg
import pytest
from store_stage import Fhir, StoreProcess, issue_of, observation, patient, running

ROLE = "store_user"


async def _prepare(url: str) -> None:
    """The store's own role, as a deployment has it: not a superuser, so that row-level security binds it."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"CREATE ROLE {ROLE} LOGIN; GRANT ALL ON SCHEMA public TO {ROLE}")
    finally:
        await connection.close()


async def _add(url: str, public_id: str, status: str = "ACTIVE") -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "INSERT INTO datastore (public_id, name, status, link_key) VALUES ($1, 'other', $2, $3)",
            public_id,
            status,
            secrets.token_bytes(32),
        )
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def store(database_url: str) -> Iterator[StoreProcess]:
    asyncio.run(_prepare(database_url))
    # Without workers datastores stay in the state that a test gives them.
    with running(database_url.replace("postgres@", f"{ROLE}@"), {"WARDMESH_JOB_WORKERS": "0"}) as made:
        yield made


@pytest.fixture
def pair(store: StoreProcess) -> Iterator[tuple[Fhir, Fhir]]:
    public_id = secrets.token_hex(16)
    asyncio.run(_add(store.database_url, public_id))
    root = store.base.removesuffix("/fhir")
    clients = Fhir(store.base), Fhir(f"{root}/datastore/{public_id}/r4")
    yield clients
    for client in clients:
        client.http.close()


@pytest.mark.requirement("ST-67")
def test_equal_ids_in_two_datastores_never_meet(pair: tuple[Fhir, Fhir], mark: str) -> None:
    one, two = pair
    for fhir, family in ((one, f"{mark}one"), (two, f"{mark}two")):
        fhir.put(f"Patient/{mark}", patient(family) | {"id": mark})
        fhir.create(observation(f"Patient/{mark}", note=[{"text": family}]))
    for fhir, own, other in ((one, "one", "two"), (two, "two", "one")):
        for path in (
            f"Patient/{mark}",
            f"Patient?_id={mark}",
            f"Patient/{mark}/_history",
            f"Observation?subject=Patient/{mark}&_include=Observation:subject",
            f"Observation?patient.family={mark}",
            f"Patient?_has:Observation:patient:status=final&_id={mark}",
            f"Patient?_id={mark}&_revinclude=Observation:subject",
            f"Patient/{mark}/$everything",
            f"Patient/{mark}/*",
        ):
            answer = fhir.get(path)
            assert answer.status_code == 200, path
            assert f"{mark}{other}" not in answer.text, path
            assert f"{mark}{own}" in answer.text or path.startswith("Patient?_has"), path
            links = {link["url"].split("?")[0] for link in answer.json().get("link", [])}
            assert all(link.startswith(fhir.base) for link in links)
        assert fhir.get(f"Patient/{mark}/_history").json()["total"] == 1
        assert fhir.ids(f"Observation?patient.family={mark}{other}") == []
        assert fhir.ids(f"Patient?_has:Observation:patient:status=final&family={mark}{other}") == []
    two.call("DELETE", f"Patient/{mark}")
    assert one.get(f"Patient/{mark}").status_code == 200
    assert "history" in two.get("_history").text and f"{mark}one" not in two.get("_history?_count=1000").text


@pytest.mark.requirement("ST-67")
def test_a_page_link_is_of_no_use_in_another_datastore(pair: tuple[Fhir, Fhir], mark: str) -> None:
    one, two = pair
    for _ in range(2):
        one.create(patient(mark))
    bundle = one.get(f"Patient?family={mark}&_count=1").json()
    following = next(link["url"] for link in bundle["link"] if link["relation"] == "next")
    assert two.get("Patient?" + following.split("?")[1]).status_code == 400


@pytest.mark.requirement("ST-67")
def test_the_database_itself_shows_a_connection_one_datastore_only(
    store: StoreProcess, pair: tuple[Fhir, Fhir], mark: str
) -> None:
    for fhir in pair:
        fhir.put(f"Patient/{mark}", patient(mark) | {"id": mark})

    async def seen() -> list[int]:
        connection = await asyncpg.connect(store.database_url)
        try:
            counts: list[int] = []
            keys = [row[0] for row in await connection.fetch("SELECT datastore_id FROM datastore ORDER BY 1 DESC")]
            for setting in ("", "0", str(keys[0]), str(keys[-1])):
                await connection.execute("SELECT set_config('wardmesh.datastore', $1, false)", setting)
                counts.append(
                    await connection.fetchval("SELECT count(*) FROM fhir_current WHERE resource_id = $1", mark)
                )
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(
                    "INSERT INTO idx_uri (datastore_id, parameter, resource_key, value) VALUES ($1, 1, 1, 'x')", keys[0]
                )
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(
                    "INSERT INTO binary_upload (datastore_id, upload, number, piece) "
                    "VALUES ($1, gen_random_uuid(), 0, 'x')",
                    keys[0],
                )
            return counts
        finally:
            await connection.close()

    assert asyncio.run(seen()) == [0, 0, 1, 1]


@pytest.mark.requirement("ST-67")
def test_large_binaries_and_code_systems_stay_in_their_datastore(pair: tuple[Fhir, Fhir], mark: str) -> None:
    for number, fhir in enumerate(pair):
        content = bytes([number]) * (2 * 1024 * 1024)
        assert fhir.call("PUT", f"Binary/{mark}", content, Content_Type="a/b").status_code == 201
    for number, fhir in enumerate(pair):
        assert set(fhir.get(f"Binary/{mark}", Accept="*/*").content) == {number}
    one, two = pair
    system = {"resourceType": "CodeSystem", "status": "active", "content": "complete", "url": f"urn:{mark}"}
    one.create(system | {"concept": [{"code": "a"}]})
    assert one.get(f"Observation?code:below=urn:{mark}|a").status_code == 200
    assert two.get(f"Observation?code:below=urn:{mark}|a").status_code == 400


def test_a_datastore_that_is_not_active_says_so(store: StoreProcess) -> None:
    root = store.base.removesuffix("/fhir")
    for status, expected in (("CREATING", 409), ("DELETING", 409), ("DELETED", 404)):
        public_id = secrets.token_hex(16)
        asyncio.run(_add(store.database_url, public_id, status))
        fhir = Fhir(f"{root}/datastore/{public_id}/r4")
        answer = fhir.get("Patient")
        assert answer.status_code == expected
        issue = issue_of(answer)
        assert expected == 404 or status in issue["diagnostics"]
        fhir.http.close()
    nowhere = Fhir(f"{root}/datastore/{secrets.token_hex(16)}/r4")
    assert nowhere.get("Patient").status_code == 404
    nowhere.http.close()
