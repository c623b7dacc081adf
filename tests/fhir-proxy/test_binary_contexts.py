"""A Binary leaves as what its securityContext refers to would: to whom it may, and to a patient only the own record."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from aiohttp import web

from wardmesh_common.contracts import Entry, Outcome
from wardmesh_common.errors import BadRequest, Denied, NotAllowed
from wardmesh_common.vocabulary import Mask, Obligations

pytestmark = pytest.mark.anyio
PDF = b"%PDF-1.4 content"
DOCUMENT = {
    "resourceType": "DocumentReference",
    "id": "d1",
    "status": "current",
    "subject": {"reference": "Patient/p1"},
}
WHOLE = Obligations()
OWN = Obligations(compartment="p1")
OTHERS = Obligations(compartment="p2")


class Shelf:
    """A platform with one Binary, as bytes and as JSON, and the documents that may stand in for it."""

    def __init__(self, bench: Any, context: Any = None, kind: str = "application/pdf") -> None:
        self.bench = bench
        self.context, self.kind = context, kind
        self.stored: dict[str, dict[str, Any]] = {"DocumentReference/d1": DOCUMENT}
        bench.upstream.respond = self.respond

    def respond(self, seen: Any) -> web.Response:
        path = seen.path.removeprefix("/r4/")
        if path != "Binary/b1":
            found = self.stored.get(path)
            return web.json_response(found or {}, status=200 if found else 404, content_type="application/fhir+json")
        if "json" in seen.headers["Accept"]:
            body: dict[str, Any] = {"resourceType": "Binary", "id": "b1", "contentType": self.kind, "data": "JVBERg=="}
            if self.context is not None:
                body["securityContext"] = self.context
            return web.json_response(body, content_type="application/fhir+json")
        named = {"Content-Type": self.kind}
        if self.context is not None:
            named["X-Security-Context"] = str(self.context.get("reference", ""))
        return web.Response(body=PDF, headers=named)

    async def read(self, duties: Obligations = WHOLE, *, raw: bool = True) -> Outcome:
        accept = {"headers": {"accept": "application/pdf" if raw else "application/fhir+json"}}
        return await self.bench.perform("read", "Binary", "b1", obligations=duties, **accept)

    @property
    def asked(self) -> list[str]:
        return [seen.path.removeprefix("/r4/") for seen in self.bench.upstream.requests]


def refers(reference: str) -> dict[str, str]:
    return {"reference": reference}


@pytest.mark.parametrize("raw", [True, False])
async def test_without_a_context_only_who_sees_every_record_reads_it(bench: Any, raw: bool) -> None:
    shelf = Shelf(bench)
    outcome = await shelf.read(raw=raw)
    assert outcome.status == 200
    assert outcome.body == PDF if raw else msgspec.json.decode(outcome.body)["data"]
    assert [(item.patient, item.type, item.ids) for item in outcome.touched] == [("", "Binary", ("b1",))]
    refused = await shelf.read(OWN, raw=raw)
    assert (refused.status, refused.touched) == (404, ())


@pytest.mark.parametrize("raw", [True, False])
async def test_a_patient_reads_what_stands_in_the_own_record_and_the_record_says_whose(bench: Any, raw: bool) -> None:
    for context in ("Patient/p1", "Patient/p1/_history/2", "DocumentReference/d1", f"{bench.upstream.base}/Patient/p1"):
        shelf = Shelf(bench, refers(context))
        bench.policy.kinds = {"DocumentReference": Obligations(), "Patient": Obligations()}
        outcome = await shelf.read(OWN, raw=raw)
        assert outcome.status == 200, context
        assert [item.patient for item in outcome.touched] == ["probe/Patient/p1"]
        assert (await shelf.read(OTHERS, raw=raw)).status == 404, context
        assert (await shelf.read(raw=raw)).touched[0].patient == "probe/Patient/p1", "for staff as well"


@pytest.mark.parametrize("raw", [True, False])
async def test_a_rule_that_limits_what_stands_in_limits_the_content(bench: Any, raw: bool) -> None:
    shelf = Shelf(bench, refers("DocumentReference/d1"))
    for limit, status in ((OWN, 200), (OTHERS, 404)):
        bench.policy.kinds = {"DocumentReference": limit}
        assert (await shelf.read(raw=raw)).status == status


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(
    "context",
    [
        refers("AuditEvent/a1"),
        refers("DocumentReference/gone"),
        refers("Bundle/1"),
        refers("Binary/b1"),
        refers("Parameters/1"),
        refers("https://elsewhere.example/fhir/Patient/p1"),
        refers("Patient/.."),
        refers("Patient"),
        refers("#p1"),
        {"identifier": {"value": "x"}},
    ],
)
async def test_what_the_caller_may_not_read_or_nobody_can_find_lets_nothing_out(
    bench: Any, context: dict[str, Any], raw: bool
) -> None:
    shelf = Shelf(bench, context)
    shelf.stored |= {"AuditEvent/a1": {"resourceType": "AuditEvent", "id": "a1"}}
    bench.policy.kinds = {"DocumentReference": Obligations(), "Patient": Obligations()}
    for duties in (Obligations(), OWN):
        outcome = await shelf.read(duties, raw=raw)
        assert (outcome.status, outcome.stream, outcome.touched) == (404, None, ())
    assert set(shelf.asked) <= {"Binary/b1", "DocumentReference/gone"}, "what is refused anyway is not asked for"


async def test_a_context_that_answers_as_something_else_lets_nothing_out(bench: Any) -> None:
    shelf = Shelf(bench, refers("DocumentReference/d2"))
    shelf.stored["DocumentReference/d2"] = DOCUMENT
    bench.policy.kinds = {"DocumentReference": Obligations()}
    assert (await shelf.read(OWN)).status == 404


async def test_who_sees_documents_without_their_content_gets_none(bench: Any) -> None:
    masked = Obligations(masks=(Mask(type="Binary", path="", action="keep", value="contentType"),))
    shelf = Shelf(bench, refers("Patient/p1"))
    bench.policy.kinds = {"Patient": Obligations()}
    assert (await shelf.read(masked)).status == 404
    shown = msgspec.json.decode((await shelf.read(masked, raw=False)).body)
    assert shown == {"resourceType": "Binary", "id": "b1", "contentType": "application/pdf"}


@pytest.mark.parametrize("raw", [True, False])
async def test_a_file_of_an_export_is_for_who_may_export(bench: Any, raw: bool) -> None:
    shelf = Shelf(bench, kind="application/fhir+ndjson")
    assert (await shelf.read(raw=raw)).status == 404
    bench.policy.kinds = {"System": Obligations()}
    assert (await shelf.read(raw=raw)).status == 200


@pytest.mark.parametrize("interaction", ["create", "update"])
async def test_nobody_writes_what_they_could_not_read(bench: Any, interaction: str) -> None:
    bench.policy.kinds = {"Patient": Obligations()}
    identity = "b1" if interaction == "update" else ""
    bench.upstream.answer({"resourceType": "Binary", "id": "b1", "contentType": "a/b"}, 201)

    async def write(body: bytes, media_type: str = "application/fhir+json") -> Outcome:
        return await bench.perform(interaction, "Binary", identity, body=body, media_type=media_type)

    for context, kind in ((refers("AuditEvent/1"), "a/b"), (refers("Patient/.."), "a/b"), (None, "application/ndjson")):
        held = {"resourceType": "Binary", "id": "b1", "contentType": kind, "securityContext": context}
        with pytest.raises(Denied):
            await write(msgspec.json.encode(held))
    with pytest.raises(Denied):
        await write(b"{}", "application/fhir+ndjson")
    for broken in (b"{", b'{"resourceType":"Binary","id":"b1","contentType":"a/b","contentType":"a/c"}', b"[]"):
        with pytest.raises(BadRequest):
            await write(broken)
    assert not bench.upstream.requests
    held = {"resourceType": "Binary", "id": "b1", "contentType": "a/b", "securityContext": refers("Patient/p1")}
    assert (await write(msgspec.json.encode(held))).status == 201
    assert (await write(PDF, "application/pdf")).status == 201
    assert bench.upstream.requests[-1].body == PDF


@pytest.mark.parametrize(
    "media_type", ["application/fhir+xml", "application/xml", "text/xml", "application/x-turtle", "a/b,c/fhir"]
)
async def test_what_a_platform_may_read_as_another_resource_is_not_written_as_bytes(
    bench: Any, media_type: str
) -> None:
    named = b'<securityContext><reference value="AuditEvent/1"/></securityContext>'
    body = b'<Binary xmlns="http://hl7.org/fhir">' + named + b"</Binary>"
    for interaction, identity in (("create", ""), ("update", "b1")):
        with pytest.raises(BadRequest):
            await bench.perform(interaction, "Binary", identity, body=body, media_type=media_type)
    assert not bench.upstream.requests


async def test_a_body_without_a_type_leaves_as_fhir_json_and_is_judged_as_that(bench: Any) -> None:
    held = {"resourceType": "Binary", "contentType": "a/b", "securityContext": refers("AuditEvent/1")}
    with pytest.raises(Denied):
        await bench.perform("create", "Binary", body=msgspec.json.encode(held))
    assert not bench.upstream.requests


@pytest.mark.parametrize("kind", ["batch", "transaction"])
async def test_in_an_entry_nobody_writes_what_they_could_not_read_either(bench: Any, kind: str) -> None:
    bench.policy.kinds = {"Binary": Obligations(), "Patient": Obligations()}
    bench.upstream.answer(
        {"resourceType": "Bundle", "type": f"{kind}-response", "entry": [{"response": {"status": "201"}}]}
    )

    async def write(method: str, held: dict[str, Any]) -> Outcome:
        url = "Binary" if method == "POST" else "Binary/b1"
        entry = {"request": {"method": method, "url": url}, "resource": {"resourceType": "Binary", "id": "b1", **held}}
        body = msgspec.json.encode({"resourceType": "Bundle", "type": kind, "entry": [entry]})
        return await bench.perform(kind, body=body, entries=(Entry(method=method, url=url),))

    foreign = {"contentType": "a/b", "securityContext": refers("AuditEvent/1")}
    for method in ("POST", "PUT"):
        for held in (foreign, {"contentType": "application/fhir+ndjson"}):
            with pytest.raises(Denied):
                await write(method, held)
    with pytest.raises(BadRequest):
        await write("PATCH", {})
    assert not bench.upstream.requests
    assert (await write("POST", {"contentType": "a/b", "securityContext": refers("Patient/p1")})).status == 200


async def test_no_patch_takes_away_what_content_stands_under(bench: Any) -> None:
    """Afterwards whoever wrote it could read it."""
    patch = b'[{"op":"remove","path":"/securityContext"}]'
    with pytest.raises(NotAllowed):
        await bench.perform("patch", "Binary", "b1", body=patch, media_type="application/json-patch+json")
    assert not bench.upstream.requests


@pytest.mark.parametrize("raw", [True, False])
async def test_a_rule_that_limits_patients_limits_content_that_names_one(bench: Any, raw: bool) -> None:
    shelf = Shelf(bench, refers("Patient/p1"))
    for limit, status in ((OWN, 200), (OTHERS, 404)):
        bench.policy.kinds = {"Patient": limit}
        assert (await shelf.read(raw=raw)).status == status


async def test_in_a_bundle_the_type_of_the_context_has_to_do(bench: Any) -> None:
    held = [
        {"resourceType": "Binary", "id": name, "contentType": "a/b", "securityContext": refers(context)}
        for name, context in (("1", "DocumentReference/d1"), ("2", "AuditEvent/1"), ("3", "Patient/p1"))
    ]
    bundle = {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": one} for one in held]}
    bench.upstream.answer(bundle)

    async def asked(duties: Obligations) -> Outcome:
        return await bench.perform("operation", "Patient", "p1", operation="$everything", obligations=duties)

    for limit, shown in ((Obligations(), {"1", "3"}), (OWN, {"3"}), (OTHERS, set[str]())):
        bench.policy.kinds = {"Binary": limit, "DocumentReference": limit, "Patient": limit}
        body = msgspec.json.decode((await asked(limit)).body)
        found = {
            entry["resource"]["id"] for entry in body.get("entry", ()) if entry["resource"]["resourceType"] == "Binary"
        }
        assert found == shown


async def test_a_failing_look_at_the_context_gives_the_connection_back(bench: Any) -> None:
    bench.describe(max_concurrent=2)
    lane = bench.exchanges.lane(bench.platforms.descriptors["probe"])
    large = PDF * 40_000

    def respond(seen: Any) -> web.Response:
        if seen.path.endswith("/Binary/b1"):
            return web.Response(
                body=large, headers={"Content-Type": "a/b", "X-Security-Context": "DocumentReference/d1"}
            )
        return web.Response(body=b"no JSON", headers={"Content-Type": "application/fhir+json"})

    bench.upstream.respond = respond
    bench.policy.kinds = {"DocumentReference": Obligations()}
    for _ in range(3):
        with pytest.raises(Exception, match="cannot be read"):
            await bench.perform("read", "Binary", "b1", headers={"accept": "a/b"})
    assert lane._streams == 0
