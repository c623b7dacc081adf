"""The example sequence of the datastore tools, all 25 steps in order, with the official MCP client (HL-14)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.healthlake_stage import MORE, TOOLS_OF_HL
from mesh.healthlake import DEMO, PERSON, Failed, Lake, lake, until

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]
MRN = "http://hospital.example.org/mrn"
US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-patient"
ROLE = "arn:aws:iam::000000000000:role/healthlake"
TARGET = {"datastore_id": DEMO, "resource_type": "Patient", "resource_id": PERSON}


def resources(bundle: dict[str, Any]) -> list[dict[str, Any]]:
    assert bundle["resourceType"] == "Bundle"
    return [entry["resource"] for entry in bundle.get("entry", [])]


async def steps_1_to_6(call: Lake) -> str:
    name = "my-healthcare-datastore"
    made = await call("create_datastore", datastore_type_version="R4", datastore_name=name)
    assert len(made["DatastoreId"]) == 32

    async def active() -> Any:
        found = await call("list_datastores", filter_dict={"DatastoreName": name, "DatastoreStatus": "ACTIVE"})
        return [one for one in found["DatastorePropertiesList"] if one["DatastoreId"] == made["DatastoreId"]]

    every = (await call("list_datastores"))["DatastorePropertiesList"]
    assert {made["DatastoreId"], DEMO} <= {one["DatastoreId"] for one in every}
    await until(active)

    patient = await call("read_fhir_resource", **TARGET)
    assert (patient["id"], patient["meta"]["versionId"]) == (PERSON, "1")
    smiths = await call(
        "search_fhir_resources", datastore_id=DEMO, resource_type="Patient", query_parameters={"name": "Smith"}
    )
    assert PERSON in {one["id"] for one in resources(smiths)}
    assert smiths["link"]
    sorted_smiths = await call(
        "search_fhir_resources_advanced",
        datastore_id=DEMO,
        resource_type="Patient",
        search_parameters={"name": "Smith"},
        include_parameters=["Patient:general-practitioner"],
        sort_parameters=["family", "given"],
        count=10,
    )
    assert PERSON in {one["id"] for one in resources(sorted_smiths)}
    recent = await call(
        "search_all_resources", datastore_id=DEMO, query_parameters={"_lastUpdated": "gt2023-01-01"}, count=50
    )
    assert len({one["resourceType"] for one in resources(recent)}) >= 1
    return made["DatastoreId"]


async def steps_7_to_13(call: Lake) -> None:
    template = await call(
        "create_patient_template",
        family_name="Doe",
        given_names=["John", "Michael"],
        gender="male",
        birth_date="1970-01-01",
        identifier_system=MRN,
        identifier_value="MRN123456",
        phone="+1-555-123-4567",
        email="john.doe@example.com",
    )
    verdict = await call("validate_fhir_resource", resource_data=template, resource_type="Patient")
    assert verdict == {"valid": True, "issues": [], "warnings": []}
    wanted = {"datastore_id": DEMO, "resource_type": "Patient", "resource_data": template}
    first = await call("create_fhir_resource", **wanted, if_none_exist=f"identifier={MRN}|MRN123456")
    second = await call("create_fhir_resource", **wanted, if_none_exist=f"identifier={MRN}|MRN123456")
    assert first["id"] == second["id"]
    observation = await call(
        "create_observation_template",
        patient_reference=f"Patient/{PERSON}",
        code_system="http://loinc.org",
        code_value="8867-4",
        code_display="Heart rate",
        value_quantity={"value": 72, "unit": "beats/min", "system": "http://unitsofmeasure.org", "code": "/min"},
        category_code="vital-signs",
    )
    stored = await call(
        "create_fhir_resource", datastore_id=DEMO, resource_type="Observation", resource_data=observation
    )
    whole = await call(
        "get_fhir_resource_compartment",
        datastore_id=DEMO,
        compartment_type="Patient",
        compartment_id=PERSON,
        query_parameters={"_count": 500},
    )
    assert stored["id"] in {one["id"] for one in resources(whole)}
    vitals = await call(
        "get_fhir_resource_compartment",
        datastore_id=DEMO,
        compartment_type="Patient",
        compartment_id=PERSON,
        resource_type="Observation",
        query_parameters={"category": "vital-signs"},
    )
    assert stored["id"] in {one["id"] for one in resources(vitals)}
    assert {one["resourceType"] for one in resources(vitals)} == {"Observation"}


async def steps_14_to_18(call: Lake) -> None:
    person = {
        "resourceType": "Patient",
        "name": [{"family": "Doe", "given": ["John", "Michael"]}],
        "telecom": [{"system": "phone", "value": "+1-555-123-4567"}],
    }
    updated = await call("update_fhir_resource", **TARGET, resource_data=person, if_match='W/"1"')
    assert (updated["id"], updated["meta"]["versionId"]) == (PERSON, "2")
    assert (await call("read_fhir_resource", **TARGET, version_id="2"))["name"][0]["family"] == "Doe"
    step = {"op": "replace", "path": "/telecom/0/value", "value": "+1-555-999-8888"}
    patched = await call("patch_fhir_resource", **TARGET, patch_operations=[step])
    assert (patched["telecom"][0]["value"], patched["meta"]["versionId"]) == ("+1-555-999-8888", "3")
    versions = resources(await call("get_fhir_resource_history", **TARGET, count=10, since="2023-01-01T00:00:00Z"))
    assert [one["meta"]["versionId"] for one in versions] == ["3", "2", "1"]
    with pytest.raises(Failed) as stale:
        await call("delete_fhir_resource", **TARGET, if_match='W/"2"')
    assert stale.value.text.startswith("FHIR Operation Failed: ERROR: conflict")
    assert stale.value.structured["status"] == 412
    deleted = await call("delete_fhir_resource", **TARGET, if_match='W/"3"')
    assert deleted == {"status": "success", "statusCode": 204}
    with pytest.raises(Failed) as gone:
        await call("read_fhir_resource", **TARGET)
    assert gone.value.structured["status"] == 410


async def steps_19_to_21(call: Lake) -> None:
    person = {"resourceType": "Patient", "name": [{"family": "Smith", "given": ["Jane"]}], "gender": "female"}
    outcome = await call(
        "validate_fhir_resource_against_profile", datastore_id=DEMO, resource_data=person, profile_url=US_CORE
    )
    assert outcome["resourceType"] == "OperationOutcome"
    assert "error" in {issue["severity"] for issue in outcome["issue"]}  # us-core-patient wants an identifier
    observation = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]},
        "subject": {"reference": "Patient/temp-id"},
    }
    answer = await call("create_fhir_bundle", datastore_id=DEMO, bundle_resources=[person, observation])
    patient, weight = (entry["response"]["location"].split("/_history")[0] for entry in answer["entry"])
    stored = await call(
        "read_fhir_resource", datastore_id=DEMO, resource_type="Observation", resource_id=weight.rpartition("/")[2]
    )
    assert stored["subject"]["reference"] == "/".join(patient.split("/")[-2:])
    statement = await call("get_datastore_capabilities", datastore_id=DEMO)
    types = {one["type"] for one in statement["rest"][0]["resource"]}
    assert {"Patient", "Observation", "Condition"} <= types


async def steps_22_to_25(call: Lake, folder: Path, made: str) -> None:
    source = folder / "bucket" / "in"
    source.mkdir(parents=True)
    person = {"resourceType": "Patient", "id": "hl14-imported", "name": [{"family": "Imported"}]}
    (source / "Patient.ndjson").write_text(json.dumps(person) + "\n")
    output = {"S3Configuration": {"S3Uri": "s3://bucket/out/", "KmsKeyId": "alias/none"}}
    started = await call(
        "start_fhir_import_job",
        input_data_config={"S3Uri": "s3://bucket/in/"},
        job_output_data_config=output,
        datastore_id=DEMO,
        data_access_role_arn=ROLE,
        job_name="my-import-job",
    )
    assert started["DatastoreId"] == DEMO
    ended = await call.finished("describe_fhir_import_job", DEMO, started["JobId"])
    assert ended["JobStatus"] == "COMPLETED"
    listed = await call("list_fhir_import_jobs", datastore_id=DEMO, job_name="my-import-job")
    assert [one["JobId"] for one in listed["ImportJobPropertiesList"]] == [started["JobId"]]
    read = await call("read_fhir_resource", datastore_id=DEMO, resource_type="Patient", resource_id="hl14-imported")
    assert read["name"] == person["name"]
    export = await call(
        "start_fhir_export_job", output_data_config=output, datastore_id=DEMO, data_access_role_arn=ROLE
    )
    assert (await call.finished("describe_fhir_export_job", DEMO, export["JobId"]))["JobStatus"] == "COMPLETED"
    exports = await call("list_fhir_export_jobs", datastore_id=DEMO)
    assert [one["JobId"] for one in exports["ExportJobPropertiesList"]] == [export["JobId"]]
    properties = (await call("describe_datastore", datastore_id=DEMO))["DatastoreProperties"]
    arn = properties["DatastoreArn"]
    assert await call("tag_resource", resource_arn=arn, tags=[{"Key": "team", "Value": "care"}]) == {}
    assert {"Key": "team", "Value": "care"} in (await call("list_tags_for_resource", resource_arn=arn))["Tags"]
    assert await call("untag_resource", resource_arn=arn, tag_keys=["team"]) == {}
    assert "team" not in {tag["Key"] for tag in (await call("list_tags_for_resource", resource_arn=arn))["Tags"]}
    deleted = await call("delete_datastore", datastore_id=made)
    assert (deleted["DatastoreId"], deleted["DatastoreStatus"]) == (made, "DELETING")


@pytest.mark.requirement("HL-11", "HL-14", "X-39", "X-40")
async def test_the_whole_sequence_runs_in_order(mesh: Any) -> None:
    async with lake(mesh) as call:
        assert await call.names() == {*TOOLS_OF_HL, *MORE}
        made = await steps_1_to_6(call)
        await steps_7_to_13(call)
        await steps_14_to_18(call)
        await steps_19_to_21(call)
        await steps_22_to_25(call, Path(mesh.ready["s3_folder"]), made)
        assert call.called == TOOLS_OF_HL.keys(), "each of the 29 against a running store (X-39)"
