"""Datastores at AWS: requests are signed, checked by an endpoint that signs them again; throttling, errors, places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from wardmesh_common.errors import BadRequest, Denied, PlatformUnconfigured, PlatformUnknown
from wardmesh_common.questions import OrganisationQuestion
from wardmesh_common.vocabulary import Interaction
from wardmesh_fhir_proxy.catalogue import Platforms
from wardmesh_fhir_proxy.healthlake_client import NO_STOP
from wardmesh_fhir_proxy.healthlake_signing import Signer
from wardmesh_fhir_proxy.upstream import UpstreamRequest

pytestmark = pytest.mark.anyio
STORE = "0123456789abcdef" * 2
PLATFORM = f"aws-ds-{STORE}"
ARN = f"arn:aws:healthlake:us-west-2:123456789012:datastore/fhir/{STORE}"
KEYS = ReadOnlyCredentials("AKIDEXAMPLE", "a-secret-of-a-test", "a-session-of-a-test")
# A recorded shape: what AWS answers to DescribeFHIRDatastore, times as epoch seconds.
DESCRIBED = {
    "DatastoreProperties": {
        "DatastoreArn": ARN,
        "DatastoreEndpoint": f"https://healthlake.us-west-2.amazonaws.com/datastore/{STORE}/r4/",
        "DatastoreId": STORE,
        "DatastoreName": "mine",
        "DatastoreStatus": "ACTIVE",
        "DatastoreTypeVersion": "R4",
        "CreatedAt": 1603761064.881,
        "PreloadDataConfig": {"PreloadDataType": "SYNTHEA"},
    }
}


def signed_right(request: Any, base: str, region: str) -> bool:
    """The signature that stands in the request is the one that botocore makes of what arrived."""
    sent = {name.lower(): value for name, value in request.headers.items()}
    scheme, _, rest = sent.get("authorization", "").partition(" ")
    fields = dict(part.strip().split("=", 1) for part in rest.split(",") if "=" in part)
    if scheme != "AWS4-HMAC-SHA256" or f"/{region}/healthlake/aws4_request" not in fields["Credential"]:
        return False
    names = fields["SignedHeaders"].split(";")
    assert {"host", "x-amz-date", "x-amz-security-token"} <= set(names)
    query = f"?{request.query}" if request.query else ""
    address = urlsplit(base)
    again = AWSRequest(
        method=request.method,
        url=f"{address.scheme}://{address.netloc}{request.path}{query}",
        data=request.body,
        headers={name: sent[name] for name in names},
    )
    again.context["timestamp"] = sent["x-amz-date"]
    signer = SigV4Auth(KEYS, "healthlake", region)
    text = signer.string_to_sign(again, signer.canonical_request(again))
    return signer.signature(text, again) == fields["Signature"]


class Aws:
    """Refuses what is not signed right, as AWS does, and answers the shapes it was given."""

    def __init__(self, bench: Any, region: str = "us-west-2") -> None:
        self.bench = bench
        self.region = region
        self.control: list[tuple[int, dict[str, Any]]] = [(200, DESCRIBED)]
        self.fhir: dict[str, Any] = {"resourceType": "Patient", "id": "p1"}
        self.refused = 0
        bench.upstream.respond = self.respond
        (bench.directory / "aws.yaml").write_bytes(msgspec.json.encode(self.descriptor()))
        bench.platforms.reload()

    def descriptor(self, **more: Any) -> dict[str, Any]:
        address = urlsplit(self.bench.upstream.base)
        endpoint = f"{address.scheme}://{address.netloc}"
        section = {"endpoint": endpoint, "signing": "sigv4", **more}
        auth = {"method": "none"}
        return {"id": "aws", "name": "AWS", "type": "sandbox", "auth": auth, "writes": True, "healthlake": section}

    def respond(self, seen: Any) -> web.Response:
        if not signed_right(seen, self.bench.upstream.base, self.region):
            self.refused += 1
            return web.json_response({"__type": "AccessDeniedException", "Message": "signature"}, status=403)
        if seen.path.startswith("/datastore/"):
            return web.json_response(self.fhir, content_type="application/fhir+json")
        status, body = self.control.pop(0) if len(self.control) > 1 else self.control[0]
        return web.json_response(body, status=status, content_type="application/x-amz-json-1.0")

    async def manage(self, operation: str, target: str = STORE, region: str = "", **request: Any) -> Any:
        body = msgspec.json.encode({"request": request, **({"region": region} if region else {})})
        return await self.bench.perform(
            Interaction.OPERATION, "Datastore", target, operation=operation, body=body, platform="aws"
        )


async def test_aws_has_no_operation_that_stops_a_job_and_is_not_asked_for_one(bench: Any) -> None:
    aws = Aws(bench)
    for operation in ("$stop-import-job", "$stop-export-job"):
        outcome = await aws.manage(operation, DatastoreId=STORE, JobId="j1")
        said = {"code": "ValidationException", "message": NO_STOP}
        assert (outcome.status, json.loads(outcome.body), bench.upstream.requests) == (400, said, [])


@pytest.mark.requirement("HL-17")
async def test_the_control_plane_is_asked_with_a_signature_that_holds(bench: Any) -> None:
    aws = Aws(bench)
    outcome = await aws.manage("$describe-datastore", DatastoreId=STORE)
    assert (outcome.status, aws.refused) == (200, 0)
    said = json.loads(outcome.body)["DatastoreProperties"]
    assert (said["DatastoreName"], said["CreatedAt"]) == ("mine", "2020-10-27T01:11:04.881000Z")
    assert said["DatastoreEndpoint"].endswith(f"/aws-ds-{STORE}/"), "the address behind the gateway, not AWS's"
    seen = bench.upstream.requests[0]
    assert (seen.path, seen.headers["X-Amz-Target"]) == ("/", "HealthLake.DescribeFHIRDatastore")
    assert seen.headers["Content-Type"] == "application/x-amz-json-1.0"
    assert json.loads(seen.body) == {"DatastoreId": STORE}


@pytest.mark.requirement("HL-17")
async def test_fhir_requests_to_a_datastore_are_signed_whatever_they_are(bench: Any) -> None:
    aws = Aws(bench)
    patient = b'{"resourceType":"Patient","id":"p1"}'
    read = await bench.perform(Interaction.READ, "Patient", "p1", platform=PLATFORM)
    aws.fhir = {"resourceType": "Bundle", "type": "searchset"}
    found = await bench.perform(
        Interaction.SEARCH, "Patient", platform=PLATFORM, query="name=a%20b&date=ge2020&date=le2021&identifier=x%7C1"
    )
    aws.fhir = {"resourceType": "Patient", "id": "p1"}
    written = await bench.perform(
        Interaction.UPDATE, "Patient", "p1", platform=PLATFORM, body=patient, headers={"if-match": 'W/"1"'}
    )
    assert ([read.status, found.status, written.status], aws.refused) == ([200, 200, 200], 0)
    assert {request.path.split("/")[3] for request in bench.upstream.requests} == {"r4"}
    assert all("Bearer" not in request.headers["Authorization"] for request in bench.upstream.requests)


async def test_a_wrong_key_is_refused_by_the_endpoint_so_the_check_can_fail(bench: Any) -> None:
    aws = Aws(bench, region="eu-west-1")  # the endpoint expects another region than the request is signed for
    outcome = await aws.manage("$describe-datastore", DatastoreId=STORE)
    assert (outcome.status, aws.refused) == (403, 1)
    assert json.loads(outcome.body)["code"] == "AccessDeniedException"


@pytest.mark.requirement("HL-16")
async def test_a_named_region_is_signed_for_and_has_platforms_of_its_own(bench: Any) -> None:
    aws = Aws(bench, region="eu-west-1")
    outcome = await aws.manage("$describe-datastore", region="eu-west-1", DatastoreId=STORE)
    assert outcome.status == 200
    assert json.loads(outcome.body)["DatastoreProperties"]["DatastoreEndpoint"].endswith(f"{PLATFORM}-eu-west-1/")
    read = await bench.perform(Interaction.READ, "Patient", "p1", platform=f"{PLATFORM}-eu-west-1")
    assert (read.status, aws.refused) == (200, 0)


@pytest.mark.requirement("HL-17")
async def test_throttled_requests_are_repeated_three_times_at_most_each_signed_anew(bench: Any) -> None:
    aws = Aws(bench)
    throttled = (400, {"__type": "com.amazonaws#ThrottlingException", "Message": "slow down"})
    aws.control = [throttled, throttled, (200, DESCRIBED)]
    assert (await aws.manage("$describe-datastore", DatastoreId=STORE)).status == 200
    assert len(bench.upstream.requests) == 3
    aws.control = [throttled]
    outcome = await aws.manage("$describe-datastore", DatastoreId=STORE)
    assert (outcome.status, len(bench.upstream.requests), aws.refused) == (429, 6, 0)
    assert json.loads(outcome.body) == {"code": "ThrottlingException", "message": "slow down"}
    # A tag has no client token: repeated, it might be done twice.
    await aws.manage("$tag-datastore", ResourceARN=ARN, Tags=[{"Key": "a", "Value": "b"}])
    assert len(bench.upstream.requests) == 7


async def test_a_creation_carries_a_token_so_that_a_repeated_one_is_the_same(bench: Any) -> None:
    aws = Aws(bench)
    made = {"DatastoreId": STORE, "DatastoreArn": ARN, "DatastoreStatus": "CREATING", "DatastoreEndpoint": "https://x"}
    aws.control = [(400, {"__type": "ThrottlingException"}), (200, made)]
    outcome = await aws.manage("$create-datastore", "", DatastoreTypeVersion="R4")
    tokens = {json.loads(request.body)["ClientToken"] for request in bench.upstream.requests}
    assert (outcome.status, len(bench.upstream.requests), len(tokens)) == (200, 2, 1)
    assert [call.operation for call, _ in bench.intents] == ["$create-datastore"]


@pytest.mark.parametrize(
    ("code", "status"),
    [("ResourceNotFoundException", 404), ("ValidationException", 400), ("ConflictException", 409), ("Odd", 502)],
)
async def test_errors_keep_the_code_of_aws_and_lose_its_addresses(bench: Any, code: str, status: int) -> None:
    aws = Aws(bench)
    aws.control = [(400, {"__type": code, "Message": "see https://inside.example/x for it"})]
    outcome = await aws.manage("$delete-datastore", DatastoreId=STORE)
    assert (outcome.status, json.loads(outcome.body)) == (status, {"code": code, "message": "see [removed] for it"})
    assert outcome.problem is not None


async def test_what_does_not_fit_is_refused_before_anything_is_sent(bench: Any) -> None:
    aws = Aws(bench)
    wrong = await aws.manage("$list-datastores", "", Filter={"CreatedBefore": "not a time"})
    assert json.loads(wrong.body)["code"] == "ValidationException"
    unknown = await aws.manage("$describe-datastore", DatastoreId=STORE, Odd="x")
    assert json.loads(unknown.body)["code"] == "ValidationException"
    with pytest.raises(BadRequest):  # another datastore than policy was asked about
        await aws.manage("$delete-datastore", "f" * 32, DatastoreId=STORE)
    assert bench.upstream.requests == []


async def test_a_platform_without_datastores_and_one_that_is_read_only_refuse(bench: Any, tmp_path: Path) -> None:
    aws = Aws(bench)
    with pytest.raises(PlatformUnconfigured):
        await bench.perform(Interaction.OPERATION, "Datastore", operation="$list-datastores", body=b'{"request":{}}')
    quiet = Platforms(bench.directory, read_only_datastores=True)
    facts = {each.id: each for each in quiet.facts().platforms}
    assert (facts["aws"].writes, facts["probe"].writes) == (False, True)
    (bench.directory / "aws.yaml").write_bytes(msgspec.json.encode({**aws.descriptor(), "writes": False}))
    bench.platforms.reload()
    with pytest.raises(Denied):
        await aws.manage("$delete-datastore", DatastoreId=STORE)
    assert (await aws.manage("$describe-datastore", DatastoreId=STORE)).status == 200


async def test_a_datastore_has_one_platform_id_and_its_facts_can_be_asked(bench: Any) -> None:
    Aws(bench)
    facts = await bench.platforms.organisation(OrganisationQuestion(platform=PLATFORM), None)
    assert (facts.vendor, facts.auth_method, facts.writes) == ("aws", "none", True)
    with pytest.raises(PlatformUnknown):  # the region of the platform itself is never part of the id
        bench.platforms.serving(f"{PLATFORM}-us-west-2")
    moved = Platforms(bench.directory, region="eu-west-1")
    assert moved.serving(PLATFORM).healthlake.region == "eu-west-1"
    local = Platforms(bench.directory).descriptors["healthlake"]
    assert local.healthlake.signing == "none"


async def test_without_credentials_nothing_is_sent(bench: Any) -> None:
    Aws(bench)
    signer = Signer(lambda: None)
    place = bench.platforms.serving(PLATFORM)
    request = UpstreamRequest(method="GET", url="https://x.test/", headers={})
    with pytest.raises(PlatformUnconfigured):
        await signer.sign(place, request)
    assert await signer.sign(bench.platforms.serving("probe"), request) is request
