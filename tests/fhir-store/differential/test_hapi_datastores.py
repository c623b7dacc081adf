"""The datastore tools on a real HAPI with partitions: data, exports and imports in one of several, and refusals."""

from __future__ import annotations

import contextlib
import http.server
import json
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from counterparts import hapi, hapi_missing

from mesh.conftest import running
from mesh.healthlake import ROLE, Lake, lake, new_store, people, refused, until

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(900)]
WITH_HAPI = {"S3Configuration": {"S3Uri": "hapi:"}}
CODE = {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}


class Quiet(http.server.SimpleHTTPRequestHandler):
    extensions_map: ClassVar[dict[str, str]] = {".ndjson": "application/fhir+ndjson"}  # HAPI takes no other name

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing of a test's requests belongs into its output."""


@contextlib.contextmanager
def files(folder: Path) -> Iterator[str]:
    """The address under which HAPI fetches what lies in the folder."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join(10)


def point_at(state: Path, base: str, address: str) -> None:
    """What an operator writes: the platform of datastores is a HAPI."""
    section = {"backend": "hapi", "endpoint": base, "import_from": [address]}
    (state / "platforms.d" / "healthlake.yaml").write_text(json.dumps({"id": "healthlake", "healthlake": section}))


@pytest.mark.skipif(bool(hapi_missing()), reason=hapi_missing())
async def test_datastores_at_hapi_are_partitions_with_data_and_jobs_of_their_own(tmp_path: Path) -> None:
    lines = [json.dumps(one) for one in people("Imported", "Other")]
    (tmp_path / "Patient.ndjson").write_text("\n".join(lines) + "\n")
    seen = {"resourceType": "Observation", "id": "seen", "status": "final", "code": CODE}
    (tmp_path / "Observation.ndjson").write_text(
        json.dumps(seen | {"subject": {"reference": "Patient/imported"}}) + "\n"
    )
    with (
        hapi(partitions=True, validates=True) as base,
        files(tmp_path) as address,
        tempfile.TemporaryDirectory(prefix="wm-hapi-", dir="/tmp") as folder,
    ):
        Path(folder).chmod(0o755)
        with running(Path(folder)) as mesh:
            point_at(Path(folder), base, address)
            async with lake(mesh) as call:
                await until(lambda: _is_hapi(call))
                first, second = await made(call)
                await data(call, first, second)
                await export(call, mesh, first, second)
                await bring_in(call, second, address)
                await stop(call, mesh, first)
                await ends(call, base, first, second)


async def _is_hapi(call: Lake) -> bool:
    """The catalogue is read again within seconds; the embedded store has its demo datastore, HAPI nothing yet."""
    return not (await call("list_datastores"))["DatastorePropertiesList"]


async def made(call: Lake) -> tuple[str, str]:
    wanted = {"datastore_name": "one", "client_token": "once"}
    first = await new_store(call, **wanted)
    assert await new_store(call, **wanted) == first, "a repeated creation is the same datastore"
    second = await new_store(call)
    described = (await call("describe_datastore", datastore_id=first))["DatastoreProperties"]
    assert (described["DatastoreName"], described["DatastoreStatus"]) == ("one", "ACTIVE")
    assert described["CreatedAt"] and described["Limits"]
    listed = await call("list_datastores", filter_dict={"DatastoreName": "one"})
    assert [each["DatastoreId"] for each in listed["DatastorePropertiesList"]] == [first]
    assert len((await call("list_datastores"))["DatastorePropertiesList"]) == 2
    for name, more in (("preload_data_config", {"PreloadDataType": "SYNTHEA"}), ("tags", [{"Key": "a", "Value": "b"}])):
        text = await refused(call, "create_datastore", datastore_type_version="R4", **{name: more})
        assert text.startswith("AWS HealthLake Error (ValidationException): HAPI "), text
    return first, second


async def data(call: Lake, first: str, second: str) -> None:
    """What is written into one partition is there, and in no other."""
    patient = {"datastore_id": first, "resource_type": "Patient"}
    one = await call("create_fhir_resource", **patient, resource_data={"resourceType": "Patient", "active": True})
    place = {**patient, "resource_id": one["id"]}
    assert (await call("read_fhir_resource", **place))["active"] is True
    await refused(call, "read_fhir_resource", **{**place, "datastore_id": second})
    changed = {"resourceType": "Patient", "id": one["id"], "active": False}
    await call("update_fhir_resource", **place, resource_data=changed, if_match='W/"1"')
    await refused(call, "update_fhir_resource", **place, resource_data=changed, if_match='W/"1"')
    assert "If-Match" in await refused(call, "delete_fhir_resource", **place, if_match='W/"1"')
    history = await call("get_fhir_resource_history", **place)
    assert len(history["entry"]) == 2
    found = await call("search_fhir_resources", **patient, query_parameters={"active": "false"})
    assert [entry["resource"]["id"] for entry in found["entry"]] == [one["id"]]
    subject = {"reference": "Patient/temp-id"}
    observation = {"resourceType": "Observation", "status": "final", "code": CODE, "subject": subject}
    await call("create_fhir_bundle", datastore_id=first, bundle_resources=[{"resourceType": "Patient"}, observation])
    incomplete = {"resourceType": "Observation", "status": "final"}
    judged = await call("validate_fhir_resource_against_profile", datastore_id=first, resource_data=incomplete)
    assert "error" in {issue["severity"] for issue in judged["issue"]}
    empty = await call("search_fhir_resources", datastore_id=second, resource_type="Patient")
    assert not empty.get("entry")
    assert (await call("get_datastore_capabilities", datastore_id=first))["resourceType"] == "CapabilityStatement"


async def export(call: Lake, mesh: Any, first: str, second: str) -> None:
    asked = {"datastore_id": first, "data_access_role_arn": ROLE}
    text = await refused(
        call, "start_fhir_export_job", **asked, output_data_config={"S3Configuration": {"S3Uri": "s3://b/k"}}
    )
    assert "HAPI writes to no bucket" in text
    started = await call("start_fhir_export_job", **asked, output_data_config=WITH_HAPI)
    ended = await call.finished("describe_fhir_export_job", first, started["JobId"])
    assert ended["JobStatus"] == "COMPLETED", ended
    assert {file["Type"] for file in ended["Files"]} == {"Patient", "Observation"}
    patients = next(file["Reference"] for file in ended["Files"] if file["Type"] == "Patient")
    files = f"{mesh.ready['gateway']}/fhir/healthlake-ds-{first}"
    async with httpx.AsyncClient(headers={"accept": "application/fhir+ndjson"}, timeout=60) as client:
        bearers = [{"authorization": f"Bearer {mesh.token(person)}"} for person in ("demo_nurse", "demo_admin")]
        denied, content = [await client.get(f"{files}/{patients}", headers=bearer) for bearer in bearers]
    assert denied.status_code == 403, "a file of an export is a Binary, and policy says who reads those"
    assert content.status_code == 200, content.text
    assert {json.loads(line)["resourceType"] for line in content.text.splitlines()} == {"Patient"}
    elsewhere = {"datastore_id": second, "job_id": started["JobId"]}
    assert "ResourceNotFoundException" in await refused(call, "describe_fhir_export_job", **elsewhere)
    assert "keeps no list" in await refused(call, "list_fhir_export_jobs", datastore_id=first)


async def bring_in(call: Lake, store: str, address: str) -> None:
    asked = {"datastore_id": store, "data_access_role_arn": ROLE, "job_output_data_config": WITH_HAPI}
    for uri in ("s3://bucket/in/", "https://elsewhere.example/Patient.ndjson"):
        text = await refused(call, "start_fhir_import_job", **asked, input_data_config={"S3Uri": uri})
        assert "HAPI may not fetch from there" in text
    uri = {"S3Uri": f"{address}{{Observation.ndjson,Patient.ndjson}}"}
    started = await call("start_fhir_import_job", **asked, input_data_config=uri)
    ended = await call.finished("describe_fhir_import_job", store, started["JobId"])
    assert ended["JobStatus"] == "COMPLETED", ended
    read = await call("read_fhir_resource", datastore_id=store, resource_type="Patient", resource_id="imported")
    assert read["name"] == [{"family": "Imported"}]
    found = await call("search_fhir_resources", datastore_id=store, resource_type="Observation")
    assert [entry["resource"]["id"] for entry in found["entry"]] == ["seen"], "each of the files"


async def stop(call: Lake, mesh: Any, store: str) -> None:
    """What had ended before the stop arrived stays as it ended; an import goes on at HAPI whoever asks."""
    asked = {"datastore_id": store, "data_access_role_arn": ROLE}
    started = await call("start_fhir_export_job", **asked, output_data_config=WITH_HAPI)
    place = {"datastore_id": store, "job_id": started["JobId"]}
    headers = {"authorization": f"Bearer {mesh.token('demo_admin')}"}
    async with httpx.AsyncClient(base_url=f"{mesh.ready['gateway']}/v1/tools", headers=headers, timeout=60) as client:
        for _ in range(2):
            said = (await client.post("/stop_fhir_export_job", json=place)).json()
            assert said["JobStatus"] in ("STOP_REQUESTED", "STOPPED", "COMPLETED"), said
        kept = (await client.post("/stop_fhir_import_job", json=place)).json()
    assert "HAPI has no operation that stops an import" in kept["message"]

    async def over() -> str:
        described = await call("describe_fhir_export_job", **place)
        status = described["ExportJobProperties"]["JobStatus"]
        return status if status in ("STOPPED", "COMPLETED") else ""

    assert await until(over) == ("COMPLETED" if said["JobStatus"] == "COMPLETED" else "STOPPED")


async def ends(call: Lake, base: str, first: str, second: str) -> None:
    """A datastore goes with its data, versions of deleted resources included; the others keep theirs."""
    patient = {"datastore_id": first, "resource_type": "Patient"}
    found = await call("search_fhir_resources", **patient)
    await call("delete_fhir_resource", **patient, resource_id=found["entry"][0]["resource"]["id"])
    gone = await call("delete_datastore", datastore_id=first)
    assert gone["DatastoreStatus"] == "DELETING"
    text = await refused(call, "describe_datastore", datastore_id=first)
    assert text.startswith("AWS HealthLake Error (ResourceNotFoundException)")
    place = {"datastore_id": second, "resource_type": "Patient", "resource_id": "imported"}
    assert (await call("read_fhir_resource", **place))["name"] == [{"family": "Imported"}]
    again = await new_store(call, datastore_name="one", client_token="once")
    assert again == first, "the same token names the same partition"
    async with httpx.AsyncClient(timeout=60) as client:
        history = (await client.get(f"{base}/{again}/_history")).json()
    assert history.get("total", 0) == 0 and not history.get("entry"), "nothing of it came back"
