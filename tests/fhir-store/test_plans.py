"""The plans of everyday searches use indexes: EXPLAIN is asked, at a size where the planner has to choose."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy.dialects import postgresql
from store_stage import new_process

from wardmesh_fhir_store.conditions import ConditionBuilder
from wardmesh_fhir_store.definitions import load_definitions
from wardmesh_fhir_store.matching import Matcher
from wardmesh_fhir_store.query import pairs_of
from wardmesh_fhir_store.searching import SearchReader
from wardmesh_fhir_store.selecting import Selector

ROWS = 20_000
EVERYTHING = "Patient/p7/*"
DEFINITIONS = load_definitions()
KEYS = {code: DEFINITIONS.parameters["Observation"][code].key for code in ("code", "date", "subject", "value-quantity")}
FILL = f"""
SELECT set_config('wardmesh.datastore', '1', false);
INSERT INTO fhir_current (datastore_id, resource_type, resource_id, version, deleted, last_updated)
  SELECT 1, 'Observation', 'o' || n, 1, false, now() - n * interval '1 minute' FROM generate_series(1, {ROWS}) n;
INSERT INTO fhir_current (datastore_id, resource_type, resource_id, version, deleted, last_updated)
  SELECT 1, 'Patient', 'p' || n, 1, false, now() FROM generate_series(1, {ROWS // 20}) n;
INSERT INTO fhir_version (datastore_id, resource_type, resource_id, version, last_updated, method, status, body)
  SELECT 1, resource_type, resource_id, 1, now(), 'PUT', 201, '{{}}' FROM fhir_current;
INSERT INTO idx_token (datastore_id, parameter, resource_key, system, code, key)
  SELECT 1, {KEYS["code"]}, resource_key, 's', resource_key % 500, '~' || resource_key % 500
  FROM fhir_current WHERE resource_type = 'Observation';
INSERT INTO idx_date (datastore_id, parameter, resource_key, low, high)
  SELECT 1, {KEYS["date"]}, resource_key, timestamptz '2000-01-01' + resource_key * interval '1 hour',
    timestamptz '2000-01-01' + resource_key * interval '1 hour' FROM fhir_current WHERE resource_type = 'Observation';
INSERT INTO idx_quantity (datastore_id, parameter, resource_key, low, high, system, code, unit)
  SELECT 1, {KEYS["value-quantity"]}, resource_key, resource_key, resource_key, 's', 'c', 'u'
  FROM fhir_current WHERE resource_type = 'Observation';
INSERT INTO idx_ref (datastore_id, parameter, resource_key, target_type, target_id, target_version, url)
  SELECT 1, {KEYS["subject"]}, resource_key, 'Patient', 'p' || resource_key % {ROWS // 20}, '', ''
  FROM fhir_current WHERE resource_type = 'Observation';
ANALYZE;
"""
TABLES = ("idx_token", "idx_date", "idx_quantity", "idx_ref", "fhir_version")


@pytest.fixture(scope="module")
def url(database_url: str) -> str:
    assert new_process(database_url).command("migrate").returncode == 0

    async def fill() -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute("CREATE ROLE reader LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO reader")
        await connection.execute(FILL)
        await connection.close()

    asyncio.run(fill())
    return database_url.replace("postgres@", "reader@")


def statement(query: str) -> str:
    """What the store would send for the query; `Patient/p7/*` is everything of a patient."""
    builder = ConditionBuilder(DEFINITIONS, Matcher(DEFINITIONS, ("http://x",)), 1)
    reader = SearchReader(DEFINITIONS, builder, 1)
    if query == EVERYTHING:
        search = reader.read((), [], strict=True)
        search.conditions.append(builder.in_compartment(search.row, "Patient", "p7"))
    else:
        search = reader.read(("Observation",), pairs_of(query), strict=True)
    selected = Selector(DEFINITIONS, 1).statement(search)
    return str(selected.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}))


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


@pytest.mark.parametrize(
    "query",
    [
        "code=s|7",
        "subject=Patient/p7",
        "date=ge2001-01-01&date=lt2001-01-02",
        "value-quantity=77",
        "subject=Patient/p7&code=s|7&_sort=-date",
        "_id=o7",
        "_sort=_id&_count=10",
        "_sort=-_lastUpdated&_count=10",
        EVERYTHING,
    ],
)
def test_searches_read_indexes_and_not_tables(url: str, query: str) -> None:
    """Through row-level security, as the store's own role does."""

    async def explain() -> dict[str, Any]:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute("SELECT set_config('wardmesh.datastore', '1', false)")
            text = await connection.fetchval("EXPLAIN (FORMAT JSON) " + statement(query))
            return json.loads(text)[0]["Plan"]
        finally:
            await connection.close()

    plan = asyncio.run(explain())
    scanned = {n["Relation Name"] for n in nodes(plan) if n["Node Type"] == "Seq Scan"}
    assert not scanned & set(TABLES), (query, scanned)
    if query != "_sort=_id&_count=10":
        assert "fhir_current" not in scanned, query
