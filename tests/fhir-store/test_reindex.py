"""Rebuilding the index gives the rows that writing gave, also while others write."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import pytest
from store_stage import Fhir, StoreProcess, patient

from wardmesh_fhir_store.tables import INDEX_TABLES

TABLES = [table.name for table in INDEX_TABLES.values()]


@pytest.fixture(scope="module")
def store_commands() -> tuple[tuple[str, ...], ...]:
    return (("seed", "--patients", "12"),)


def index_rows(url: str, *statements: str) -> dict[str, list[Any]]:
    """Every index row of the database, after the statements were carried out."""

    async def read() -> dict[str, list[Any]]:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements:
                await connection.execute(statement)
            return {
                name: sorted((tuple(row) for row in await connection.fetch(f"SELECT * FROM {name}")), key=repr)
                for name in TABLES
            }
        finally:
            await connection.close()

    return asyncio.run(read())


@pytest.mark.requirement("ST-74")
def test_a_rebuilt_index_equals_the_live_one(store: StoreProcess) -> None:
    live = index_rows(store.database_url)
    assert all(live[name] for name in ("idx_token", "idx_string", "idx_date", "idx_ref"))
    broken = index_rows(store.database_url, "DELETE FROM idx_token", "UPDATE idx_string SET folded = 'x'")
    assert broken != live
    ended = store.command("reindex")
    assert ended.returncode == 0, ended.stderr.decode()
    assert index_rows(store.database_url) == live


@pytest.mark.requirement("ST-74")
def test_the_index_is_rebuilt_while_others_write(store: StoreProcess) -> None:
    fhir = Fhir(store.base)

    def write() -> list[str]:
        return [fhir.create(patient(f"Online{number}"))["id"] for number in range(40)]

    with ThreadPoolExecutor(2) as pool:
        rebuilt, written = pool.submit(store.command, "reindex"), pool.submit(write)
        assert rebuilt.result(90).returncode == 0
        ids = written.result(90)
    assert set(fhir.ids("Patient?family=Online&_count=100")) == set(ids)
    live = index_rows(store.database_url)
    assert store.command("reindex").returncode == 0
    assert index_rows(store.database_url) == live
    fhir.http.close()
