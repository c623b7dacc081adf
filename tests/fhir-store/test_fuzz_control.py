"""Anything sent to the control plane, to bulk exports and in bundles is answered in its own words, never with a 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_stage import Fhir, StoreProcess, patient
from test_fuzz import JSON, check, mutated

from wardmesh_fhir_store.migrate import DEFAULT_DATASTORE

pytestmark = [pytest.mark.requirement("ST-65"), pytest.mark.timeout(400)]
SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TARGETS = (
    "CreateFHIRDatastore", "DescribeFHIRDatastore", "ListFHIRDatastores", "DeleteFHIRDatastore", "TagResource",
    "UntagResource", "ListTagsForResource", "StartFHIRImportJob", "StartFHIRExportJob", "DescribeFHIRImportJob",
    "DescribeFHIRExportJob", "ListFHIRImportJobs", "ListFHIRExportJobs", "StopFHIRImportJob", "StopFHIRExportJob",
)  # fmt: skip
ARN = f"arn:aws:healthlake:us-west-2:000000000000:datastore/fhir/{'0' * 32}"
# Every member that one of the operations reads: good in most, anything in some.
GOOD: dict[str, Any] = {
    "DatastoreId": "0" * 32, "JobId": "0" * 32, "DatastoreTypeVersion": "R4", "DatastoreName": "fuzz",
    "Tags": [{"Key": "a", "Value": "b"}], "TagKeys": ["a"], "ResourceARN": ARN, "ClientToken": "fuzz",
    "InputDataConfig": {"S3Uri": "s3://lake/in"}, "DataAccessRoleArn": "arn:aws:iam::000000000000:role/R",
    "OutputDataConfig": {"S3Configuration": {"S3Uri": "s3://lake/out", "KmsKeyId": "k"}},
    "JobOutputDataConfig": {"S3Configuration": {"S3Uri": "s3://lake/out", "KmsKeyId": "k"}},
    "Filter": {"DatastoreStatus": "ACTIVE", "CreatedAfter": 0}, "NextToken": "x", "MaxResults": 1,
    "JobStatus": "COMPLETED", "JobName": "x", "SubmittedAfter": 0, "SseConfiguration": {}, "PreloadDataConfig": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def lake(store: StoreProcess) -> Iterator[Fhir]:
    client = Fhir(store.base)
    yield client
    client.http.close()


def asked(store: StoreProcess, lake: Fhir, body: bytes, target: str) -> httpx.Response:
    headers = {"X-Amz-Target": f"HealthLake.{target}", "Content-Type": "application/x-amz-json-1.0"}
    return lake.http.post(f"http://127.0.0.1:{store.port}/control", content=body, headers=headers)


def judged(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    content = answer.json()
    assert answer.status_code == 200 or content["__type"].endswith("Exception")


@SETTINGS
@given(target=st.sampled_from(TARGETS), wrong=st.dictionaries(st.sampled_from(sorted(GOOD)), JSON, max_size=3))
def test_arbitrary_requests_never_crash_the_control_plane(
    store: StoreProcess, lake: Fhir, target: str, wrong: dict[str, Any]
) -> None:
    if target == "CreateFHIRDatastore":
        wrong = {"DatastoreTypeVersion": "R5", **wrong}  # none is really made
    judged(asked(store, lake, json.dumps(GOOD | wrong).encode("utf-8", "surrogatepass"), target))


@SETTINGS
@given(
    target=st.sampled_from(TARGETS) | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=9),
    body=st.binary(max_size=80),
)
def test_arbitrary_bytes_never_crash_the_control_plane(
    store: StoreProcess, lake: Fhir, target: str, body: bytes
) -> None:
    if target != "CreateFHIRDatastore":
        judged(asked(store, lake, body, target))


EXPORT = ("_type", "_since", "_typeFilter", "_outputFormat", "_elements", "organizeOutputBy", "patient")


@SETTINGS
@given(
    level=st.sampled_from(["$export", "Patient/$export", "Group/x/$export", "$export-poll/x", "$export-file/x/1"]),
    query=st.dictionaries(
        st.sampled_from(EXPORT) | st.text(max_size=6),
        st.text(max_size=12) | st.sampled_from(["Patient", "2020", "Patient?name=x", "Patient?_has:x", "ndjson"]),
        max_size=3,
    ),
    method=st.sampled_from(["GET", "POST", "DELETE"]),
)
def test_arbitrary_exports_never_crash_the_store(lake: Fhir, level: str, query: dict[str, str], method: str) -> None:
    text = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in query.items())
    for prefer in ("respond-async", ""):
        answer = lake.call(method, f"{level}?{text}", Prefer=prefer)
        check(answer.status_code, answer.content, answer.headers.get("content-type"))
        if answer.status_code == 202:
            assert lake.call("DELETE", answer.headers["content-location"]).status_code == 202


def _quoted(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"))


@SETTINGS
@given(
    kind=st.sampled_from(["transaction", "batch"]),
    entries=st.lists(
        st.fixed_dictionaries(
            {"resource": mutated()},
            optional={
                "fullUrl": st.text(max_size=8) | st.sampled_from(["urn:uuid:1", "Patient/1"]),
                "request": JSON
                | st.fixed_dictionaries(
                    {
                        "method": st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]),
                        "url": st.text(max_size=10)
                        | st.sampled_from(["Patient", "Patient/1", "Patient?name=x", "Patient?x", "/", "$export"]),
                    },
                    optional={"ifMatch": JSON, "ifNoneExist": st.text(max_size=8), "ifNoneMatch": st.text(max_size=4)},
                ),
            },
        ),
        max_size=3,
    ),
)
def test_arbitrary_bundles_never_crash_the_store(lake: Fhir, kind: str, entries: list[Any]) -> None:
    body = {"resourceType": "Bundle", "type": kind, "entry": entries}
    answer = lake.post("", json.dumps(body).encode("utf-8", "surrogatepass"))
    check(answer.status_code, answer.content, answer.headers.get("content-type"))
    if answer.status_code == 200:
        for entry in answer.json().get("entry", []):
            assert not entry["response"]["status"].startswith("5"), entry


@SETTINGS
@given(
    name=st.sampled_from(
        ["If-Match", "If-None-Match", "If-None-Exist", "If-Modified-Since", "Prefer", "Accept", "Content-Type"]
    ),
    value=st.text(st.characters(codec="latin-1", min_codepoint=32, exclude_characters="\x7f"), max_size=16)
    | st.sampled_from(
        ['W/"1"', 'W/"99999999999999999999"', "*", "name=x&name=y", "_id=", "Sat, 99 Nov 2026 00:00:00 GMT"]
    ),
)
def test_arbitrary_headers_never_crash_the_store(lake: Fhir, name: str, value: str) -> None:
    header = {name: value.strip().encode("latin-1")}
    body = json.dumps(patient("Fuzz") | {"id": "fuzz-header"}).encode()
    for method, path in (("GET", "Patient/fuzz-header"), ("PUT", "Patient/fuzz-header"), ("POST", "Patient")):
        headers: Any = {"Content-Type": "application/fhir+json", **header}
        content = None if method == "GET" else body
        answer = lake.http.request(method, lake.url(path), content=content, headers=headers)
        check(answer.status_code, answer.content, answer.headers.get("content-type"))


def test_the_default_datastore_still_serves_after_all_that(lake: Fhir, store: StoreProcess) -> None:
    assert lake.get("metadata").status_code == 200
    answer = asked(store, lake, json.dumps({"DatastoreId": DEFAULT_DATASTORE}).encode(), "DescribeFHIRDatastore")
    assert answer.json()["DatastoreProperties"]["DatastoreStatus"] == "ACTIVE"
