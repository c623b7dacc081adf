"""Datastores at HAPI: what is sent for each order, what is made of the answers, and what is refused before."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hapi_stage import OUTPUT, ROLE, StandIn, names, outcome_of

from wardmesh_common.errors import BadUpstream, NotAllowed, PlatformUnconfigured, PlatformUnknown
from wardmesh_common.vocabulary import DATASTORE_OPERATIONS, Interaction
from wardmesh_fhir_proxy.catalogue import Platforms
from wardmesh_fhir_proxy.healthlake_hapi import Hapi
from wardmesh_fhir_proxy.healthlake_hapi_emptying import GOES_ON, HELD, NO_EXPUNGE
from wardmesh_fhir_proxy.healthlake_hapi_limits import NOT_OFFERED
from wardmesh_fhir_proxy.healthlake_hapi_server import HapiServer
from wardmesh_fhir_proxy.healthlake_model import Model
from wardmesh_fhir_proxy.platforms_dir import PlatformFileInvalid

pytestmark = pytest.mark.anyio


async def test_every_operation_is_either_carried_out_or_declared_as_not_offered(bench: Any) -> None:
    carried_out = Hapi(HapiServer(bench.exchanges), Model()).operations
    assert carried_out | NOT_OFFERED.keys() == set(DATASTORE_OPERATIONS)
    assert not carried_out & NOT_OFFERED.keys()
    hapi = StandIn(bench)
    for operation in NOT_OFFERED:
        arn = {"ResourceARN": f"arn:aws:healthlake:us-west-2:000000000000:datastore/fhir/{'a' * 32}"}
        given = {"DatastoreId": "a" * 32} if "job" in operation else arn
        given |= {"Tags": []} if operation == "$tag-datastore" else {}
        given |= {"TagKeys": []} if operation == "$untag-datastore" else {}
        status, said = await hapi.manage_as(operation, "a" * 32, **given)
        assert (status, said) == (400, {"code": "ValidationException", "message": NOT_OFFERED[operation]})
    assert bench.upstream.requests == [], "what is not offered is refused before HAPI is asked"


async def test_a_datastore_is_a_partition_whose_description_is_all_that_is_remembered(bench: Any) -> None:
    hapi = StandIn(bench)
    first = await hapi.made(DatastoreName="mine", ClientToken="once")
    again = await hapi.made(DatastoreName="mine", ClientToken="once")
    other = await hapi.made()
    assert first == again != other
    assert len(hapi.rows) == 3
    status, said = await hapi.manage_as(
        "$create-datastore", DatastoreTypeVersion="R4", DatastoreName="yours", ClientToken="once"
    )
    assert (status, said["code"]) == (409, "ConflictException")
    status, said = await hapi.manage_as("$describe-datastore", first, DatastoreId=first)
    properties = said["DatastoreProperties"]
    assert (properties["DatastoreName"], properties["DatastoreStatus"]) == ("mine", "ACTIVE")
    assert properties["CreatedAt"].startswith("20") and properties["CreatedAt"].endswith("Z")
    assert properties["DatastoreEndpoint"].endswith(f"/lake-ds-{first}/")
    assert any("Binary" in text for text in properties["Limits"]), "what HAPI lacks is said with the datastore"
    assert bench.upstream.base not in json.dumps(said)


async def test_lists_are_filtered_paged_and_show_no_partition_of_others(bench: Any) -> None:
    hapi = StandIn(bench)
    known = sorted([await hapi.made(DatastoreName=f"n{i}", ClientToken=f"t{i}") for i in range(3)])
    hapi.rows["f" * 32] = 99, "somebody else wrote this"
    status, page = await hapi.manage_as("$list-datastores", MaxResults=2)
    assert [each["DatastoreId"] for each in page["DatastorePropertiesList"]] == known[:2]
    _, rest = await hapi.manage_as("$list-datastores", MaxResults=2, NextToken=page["NextToken"])
    assert [each["DatastoreId"] for each in rest["DatastorePropertiesList"]] == [known[2], "f" * 32]
    assert "NextToken" not in rest
    for wanted, count in (
        ({"DatastoreName": "n1"}, 1),
        ({"CreatedAfter": "2020-01-01T00:00:00Z"}, 3),
        ({"CreatedBefore": "2020-01-01T00:00:00"}, 0),
        ({"DatastoreStatus": "DELETING"}, 0),
    ):
        status, said = await hapi.manage_as("$list-datastores", Filter=wanted)
        assert (status, len(said["DatastorePropertiesList"])) == (200, count), wanted


async def test_a_deleted_datastore_loses_its_data_first_and_no_other_loses_any(bench: Any) -> None:
    hapi = StandIn(bench)
    datastore, other = await hapi.made(ClientToken="once"), await hapi.made()
    hapi.held = {datastore: names(7), other: names(3)}
    status, said = await hapi.manage_as("$delete-datastore", datastore, DatastoreId=datastore)
    assert (status, said["DatastoreStatus"], datastore in hapi.rows) == (200, "DELETING", False)
    assert hapi.held == {datastore: {}, other: names(3)}
    expunged = [seen.path for seen in bench.upstream.requests if seen.path.endswith("$expunge")]
    assert all(path.startswith(f"/r4/{datastore}/Patient/p") for path in expunged), "the rest is server-wide"
    status, said = await hapi.manage_as("$describe-datastore", datastore, DatastoreId=datastore)
    assert (status, said["code"]) == (404, "ResourceNotFoundException")


@pytest.mark.parametrize("name", ["Patient/..", "Patient/.", "Patient/../_history/.."])
async def test_an_id_of_dots_never_makes_it_the_whole_server(bench: Any, name: str) -> None:
    hapi = StandIn(bench)
    datastore = await hapi.made()
    hapi.held = {datastore: {name: False}}
    with pytest.raises(BadUpstream, match="does not say"):
        await hapi.manage_as("$delete-datastore", datastore, DatastoreId=datastore)
    assert not [seen for seen in bench.upstream.requests if "expunge" in seen.path]


async def test_a_hapi_that_does_not_expunge_keeps_everything_as_it_is(bench: Any) -> None:
    hapi = StandIn(bench)
    datastore = await hapi.made()
    hapi.held, hapi.expunges = {datastore: names(7)}, False
    status, said = await hapi.manage_as("$delete-datastore", datastore, DatastoreId=datastore)
    assert (status, said["code"], said["message"]) == (409, "ConflictException", NO_EXPUNGE)
    assert hapi.held[datastore] == names(7) and datastore in hapi.rows


async def test_what_refers_to_one_another_is_deleted_together(bench: Any) -> None:
    hapi = StandIn(bench)
    datastore = await hapi.made()
    hapi.seconds = 100.0
    hapi.page, hapi.held, hapi.keeps = 200, {datastore: names(700)}, "Patient/p1"
    status, said = await hapi.manage_as("$delete-datastore", datastore, DatastoreId=datastore)
    assert (status, said.get("DatastoreStatus"), hapi.held[datastore]) == (200, "DELETING", {})
    hapi.keeps = "Patient/p2"
    stubborn = await hapi.made()
    hapi.held[stubborn] = {f"Patient/p{number}": False for number in range(9000)}
    status, said = await hapi.manage_as("$delete-datastore", stubborn, DatastoreId=stubborn)
    assert (status, said["message"]) == (409, HELD)
    assert stubborn in hapi.rows and not any(hapi.held[stubborn].values())


async def test_what_cannot_be_done_in_the_time_of_one_call_goes_on_with_the_next(bench: Any) -> None:
    hapi = StandIn(bench)
    datastore = await hapi.made()
    hapi.held = {datastore: names(9)}
    hapi.seconds = 2.0
    status, said = await hapi.manage_as("$delete-datastore", datastore, DatastoreId=datastore)
    hapi.seconds = 10.0
    assert (status, said["code"], said["message"]) == (409, "ConflictException", GOES_ON)
    assert datastore in hapi.rows
    status, said = await hapi.manage_as("$delete-datastore", datastore, DatastoreId=datastore)
    assert (status, hapi.held[datastore], datastore in hapi.rows) == (200, {}, False)


@pytest.mark.parametrize(
    "more",
    [
        {"SseConfiguration": {"KmsEncryptionConfig": {"CmkType": "AWS_OWNED_KMS_KEY"}}},
        {"PreloadDataConfig": {"PreloadDataType": "SYNTHEA"}},
        {"Tags": [{"Key": "a", "Value": "b"}]},
        {"IdentityProviderConfiguration": {"AuthorizationStrategy": "SMART_ON_FHIR_V1"}},
        {"DatastoreName": "x" * 200},
        {"DatastoreTypeVersion": "R5"},
    ],
)
async def test_what_hapi_cannot_keep_is_refused_and_nothing_is_made(bench: Any, more: dict[str, Any]) -> None:
    hapi = StandIn(bench)
    status, said = await hapi.manage_as("$create-datastore", **{"DatastoreTypeVersion": "R4", **more})
    assert (status, said["code"]) == (400, "ValidationException")
    assert len(hapi.rows) == 1


async def test_answers_that_are_none_of_hapi_with_partitions_are_its_fault(bench: Any) -> None:
    hapi = StandIn(bench)
    datastore = await hapi.made()
    hapi.kick_off = 400
    asked = {"DatastoreId": datastore, "OutputDataConfig": OUTPUT, "DataAccessRoleArn": ROLE}
    assert "switched on" in (await hapi.manage_as("$start-export-job", datastore, **asked))[1]["message"]
    hapi.kick_off = 200
    with pytest.raises(BadUpstream):
        await hapi.manage_as("$start-export-job", datastore, **asked)
    bench.upstream.answer(outcome_of("no"), status=403)
    assert (await hapi.manage_as("$list-datastores"))[1]["code"] == "AccessDeniedException"
    for status, body in ((400, outcome_of("no such operation")), (200, b"<html>")):
        bench.upstream.answer(body, status=status)
        with pytest.raises(BadUpstream):
            await hapi.manage_as("$list-datastores")


async def test_the_data_of_a_datastore_lies_under_its_partition_and_there_are_no_regions(bench: Any) -> None:
    hapi = StandIn(bench)
    datastore = await hapi.made()
    bench.upstream.answer({"resourceType": "Patient", "id": "p1"})
    read = await bench.perform(Interaction.READ, "Patient", "p1", platform=f"lake-ds-{datastore}")
    sent = bench.upstream.requests[-1]
    assert (read.status, sent.path) == (200, f"/r4/{datastore}/Patient/p1")
    assert "X-Wardmesh-Namespace" not in sent.headers
    seen, minded = len(bench.upstream.requests), {"if-match": 'W/"1"'}
    with pytest.raises(NotAllowed):  # HAPI would delete whatever version there is
        await bench.perform(Interaction.DELETE, "Patient", "p1", platform=f"lake-ds-{datastore}", headers=minded)
    assert len(bench.upstream.requests) == seen
    with pytest.raises(PlatformUnconfigured):
        await hapi.manage_as("$list-datastores", region="eu-west-1")
    with pytest.raises(PlatformUnknown):
        bench.platforms.serving(f"lake-ds-{datastore}-eu-west-1")


@pytest.mark.parametrize("more", [{"signing": "sigv4"}, {"import_from": ["https://files.example/x"]}])
async def test_a_file_that_says_what_cannot_be_is_refused(bench: Any, more: dict[str, Any]) -> None:
    StandIn(bench).describe(**more)
    with pytest.raises(PlatformFileInvalid):
        Platforms(bench.directory)
