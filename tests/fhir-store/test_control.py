"""Datastores over the control plane, asked by AWS's own client: life, lists, tags, name spaces, refusals."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from botocore.exceptions import ClientError
from lake_stage import client_of, fhir_of, until
from store_stage import Fhir, StoreProcess, patient

DEFAULT = "1234567890abcdef1234567890abcdef"
JOHN = "04c704c4-5d2d-4308-9c33-1690a6e47a6b"


@pytest.fixture(scope="module")
def store_commands() -> tuple[tuple[str, ...], ...]:
    return (("seed",),)


@pytest.fixture(scope="module")
def lake(store: StoreProcess) -> Any:
    return client_of(store)


def refused(call: Any, **arguments: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


@pytest.mark.requirement("ST-66")
def test_a_datastore_is_made_described_and_used(store: StoreProcess, lake: Any) -> None:
    sse = {"KmsEncryptionConfig": {"CmkType": "AWS_OWNED_KMS_KEY"}}
    identity = {"AuthorizationStrategy": "SMART_ON_FHIR", "FineGrainedAuthorizationEnabled": True, "Metadata": "{}"}
    made = lake.create_fhir_datastore(
        DatastoreTypeVersion="R4",
        DatastoreName="my-healthcare-datastore",
        SseConfiguration=sse,
        IdentityProviderConfiguration=identity,
        Tags=[{"Key": "team", "Value": "blue"}],
    )
    public_id = made["DatastoreId"]
    assert (len(public_id), int(public_id, 16) > 0, made["DatastoreStatus"]) == (32, True, "CREATING")
    assert made["DatastoreArn"] == f"arn:aws:healthlake:us-west-2:000000000000:datastore/fhir/{public_id}"
    found = lake.describe_fhir_datastore(DatastoreId=public_id)["DatastoreProperties"]
    assert found["DatastoreStatus"] == "ACTIVE", "without sample data there is nothing to wait for"
    assert found["DatastoreName"] == "my-healthcare-datastore"
    assert (found["SseConfiguration"], found["IdentityProviderConfiguration"]) == (sse, identity)
    assert abs(found["CreatedAt"] - datetime.now(UTC)) < timedelta(minutes=5)
    assert found["DatastoreEndpoint"].endswith(f"/datastore/{public_id}/r4/")
    fhir = Fhir(found["DatastoreEndpoint"])
    assert fhir.get(f"Patient/{fhir.create(patient('New'))['id']}").status_code == 200
    assert fhir.get("metadata").json()["implementation"]["url"] == fhir.base
    fhir.http.close()


@pytest.mark.requirement("ST-66")
def test_one_client_token_makes_one_datastore(lake: Any) -> None:
    asked = {"DatastoreTypeVersion": "R4", "DatastoreName": "once", "ClientToken": "token-1"}
    first = lake.create_fhir_datastore(**asked)
    assert lake.create_fhir_datastore(**asked)["DatastoreId"] == first["DatastoreId"]
    code, _ = refused(lake.create_fhir_datastore, **asked | {"DatastoreName": "twice"})
    assert code == "ConflictException"
    names = {"DatastoreName": "once"}
    assert len(lake.list_fhir_datastores(Filter=names)["DatastorePropertiesList"]) == 1


@pytest.mark.requirement("ST-66")
def test_sample_data_is_there_when_the_datastore_is_active(store: StoreProcess, lake: Any) -> None:
    made = lake.create_fhir_datastore(DatastoreTypeVersion="R4", PreloadDataConfig={"PreloadDataType": "SYNTHEA"})
    found = until(lake, made["DatastoreId"], "ACTIVE")
    assert found["PreloadDataConfig"] == {"PreloadDataType": "SYNTHEA"}
    fhir = fhir_of(store, made["DatastoreId"])
    assert fhir.get("Patient?_summary=count").json()["total"] == 52
    assert fhir.get(f"Patient/{JOHN}").json()["meta"]["versionId"] == "1"
    fhir.http.close()


async def _rows(url: str, public_id: str) -> dict[str, int]:
    connection = await asyncpg.connect(url)
    try:
        key = await connection.fetchval("SELECT datastore_id FROM datastore WHERE public_id = $1", public_id)
        await connection.execute("SELECT set_config('wardmesh.datastore', $1, false)", str(key))
        tables = await connection.fetch(
            """SELECT table_name FROM information_schema.columns WHERE column_name = 'datastore_id'
            AND table_schema = 'public' AND table_name <> 'datastore'"""
        )
        counts: dict[str, int] = {}
        for (table,) in tables:
            counts[table] = await connection.fetchval(f"SELECT count(*) FROM {table} WHERE datastore_id = $1", key)
        return counts
    finally:
        await connection.close()


@pytest.mark.requirement("ST-66")
def test_deleting_removes_all_data_and_nothing_of_others(store: StoreProcess, lake: Any) -> None:
    public_id = lake.create_fhir_datastore(DatastoreTypeVersion="R4", DatastoreName="short")["DatastoreId"]
    fhir = fhir_of(store, public_id)
    for number in range(5):
        fhir.put(f"Patient/p{number}", patient("Gone") | {"id": f"p{number}"})
    assert asyncio.run(_rows(store.database_url, public_id))["fhir_version"] == 5
    answer = lake.delete_fhir_datastore(DatastoreId=public_id)
    assert (answer["DatastoreId"], answer["DatastoreStatus"]) == (public_id, "DELETING")
    assert answer["DatastoreArn"] and answer["DatastoreEndpoint"]
    assert fhir.get("Patient/p1").status_code in (404, 409)
    assert fhir.post("Patient", patient("Late")).status_code in (404, 409)
    until(lake, public_id, "DELETED")
    assert set(asyncio.run(_rows(store.database_url, public_id)).values()) == {0}
    assert fhir.get("Patient/p1").status_code == 404
    assert refused(lake.delete_fhir_datastore, DatastoreId=public_id)[0] == "ResourceNotFoundException"
    listed = lake.list_fhir_datastores(Filter={"DatastoreStatus": "DELETED"})["DatastorePropertiesList"]
    assert public_id in [found["DatastoreId"] for found in listed]
    demo = Fhir(store.base)
    assert demo.get(f"Patient/{JOHN}").status_code == 200
    for client in (fhir, demo):
        client.http.close()


def test_the_default_datastore_stays(lake: Any) -> None:
    assert refused(lake.delete_fhir_datastore, DatastoreId=DEFAULT)[0] == "ConflictException"
    found = lake.describe_fhir_datastore(DatastoreId=DEFAULT)["DatastoreProperties"]
    assert found["DatastoreStatus"] == "ACTIVE"


def test_lists_are_filtered_and_paged_without_gaps(lake: Any) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    made = [
        lake.create_fhir_datastore(DatastoreTypeVersion="R4", DatastoreName=f"page-{number % 2}")["DatastoreId"]
        for number in range(5)
    ]
    found: list[str] = []
    wanted = {"DatastoreName": "page-0", "DatastoreStatus": "ACTIVE", "CreatedAfter": before}
    page = lake.list_fhir_datastores(Filter=wanted, MaxResults=2)
    token = page["NextToken"]
    found += [one["DatastoreId"] for one in page["DatastorePropertiesList"]]
    page = lake.list_fhir_datastores(Filter=wanted, MaxResults=2, NextToken=token)
    found += [one["DatastoreId"] for one in page["DatastorePropertiesList"]]
    assert found == made[::2]
    assert "NextToken" not in page
    assert not lake.list_fhir_datastores(Filter=wanted | {"CreatedBefore": before})["DatastorePropertiesList"]
    for bad in (token[:-2] + "AA", "x", token[:20]):
        assert refused(lake.list_fhir_datastores, Filter=wanted, NextToken=bad)[0] == "ValidationException"
    assert refused(lake.list_fhir_datastores, NextToken=token)[0] == "ValidationException", "of another filter"


@pytest.mark.requirement("ST-68")
def test_tags_are_added_changed_removed_and_listed(lake: Any) -> None:
    arn = lake.create_fhir_datastore(DatastoreTypeVersion="R4", Tags=[{"Key": "a", "Value": "1"}])["DatastoreArn"]
    assert lake.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "a", "Value": "1"}]
    lake.tag_resource(ResourceARN=arn, Tags=[{"Key": "a", "Value": "2"}, {"Key": "env", "Value": "dev"}])
    tags = lake.list_tags_for_resource(ResourceARN=arn)["Tags"]
    assert tags == [{"Key": "a", "Value": "2"}, {"Key": "env", "Value": "dev"}]
    lake.untag_resource(ResourceARN=arn, TagKeys=["a", "never-there"])
    assert lake.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "env", "Value": "dev"}]
    nowhere = arn[:-32] + "0" * 32
    assert refused(lake.list_tags_for_resource, ResourceARN=nowhere)[0] == "ResourceNotFoundException"
    assert refused(lake.tag_resource, ResourceARN="arn:x", Tags=[])[0] == "ValidationException"
    many = [{"Key": f"k{number}", "Value": ""} for number in range(200)]
    assert refused(lake.tag_resource, ResourceARN=arn, Tags=many)[0] == "ValidationException"


def test_regions_are_name_spaces(store: StoreProcess, lake: Any) -> None:
    other = client_of(store, "eu-central-1")
    asked = {"DatastoreTypeVersion": "R4", "DatastoreName": "far", "ClientToken": "same"}
    far, near = other.create_fhir_datastore(**asked), lake.create_fhir_datastore(**asked)
    assert far["DatastoreId"] != near["DatastoreId"]
    assert "eu-central-1" in far["DatastoreArn"]
    assert [one["DatastoreId"] for one in other.list_fhir_datastores()["DatastorePropertiesList"]] == [
        far["DatastoreId"]
    ]
    unknown = {"DatastoreId": far["DatastoreId"]}
    assert refused(lake.describe_fhir_datastore, **unknown)[0] == "ResourceNotFoundException"
    assert refused(lake.list_tags_for_resource, ResourceARN=far["DatastoreArn"])[0] == "ResourceNotFoundException"


@pytest.mark.parametrize(
    ("target", "body", "code"),
    [
        ("HealthLake.CreateFHIRDatastore", b"{}", "ValidationException"),
        ("HealthLake.CreateFHIRDatastore", b'{"DatastoreTypeVersion": "R5-secret"}', "ValidationException"),
        ("HealthLake.CreateFHIRDatastore", b"not json secret", "ValidationException"),
        (
            "HealthLake.CreateFHIRDatastore",
            b'{"DatastoreTypeVersion": "R4", "SseConfiguration": {"secret": 1}}',
            "ValidationException",
        ),
        ("HealthLake.ListFHIRDatastores", b'{"MaxResults": 501}', "ValidationException"),
        ("HealthLake.ListFHIRDatastores", b'{"Filter": {"CreatedBefore": "secret"}}', "ValidationException"),
        ("HealthLake.DescribeFHIRDatastore", b'{"DatastoreId": "secret"}', "ResourceNotFoundException"),
        ("HealthLake.DescribeFHIRDatastore", b"[" * 100_000, "ValidationException"),
        ("HealthLake.Nothing", b"{}", "UnknownOperationException"),
        ("", b"{}", "UnknownOperationException"),
    ],
)
def test_refusals_have_aws_shape_and_quote_nothing(store: StoreProcess, target: str, body: bytes, code: str) -> None:
    root = store.base.removesuffix("/fhir")
    answer = httpx.post(f"{root}/control", content=body, headers={"X-Amz-Target": target}, timeout=20)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/x-amz-json-1.0"
    found = answer.json()
    assert found["__type"] == code
    assert found["Message"]
    assert "secret" not in answer.text
