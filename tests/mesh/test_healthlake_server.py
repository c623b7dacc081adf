"""The profile of AWS's published server and clients that narrow themselves, with the official client (HL-15)."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.healthlake import DEMO, ROLE, Failed, Lake, lake, new_store, people, put_ndjson

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]
SERVER = "healthlake-mcp-server"
TOOLS = {
    "list_datastores", "get_datastore_details", "create_fhir_resource", "read_fhir_resource", "update_fhir_resource",
    "delete_fhir_resource", "search_fhir_resources", "patient_everything", "start_fhir_import_job",
    "start_fhir_export_job", "list_fhir_jobs",
}  # fmt: skip
CHANGING = {name for name in TOOLS if name.startswith(("create", "update", "delete", "start"))}
EXTRAS = {"get_datastore_details", "patient_everything", "list_fhir_jobs"}


async def failure(call: Lake, name: str, **arguments: Any) -> dict[str, Any]:
    with pytest.raises(Failed) as failed:
        await call(name, **arguments)
    said = failed.value.structured
    assert (set(said), said["error"]) == ({"error", "type", "message"}, True)
    return said


def matches(bundle: dict[str, Any]) -> list[str]:
    return [entry["resource"]["id"] for entry in bundle.get("entry", []) if entry["search"]["mode"] == "match"]


@pytest.mark.requirement("HL-15")
async def test_the_eleven_tools_work_with_their_own_parameters_and_errors(mesh: Any) -> None:
    async with lake(mesh) as plain, lake(mesh, profile=SERVER) as call:
        assert await call.names() == TOOLS
        assert await plain.names() > EXTRAS
        store = await new_store(plain, datastore_name="server")
        active = (await call("list_datastores", filter="ACTIVE"))["DatastorePropertiesList"]
        assert {store, DEMO} <= {one["DatastoreId"] for one in active}
        assert (await call("list_datastores", filter="CREATING"))["DatastorePropertiesList"] == []
        for asks in (plain, call):
            details = await asks("get_datastore_details", datastore_id=store)
            assert details["DatastoreProperties"]["DatastoreName"] == "server"

        of = {"datastore_id": store, "resource_type": "Patient"}
        smith = await call("create_fhir_resource", **of, resource_data={"name": [{"family": "Smith"}]})
        target = {**of, "resource_id": smith["id"]}
        await call("update_fhir_resource", **target, resource_data={"name": [{"family": "Smith"}], "gender": "male"})
        assert (await call("read_fhir_resource", **target))["gender"] == "male"
        for number in range(5):
            observation = {
                "status": "final",
                "code": {"text": f"weight {number}"},
                "subject": {"reference": f"Patient/{smith['id']}"},
            }
            seen = {"datastore_id": store, "resource_type": "Observation", "resource_data": observation}
            await call("create_fhir_resource", **seen)

        asked = {"datastore_id": store, "resource_type": "Observation"}
        chained = {"chained_params": {"subject:Patient.name": "Smith"}, "include_params": ["Observation:subject"]}
        first = await call("search_fhir_resources", **asked, **chained, search_params={"status": "final"}, count=2)
        assert (len(matches(first)), first["pagination"]["has_next"]) == (2, True)
        assert smith["id"] in {entry["resource"]["id"] for entry in first["entry"]}
        token = first["pagination"]["next_token"]
        assert "/" not in token, "a token is a word, never an address that is called with somebody's credentials"
        pages = [first]
        while (token := pages[-1]["pagination"]["next_token"]) is not None:
            # another page size takes nothing from a token's worth.
            pages.append(await call("search_fhir_resources", **asked, next_token=token, count=100))
        found = [identity for page in pages for identity in matches(page)]
        assert (len(found), len(set(found)), len(pages)) == (5, 5, 3)
        assert pages[-1]["pagination"] == {"has_next": False, "next_token": None}
        nobody = {"chained_params": {"subject:Patient.name": "Jones"}}
        assert matches(await call("search_fhir_resources", **asked, **nobody)) == []

        for asks in (plain, call):
            page = await asks("patient_everything", datastore_id=store, patient_id=smith["id"], count=4)
            following = {"next_token": page["pagination"]["next_token"], "count": 50}
            more = await asks("patient_everything", datastore_id=store, patient_id=smith["id"], **following)
            both = [entry["resource"]["id"] for bundle in (page, more) for entry in bundle["entry"]]
            assert (len(both), len(set(both)), more["pagination"]["has_next"]) == (6, 6, False)

        assert (await failure(call, "read_fhir_resource", **of, resource_id="nobody"))["type"] == "not_found"
        assert (await failure(call, "search_fhir_resources", **of, count=101))["type"] == "validation_error"
        assert (await failure(call, "get_datastore_details", datastore_id="x"))["type"] == "validation_error"
        assert (await failure(call, "get_datastore_details", datastore_id="f" * 32))["type"] == "not_found"
        foreign = {"next_token": "https://elsewhere.test/?_cursor=x"}
        assert (await failure(call, "search_fhir_resources", **of, **foreign))["type"] == "validation_error"
        assert await call("delete_fhir_resource", **target) == {"status": "success", "statusCode": 204}
        assert (await failure(call, "read_fhir_resource", **target))["type"] == "not_found"
        await plain("delete_datastore", datastore_id=store)
    async with lake(mesh, "demo_nurse", profile=SERVER) as nurse:
        started = {"datastore_id": DEMO, "data_access_role_arn": ROLE}
        config = {"s3_configuration": {"s3_uri": "s3://x/", "kms_key_id": "k"}}
        refused = await failure(nurse, "start_fhir_export_job", **started, output_data_config=config)
        assert refused["type"] == "auth_error"


@pytest.mark.requirement("HL-15")
async def test_jobs_of_that_server_are_those_of_the_datastore(mesh: Any) -> None:
    async with lake(mesh) as plain, lake(mesh, profile=SERVER) as call:
        store = await new_store(plain, datastore_name="server-jobs")
        put_ndjson(mesh, "server-jobs", people("Golf", "Hotel"))
        job = {"datastore_id": store, "data_access_role_arn": ROLE, "job_name": "theirs"}
        config = {"s3_configuration": {"s3_uri": "s3://server-jobs/out/", "kms_key_id": "k"}}
        uri = {"s3_uri": "s3://server-jobs/in/"}
        imported = await call("start_fhir_import_job", **job, input_data_config=uri, job_output_data_config=config)
        ended = await plain.finished("describe_fhir_import_job", store, imported["JobId"])
        assert (ended["JobStatus"], ended["JobOutputDataConfig"]) == (
            "COMPLETED",
            {"S3Configuration": {"S3Uri": "s3://server-jobs/out/", "KmsKeyId": "k"}},
        )
        exported = await call("start_fhir_export_job", **job, output_data_config=config)
        await plain.finished("describe_fhir_export_job", store, exported["JobId"])
        for asks in (plain, call):
            both = await asks("list_fhir_jobs", datastore_id=store, job_status="COMPLETED")
            found = {kind: [one["JobId"] for one in jobs] for kind, jobs in both.items()}
            assert found == {"ImportJobs": [imported["JobId"]], "ExportJobs": [exported["JobId"]]}
            one = await asks("list_fhir_jobs", datastore_id=store, job_type="IMPORT")
            assert [job["JobId"] for job in one["ImportJobPropertiesList"]] == [imported["JobId"]]
        assert (await call("list_fhir_jobs", datastore_id=store, job_status="FAILED"))["ImportJobs"] == []
        await plain("delete_datastore", datastore_id=store)


@pytest.mark.requirement("HL-15")
async def test_a_client_that_takes_tools_from_itself_is_held_to_it(mesh: Any) -> None:
    async with lake(mesh, profile=SERVER, headers={"X-MCP-Readonly": "true"}) as reader:
        assert await reader.names() == TOOLS - CHANGING
        person = {"datastore_id": DEMO, "resource_type": "Patient", "resource_data": {"active": True}}
        refused = await failure(reader, "create_fhir_resource", **person)
        assert "read-only mode" in refused["message"]
        assert (await reader("get_datastore_details", datastore_id=DEMO))["DatastoreProperties"]
    some = {"X-MCP-Tools": "list_datastores, read_fhir_resource"}
    async with lake(mesh, headers=some) as few:
        assert await few.names() == {"list_datastores", "read_fhir_resource"}
        with pytest.raises(Failed, match="other tools only"):
            await few("search_fhir_resources", datastore_id=DEMO, resource_type="Patient")
