"""What datastores are used for, one test each: migration, analytics, backup, batch, validation, templates (HL-21)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mesh.healthlake import content_of, exported, imported, lake, new_store, people, put_ndjson, refused

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]
# The seventh use, SMART-authorized access to a store, is in tests/fhir-store/test_smart.py.


@pytest.mark.requirement("HL-21")
async def test_migration_what_is_imported_is_found(mesh: Any) -> None:
    async with lake(mesh) as call:
        store = await new_store(call, datastore_name="migrated")
        ended = await imported(call, store, put_ndjson(mesh, "migration", people("Able", "Baker", "Charlie")))
        assert ended["JobStatus"] == "COMPLETED"
        assert ended["JobProgressReport"]["TotalNumberOfResourcesImported"] == 3
        query = {"query_parameters": {"family": "Baker"}}
        found = await call("search_fhir_resources", datastore_id=store, resource_type="Patient", **query)
        assert [entry["resource"]["id"] for entry in found["entry"]] == ["baker"]
        await call("delete_datastore", datastore_id=store)


@pytest.mark.requirement("HL-21")
async def test_analytics_what_was_stored_is_exported_as_ndjson_by_type(mesh: Any) -> None:
    async with lake(mesh) as call:
        store = await new_store(call, datastore_name="analysed")
        stored = [*people("Able", "Baker"), {"resourceType": "Practitioner", "id": "doc"}]
        await call("create_fhir_bundle", datastore_id=store, bundle_resources=stored)
        rows = await exported(call, mesh, store, "analytics")
        assert [row["id"] for row in rows] == ["able", "baker", "doc"]
        files = sorted((Path(mesh.ready["s3_folder"]) / "analytics").rglob("*.ndjson"))
        assert [
            len({json.loads(line)["resourceType"] for line in path.read_text().splitlines()}) for path in files
        ] == [1, 1]
        await call("delete_datastore", datastore_id=store)


@pytest.mark.requirement("HL-21")
async def test_backup_and_restore_an_export_imported_elsewhere_is_equal(mesh: Any) -> None:
    async with lake(mesh) as call:
        first, second = await new_store(call, datastore_name="first"), await new_store(call, datastore_name="second")
        await imported(call, first, put_ndjson(mesh, "backup-source", people("Delta", "Echo")))
        saved = await exported(call, mesh, first, "backup")
        ended = await imported(call, second, put_ndjson(mesh, "restore-source", saved))
        assert ended["JobStatus"] == "COMPLETED"
        again = await exported(call, mesh, second, "restored")
        assert [content_of(row) for row in again] == [content_of(row) for row in saved]
        assert len(saved) == 2
        for store in (first, second):
            await call("delete_datastore", datastore_id=store)


@pytest.mark.requirement("HL-7", "HL-21")
async def test_batch_one_entry_fails_alone_and_a_collection_is_stored_as_what_it_is(mesh: Any) -> None:
    async with lake(mesh) as call:
        store = await new_store(call, datastore_name="batch")
        good, wrong = people("Foxtrot")[0], {"resourceType": "Observation", "subject": {"reference": "Patient/x"}}
        nameless = {name: value for name, value in good.items() if name != "id"}
        several = {"datastore_id": store, "bundle_resources": [good, wrong, nameless], "bundle_type": "batch"}
        batch = await call("create_fhir_bundle", **several)
        statuses = [entry["response"]["status"][:3] for entry in batch["entry"]]
        assert (batch["type"], statuses[0], statuses[1] in {"400", "422"}) == ("batch-response", "201", True)
        assert statuses[2] == "201"
        assert batch["entry"][0]["response"]["location"].split("/_history")[0].endswith("Patient/foxtrot")
        together = {"datastore_id": store, "bundle_resources": [good, good], "bundle_type": "collection"}
        kept = await call("create_fhir_bundle", **together)
        assert (kept["resourceType"], kept["type"], len(kept["entry"])) == ("Bundle", "collection", 2)
        assert all(entry["fullUrl"].startswith("urn:uuid:") for entry in kept["entry"])
        assert not any("request" in entry for entry in kept["entry"])
        found = await call("search_fhir_resources", datastore_id=store, resource_type="Patient")
        assert found["total"] == 2, "what lies in a collection is not stored as a resource of its own"
        await call("delete_datastore", datastore_id=store)


@pytest.mark.requirement("HL-7")
async def test_a_transaction_is_all_or_nothing_and_resolves_temporary_references(mesh: Any) -> None:
    async with lake(mesh) as call:
        store = await new_store(call, datastore_name="transaction")
        person = {"resourceType": "Patient", "name": [{"family": "Golf"}]}
        weight = {
            "resourceType": "Observation",
            "id": "w1",
            "status": "final",
            "code": {"text": "weight"},
            "subject": {"reference": "Patient/temp-id"},
        }
        answer = await call("create_fhir_bundle", datastore_id=store, bundle_resources=[person, weight])
        assert answer["type"] == "transaction-response"
        made = answer["entry"][0]["response"]["location"].split("/_history")[0]
        of_weight = {"datastore_id": store, "resource_type": "Observation", "resource_id": "w1"}
        stored = await call("read_fhir_resource", **of_weight)
        assert stored["subject"]["reference"] == "/".join(made.split("/")[-2:])
        for resources, how_many in (([weight], "none"), ([person, person, weight], "several")):
            text = await refused(call, "create_fhir_bundle", datastore_id=store, bundle_resources=resources)
            assert text == f"Cannot resolve reference 'Patient/temp-id': the bundle holds {how_many} without an id."
        bad = {"resourceType": "Observation", "subject": {"reference": "Patient/temp-id"}}
        text = await refused(call, "create_fhir_bundle", datastore_id=store, bundle_resources=[person, bad])
        assert text.startswith("FHIR Operation Failed: ERROR: ")
        found = await call("search_fhir_resources", datastore_id=store, resource_type="Patient")
        assert found["total"] == 1, "of the refused transactions nothing is stored"
        await call("delete_datastore", datastore_id=store)


@pytest.mark.requirement("HL-8", "HL-21")
async def test_validation_before_storing_tells_what_the_store_would_refuse(mesh: Any) -> None:
    async with lake(mesh) as call:
        store = await new_store(call, datastore_name="validated")
        wrong = {"resourceType": "Observation", "subject": {"reference": "Patient/x"}}
        verdict = await call("validate_fhir_resource", resource_data=wrong, resource_type="Observation")
        missing = ["Missing required field: 'status'", "Missing required field: 'code'"]
        assert verdict == {"valid": False, "issues": missing, "warnings": []}
        judged = await call("validate_fhir_resource_against_profile", datastore_id=store, resource_data=wrong)
        assert "error" in {issue["severity"] for issue in judged["issue"]}
        created = {"datastore_id": store, "resource_type": "Observation"}
        text = await refused(call, "create_fhir_resource", **created, resource_data=wrong)
        assert text.startswith("FHIR Operation Failed: ERROR: ")
        right = {**wrong, "status": "final", "code": {"text": "pulse"}}
        assert (await call("validate_fhir_resource", resource_data=right))["valid"]
        judged = await call("validate_fhir_resource_against_profile", datastore_id=store, resource_data=right)
        assert "error" not in {issue["severity"] for issue in judged["issue"]}
        assert (await call("create_fhir_resource", **created, resource_data=right))["meta"]["versionId"] == "1"
        assert (await call("search_fhir_resources", **created))["total"] == 1
        await call("delete_datastore", datastore_id=store)


@pytest.mark.requirement("HL-21")
async def test_template_based_creation_what_a_template_made_is_stored_and_found(mesh: Any) -> None:
    async with lake(mesh) as call:
        store = await new_store(call, datastore_name="templates")
        born = {"gender": "female", "birth_date": "1980-01-01"}
        person = await call("create_patient_template", family_name="Foxtrot", given_names=["A"], **born)
        of = {"datastore_id": store}
        assert (await call("search_fhir_resources", **of, resource_type="Patient"))["total"] == 0
        stored = await call("create_fhir_resource", **of, resource_type="Patient", resource_data=person)
        pulse = await call(
            "create_observation_template",
            patient_reference=f"Patient/{stored['id']}",
            code_system="http://loinc.org",
            code_value="8867-4",
            code_display="Heart rate",
            value_quantity={"value": 72, "unit": "beats/min"},
            category_code="vital-signs",
        )
        await call("create_fhir_resource", **of, resource_type="Observation", resource_data=pulse)
        query = {"patient": stored["id"], "code": "http://loinc.org|8867-4", "category": "vital-signs"}
        found = await call("search_fhir_resources", **of, resource_type="Observation", query_parameters=query)
        assert found["entry"][0]["resource"]["valueQuantity"]["value"] == 72
        await call("delete_datastore", datastore_id=store)
