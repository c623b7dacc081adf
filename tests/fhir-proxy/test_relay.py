"""PX-1, PX-3, PX-4, PX-5: what crosses the proxy stays what it was, except addresses and headers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

pytestmark = pytest.mark.anyio

ODD = b"""{"resourceType":"Observation","id":"o1","text":{"status":"generated","div":"<div>BASE/Observation/o1</div>"},
 "identifier":[{"system":"BASE/ids","value":"1"}],"instantiatesCanonical":"BASE/ActivityDefinition/a",
 "subject":{"reference":"BASE/Patient/p1"},"valueQuantity":{"value":1.00},
 "component":[{"valueQuantity":{"value":1e2}},{"valueQuantity":{"value":100000000000000000000.5}}]}"""


def searchset(base: str, resources: list[bytes], links: str = "", extra: str = "") -> bytes:
    entries = b",".join(
        b'{"fullUrl":"%s/Observation/o%d","resource":%s,"search":{"mode":"match"}}' % (base.encode(), i, resource)
        for i, resource in enumerate(resources, 1)
    )
    head = f'{{"resourceType":"Bundle","type":"searchset","total":77{extra},"link":[{links}],"entry":['
    return head.encode() + entries + b"]}"


@pytest.mark.requirement("PX-1")
async def test_px1_resources_come_out_byte_identical_and_no_envelope_field_names_the_upstream(bench: Any) -> None:
    base = bench.upstream.base
    odd = ODD.replace(b"BASE", base.encode())
    links = (
        f'{{"relation":"self","url":"{base}/Observation?code=x"}},{{"relation":"next","url":"{base}?_getpages=abc"}},'
        f'{{"relation":"first","url":"{base}/Observation?code=x"}}'
    )
    bench.upstream.answer(searchset(base, [odd, odd], links))
    outcome = await bench.perform("search", "Observation", query="code=x")
    assert outcome.status == 200
    assert outcome.body.count(odd) == 2
    envelope = outcome.body.replace(odd, b"")
    assert b"127.0.0.1" not in envelope
    bundle = msgspec.json.decode(outcome.body)
    assert bundle["total"] == 77
    assert bundle["entry"][0]["fullUrl"] == "http://gateway.example/fhir/probe/Observation/o1"
    assert [link["relation"] for link in bundle["link"]] == ["self", "next", "first"]
    assert bundle["link"][0]["url"] == "http://gateway.example/fhir/probe/Observation?code=x"


@pytest.mark.requirement("PX-1")
async def test_px1_a_read_is_relayed_byte_for_byte(bench: Any) -> None:
    odd = ODD.replace(b"BASE", bench.upstream.base.encode())
    bench.upstream.answer(odd, ETag='W/"7"')
    outcome = await bench.perform("read", "Observation", "o1")
    assert outcome.body == odd
    assert outcome.headers["ETag"] == 'W/"7"'


async def test_px1_unknown_and_underscore_members_of_the_envelope_survive(bench: Any) -> None:
    body = searchset(
        bench.upstream.base,
        [b'{"resourceType":"Observation","id":"o1"}'],
        extra=',"_total":{"id":"t"},"signature":{"data":"eA=="}',
    )
    body = body.replace(b'"search":{"mode":"match"}', b'"search":{"mode":"match"},"vendor":{"score":1.50}')
    body = body.replace(b'"total":77', b'"total":77,"vendorMark":2.10')
    bench.upstream.answer(body)
    outcome = await bench.perform("search", "Observation")
    for part in (
        b'"_total":{"id":"t"}',
        b'"signature":{"data":"eA=="}',
        b'"vendor":{"score":1.50}',
        b'"vendorMark":2.10',
    ):
        assert part in outcome.body


@pytest.mark.requirement("PX-1")
async def test_px1_location_headers_and_batch_locations_become_ours(bench: Any) -> None:
    base = bench.upstream.base
    bench.upstream.answer(
        {"resourceType": "Patient", "id": "n1"},
        201,
        Location=f"{base}/Patient/n1/_history/1",
        ETag='W/"1"',
        Server="secret",
    )
    outcome = await bench.perform("create", "Patient", body=b'{"resourceType":"Patient"}')
    assert outcome.status == 201
    assert outcome.headers["Location"] == "http://gateway.example/fhir/probe/Patient/n1/_history/1"
    assert outcome.headers["ETag"] == 'W/"1"'
    assert "Server" not in outcome.headers


@pytest.mark.requirement("PX-1")
async def test_px1_capability_statement_addresses_are_ours(bench: Any) -> None:
    base = bench.upstream.base
    uris = {
        "url": "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris",
        "extension": [{"url": "token", "valueUri": f"{base}/token"}, {"url": "authorize", "valueUri": f"{base}/auth"}],
    }
    bench.upstream.answer(
        {
            "resourceType": "CapabilityStatement",
            "url": "http://x.example/cs",
            "implementation": {"url": base, "description": "d"},
            "rest": [{"mode": "server", "security": {"extension": [uris]}}],
        }
    )
    outcome = await bench.perform("capabilities")
    assert b"127.0.0.1" not in outcome.body
    document = msgspec.json.decode(outcome.body)
    assert document["implementation"] == {"url": "http://gateway.example/fhir/probe", "description": "d"}
    assert document["url"] == "http://x.example/cs"


INTERNAL = [
    "http://fhir-internal.svc.cluster.local:8080/r4/Observation?page=2",
    "https://10.0.0.7/r4?_getpages=1",
    "ftp://127.0.0.1/r4/x",
    "http://127.0.0.1.evil.example/r4/Observation?page=2",
]


@pytest.mark.requirement("PX-3")
@pytest.mark.parametrize("url", INTERNAL)
async def test_px3_links_that_cannot_be_mapped_are_left_out_with_a_remark(bench: Any, url: str) -> None:
    bench.upstream.answer(
        searchset(
            bench.upstream.base, [b'{"resourceType":"Observation","id":"o1"}'], f'{{"relation":"next","url":"{url}"}}'
        )
    )
    outcome = await bench.perform("search", "Observation")
    bundle = msgspec.json.decode(outcome.body)
    assert "link" not in bundle
    remark = bundle["entry"][-1]
    assert remark["search"]["mode"] == "outcome"
    assert remark["resource"]["issue"][0]["severity"] == "information"
    for internal in ("internal", "10.0.0.7", "evil", "ftp"):
        assert internal.encode() not in outcome.body


@pytest.mark.requirement("PX-3")
async def test_px3_doubled_ports_and_raw_bars_are_parsed_and_rebuilt(bench: Any) -> None:
    base = bench.upstream.base
    port = base.split(":")[2].split("/")[0]
    doubled = base.replace(f":{port}", f":{port}:{port}") + "/Observation?code=http://loinc.org|1234-5&p=2"
    bench.upstream.answer(
        searchset(base, [b'{"resourceType":"Observation","id":"o1"}'], f'{{"relation":"next","url":"{doubled}"}}')
    )
    first = msgspec.json.decode((await bench.perform("search", "Observation")).body)
    cursor = first["link"][0]["url"].partition("?")[2]
    assert port not in first["link"][0]["url"]
    await bench.perform("search", "Observation", query=cursor)
    assert bench.upstream.requests[-1].query == "code=http://loinc.org%7C1234-5&p=2"


@pytest.mark.requirement("PX-3")
async def test_px3_a_configured_alias_is_mapped_to_the_base(bench: Any) -> None:
    bench.describe(page_link={"hosts": ["pages.platform.example"]})
    bench.upstream.answer(
        searchset(bench.upstream.base, [], '{"relation":"next","url":"https://pages.platform.example/r4?token=t"}')
    )
    first = msgspec.json.decode((await bench.perform("search", "Observation")).body)
    await bench.perform("search", "Observation", query=first["link"][0]["url"].partition("?")[2])
    assert (bench.upstream.requests[-1].path, bench.upstream.requests[-1].query) == ("/r4", "token=t")


@pytest.mark.requirement("PX-5")
async def test_px5_the_raw_query_arrives_unchanged(bench: Any) -> None:
    bench.upstream.answer(searchset(bench.upstream.base, []))
    query = "date=ge2020&date=le2021&_include=a&_include=b&code:in=http://x%7Cy&identifier=s%3A%2F%2Fa|b&_sort=-date"
    await bench.perform("search", "Observation", query=query)
    assert bench.upstream.requests[0].query == query
    assert bench.upstream.requests[0].path == "/r4/Observation"


HOP = {"Host", "Content-Length", "Connection", "Transfer-Encoding"}


@pytest.mark.requirement("PX-4")
@pytest.mark.parametrize(
    ("interaction", "kind", "identity", "more", "expected"),
    [
        (
            "read",
            "Patient",
            "p1",
            {
                "headers": {
                    "if-modified-since": "Sat, 01 Jan 2022 00:00:00 GMT",
                    "cookie": "a=b",
                    "authorization": "Bearer x",
                }
            },
            {"Accept", "Accept-Encoding", "If-Modified-Since"},
        ),
        (
            "update",
            "Patient",
            "p1",
            {
                "body": b'{"resourceType":"Patient","id":"p1"}',
                "headers": {"if-match": 'W/"1"', "prefer": "return=minimal", "x-evil": "1"},
            },
            {"Accept", "Accept-Encoding", "Content-Type", "If-Match", "Prefer"},
        ),
        (
            "patch",
            "Patient",
            "p1",
            {"body": b"[]", "media_type": "application/json-patch+json"},
            {"Accept", "Accept-Encoding", "Content-Type"},
        ),
        (
            "patch",
            "Patient",
            "p1",
            {"body": b'{"resourceType":"Parameters"}', "media_type": "application/fhir+json"},
            {"Accept", "Accept-Encoding", "Content-Type"},
        ),
        (
            "search",
            "Patient",
            "",
            {"body": b"name=x", "media_type": "application/x-www-form-urlencoded"},
            {"Accept", "Accept-Encoding", "Content-Type"},
        ),
    ],
)
async def test_px4_exactly_the_allowed_headers_go_upstream(
    bench: Any, interaction: str, kind: str, identity: str, more: dict[str, Any], expected: set[str]
) -> None:
    bench.upstream.answer(
        {"resourceType": "Patient", "id": "p1"},
        Set_Cookie="c=d",
        Vary="Accept",
        X_Powered_By="z",
        Last_Modified="Sat, 01 Jan 2022 00:00:00 GMT",
    )
    outcome = await bench.perform(interaction, kind, identity, traceparent="00-1-2-01", **more)
    seen = bench.upstream.requests[0]
    assert set(seen.headers) - HOP == expected | {"traceparent"}
    if "media_type" in more:
        assert seen.headers["Content-Type"] == more["media_type"]
        assert seen.path.endswith("/_search") == (interaction == "search")
    assert set(outcome.headers) == {"Vary", "Last-Modified"}


@pytest.mark.requirement("PX-4")
@pytest.mark.parametrize(
    "kind", ["json", "application/json", "application/json+fhir", "application/fhir+json", "application%2Ffhir%2Bjson"]
)
async def test_px4_every_spelling_of_json_is_accepted_and_format_wins(bench: Any, kind: str) -> None:
    bench.upstream.answer({"resourceType": "Patient", "id": "p1"})
    outcome = await bench.perform(
        "read", "Patient", "p1", query=f"_format={kind}", headers={"accept": "application/fhir+xml"}
    )
    assert outcome.status == 200


@pytest.mark.requirement("PX-4")
async def test_px4_xml_is_refused_without_an_upstream_call(bench: Any) -> None:
    with pytest.raises(Exception, match="JSON"):
        await bench.perform("read", "Patient", "p1", query="_format=xml", headers={"accept": "application/fhir+json"})
    assert bench.upstream.requests == []
