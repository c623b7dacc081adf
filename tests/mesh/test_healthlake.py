"""Datastores through the whole mesh: who may do what, regions, read-only mode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from mesh.healthlake import DEMO, ROLE, Failed, every_time, lake, output, refused, until

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]
READ_ONLY = "Operation not permitted: HealthLake MCP server is in read-only mode"
CHANGING = {
    "create_datastore", "delete_datastore", "start_fhir_import_job", "start_fhir_export_job", "tag_resource",
    "untag_resource",
}  # fmt: skip


@pytest.mark.requirement("HL-13")
async def test_who_may_do_what_with_datastores_is_policy_s_word(mesh: Any) -> None:
    denied = "AWS HealthLake Error (AccessDeniedException): Access denied: no rule allows operation:"
    async with lake(mesh, "demo_nurse") as nurse:
        assert DEMO in json.dumps(await nurse("list_datastores"))
        assert (await refused(nurse, "delete_datastore", datastore_id=DEMO)).startswith(f"{denied}delete-datastore")
        offered = await nurse.names()
        assert not offered & CHANGING
        assert {"read_fhir_resource", "list_datastores", "validate_fhir_resource"} <= offered
    async with lake(mesh, "demo_auditor") as auditor:
        described = await auditor("describe_datastore", datastore_id=DEMO)
        arn = described["DatastoreProperties"]["DatastoreArn"]
        assert "Tags" in await auditor("list_tags_for_resource", resource_arn=arn)
        tags = [{"Key": "a", "Value": "b"}]
        assert (await refused(auditor, "tag_resource", resource_arn=arn, tags=tags)).startswith(denied)
        assert (await refused(auditor, "create_datastore", datastore_type_version="R4")).startswith(denied)
    async with lake(mesh, "demo_doctor") as doctor:
        export = {"output_data_config": output("s3://x/"), "datastore_id": DEMO, "data_access_role_arn": ROLE}
        assert (await refused(doctor, "start_fhir_export_job", **export)).startswith(f"{denied}start-export-job")
    async with lake(mesh, "demo_billing") as billing:
        assert (await refused(billing, "list_datastores")).startswith(denied)
        text = await refused(billing, "search_fhir_resources", datastore_id=DEMO, resource_type="Condition")
        assert text == "HTTP 403: Access denied: no rule allows search on Condition for role Billing"


@pytest.mark.requirement("HL-1", "HL-11")
async def test_a_datastore_lives_in_its_region_and_keeps_what_it_was_made_with(mesh: Any) -> None:
    asked = {
        "region_name": "eu-west-1",
        "datastore_type_version": "R4",
        "datastore_name": "abroad",
        "client_token": "abroad-1",
        "tags": [{"Key": "team", "Value": "care"}],
        "sse_configuration": {"KmsEncryptionConfig": {"CmkType": "AWS_OWNED_KMS_KEY"}},
    }
    async with lake(mesh) as call:
        first, again = await call("create_datastore", **asked), await call("create_datastore", **asked)
        assert set(first) == {"DatastoreId", "DatastoreArn", "DatastoreStatus", "DatastoreEndpoint"}
        assert first["DatastoreId"] == again["DatastoreId"]
        place = {"datastore_id": first["DatastoreId"], "region_name": "eu-west-1"}
        properties = (await call("describe_datastore", **place))["DatastoreProperties"]
        assert (properties["DatastoreName"], properties["DatastoreTypeVersion"]) == ("abroad", "R4")
        assert properties["SseConfiguration"] == asked["sse_configuration"]
        assert properties["DatastoreEndpoint"].startswith(mesh.ready["gateway"])
        arn = {"resource_arn": first["DatastoreArn"], "region_name": "eu-west-1"}
        assert (await call("list_tags_for_resource", **arn))["Tags"] == asked["tags"]
        person = {"resourceType": "Patient", "name": [{"family": "Abroad"}]}
        stored = await call("create_fhir_resource", **place, resource_type="Patient", resource_data=person)
        read = await call("read_fhir_resource", **place, resource_type="Patient", resource_id=stored["id"])
        assert read["name"] == person["name"]
        text = await refused(call, "describe_datastore", datastore_id=first["DatastoreId"])
        assert text.startswith("AWS HealthLake Error (ResourceNotFoundException): ")
        here = await call("list_datastores")
        assert first["DatastoreId"] not in json.dumps(here)
        assert (await call("delete_datastore", **place))["DatastoreStatus"] == "DELETING"


@pytest.mark.requirement("HL-12", "B-17")
async def test_read_only_mode_is_policy_and_not_only_the_tools(mesh: Any) -> None:
    path = Path(mesh.ready["platforms_dir"]) / "healthlake.yaml"
    before = path.read_text()
    person = {"resourceType": "Patient", "name": [{"family": "Quiet"}]}
    create = {"datastore_id": DEMO, "resource_type": "Patient", "resource_data": person}
    headers = {"Authorization": f"Bearer {mesh.token('demo_admin')}", "Content-Type": "application/fhir+json"}
    base = f"{mesh.ready['gateway']}/fhir/healthlake-ds-{DEMO}"

    async with lake(mesh) as call, httpx.AsyncClient(timeout=60) as http:

        async def answered(status: int) -> bool:
            return (await http.post(f"{base}/Patient", json=person, headers=headers)).status_code == status

        async def quiet() -> bool:
            try:
                await call("create_fhir_resource", **create)
            except Failed as failed:
                return failed.text == READ_ONLY
            return False

        try:
            path.write_text(json.dumps({**json.loads(before), "writes": False}))
            await until(lambda: every_time(quiet))
            # The plain FHIR face has no words of its own for this: policy refuses there.
            await until(lambda: every_time(lambda: answered(403)))
            assert await refused(call, "delete_datastore", datastore_id=DEMO) == READ_ONLY
            assert DEMO in json.dumps(await call("list_datastores"))
        finally:
            path.write_text(before)
            # Every replica: what comes after this test writes.
            await until(lambda: every_time(lambda: answered(201)))
