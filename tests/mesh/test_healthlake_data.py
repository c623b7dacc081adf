"""What lies in a datastore, through MCP and the whole mesh: reading, searching, writing, versions, conditions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from mesh.healthlake import Failed, Lake, lake, new_store, refused

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]
ROUNDS = 5
LOINC = "http://loinc.org"


def person(family: str, given: str = "A", **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "name": [{"family": family, "given": [given]}], **more}


def weight(patient: str, **more: Any) -> dict[str, Any]:
    code = {"coding": [{"system": LOINC, "code": "29463-7"}]}
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": code,
        "subject": {"reference": f"Patient/{patient}"},
        **more,
    }


def ids(bundle: dict[str, Any], kind: str = "") -> list[str]:
    found = [entry["resource"] for entry in bundle.get("entry", [])]
    return [one["id"] for one in found if not kind or one["resourceType"] == kind]


def links(bundle: dict[str, Any]) -> dict[str, str]:
    return {link["relation"]: link["url"] for link in bundle["link"]}


class Ward:
    """One datastore of a test's own."""

    def __init__(self, call: Lake, store: str) -> None:
        self.call, self.store = call, store

    async def create(self, resource: dict[str, Any], **more: Any) -> dict[str, Any]:
        asked = {"resource_type": resource["resourceType"], "resource_data": resource, **more}
        return await self.call("create_fhir_resource", datastore_id=self.store, **asked)

    def of(self, kind: str, identity: str = "") -> dict[str, Any]:
        named = {"resource_id": identity} if identity else {}
        return {"datastore_id": self.store, "resource_type": kind, **named}


async def status_of(call: Lake, name: str, **arguments: Any) -> int:
    with pytest.raises(Failed) as failed:
        await call(name, **arguments)
    return failed.value.structured["status"]


@pytest.mark.requirement("HL-2")
async def test_a_resource_is_read_as_it_is_or_as_one_version_was(mesh: Any) -> None:
    async with lake(mesh) as call:
        ward = Ward(call, await new_store(call, datastore_name="read"))
        made = await ward.create(person("First"))
        target = ward.of("Patient", made["id"])
        await call("update_fhir_resource", **target, resource_data=person("Second"))
        newest = await call("read_fhir_resource", **target)
        assert (newest["meta"]["versionId"], newest["name"][0]["family"]) == ("2", "Second")
        for version, family in (("1", "First"), ("2", "Second")):
            read = await call("read_fhir_resource", **target, version_id=version)
            assert (read["id"], read["meta"]["versionId"]) == (made["id"], version)
            assert read["name"][0]["family"] == family
        assert await status_of(call, "read_fhir_resource", **target, version_id="3") == 404
        assert await status_of(call, "read_fhir_resource", **ward.of("Patient", "nobody")) == 404
        text = await refused(call, "read_fhir_resource", **ward.of("Patient", "nobody"))
        assert text.startswith("FHIR Operation Failed: ERROR: not-found - ")


@pytest.mark.requirement("HL-3")
async def test_the_three_searches_give_searchsets_with_links_pages_includes_and_order(mesh: Any) -> None:
    async with lake(mesh) as call:
        ward = Ward(call, await new_store(call, datastore_name="search"))
        doctor = await ward.create({"resourceType": "Practitioner", "name": [{"family": "Healer"}]})
        seen_by = {"generalPractitioner": [{"reference": f"Practitioner/{doctor['id']}"}]}
        order = ("B", "A"), ("A", "B"), ("A", "A"), ("C", "A")
        made = {pair: (await ward.create(person(pair[0], pair[1], **seen_by)))["id"] for pair in order}
        first = made["A", "A"]
        observed = (await ward.create(weight(first)))["id"]

        plain = await call("search_fhir_resources", **ward.of("Patient"), query_parameters={"family": "A"})
        assert (plain["resourceType"], plain["type"], plain["total"]) == ("Bundle", "searchset", 2)
        assert set(ids(plain)) == {made["A", "A"], made["A", "B"]}
        assert links(plain)["self"].startswith(mesh.ready["gateway"])
        everyone = await call("search_fhir_resources", **ward.of("Patient"))
        assert set(ids(everyone)) == set(made.values())
        both = {"family": ["A", "B"]}  # a repeated parameter: both must hold, and nobody has two names
        assert (await call("search_fhir_resources", **ward.of("Patient"), query_parameters=both))["total"] == 0

        advanced = {
            "include_parameters": ["Patient:general-practitioner"],
            "revinclude_parameters": ["Observation:subject"],
            "sort_parameters": ["family", "given"],
        }
        whole = await call("search_fhir_resources_advanced", **ward.of("Patient"), **advanced, count=10)
        assert ids(whole, "Patient") == [made[pair] for pair in sorted(order)]
        assert (ids(whole, "Practitioner"), ids(whole, "Observation")) == ([doctor["id"]], [observed])
        assert (whole["type"], "next" in links(whole)) == ("searchset", False)
        backwards = {"sort_parameters": ["-family", "given"]}
        page = await call("search_fhir_resources_advanced", **ward.of("Patient"), **backwards, count=3)
        assert ids(page) == [made[pair] for pair in (("C", "A"), ("B", "A"), ("A", "A"))]
        cursor = links(page)["next"].partition("_cursor=")[2].partition("&")[0]
        rest = await call("search_fhir_resources", **ward.of("Patient"), query_parameters={"_cursor": cursor})
        assert ids(rest) == [made["A", "B"]]

        every = await call("search_all_resources", datastore_id=ward.store, count=50)
        assert (every["type"], links(every)["self"][:4]) == ("searchset", "http")
        kinds = {entry["resource"]["resourceType"] for entry in every["entry"]}
        assert kinds == {"Patient", "Practitioner", "Observation"}
        newer = {"_lastUpdated": "gt2023-01-01", "_type": "Observation,Practitioner"}
        some = await call("search_all_resources", datastore_id=ward.store, query_parameters=newer, count=1)
        assert (len(some["entry"]), "next" in links(some)) == (1, True)


@pytest.mark.requirement("HL-4")
async def test_creating_updating_and_deleting_keep_to_ids_types_and_conditions(mesh: Any) -> None:
    async with lake(mesh) as call:
        ward = Ward(call, await new_store(call, datastore_name="write"))
        known = person("Known", identifier=[{"system": "http://x.test", "value": "1"}])
        first = await ward.create({**known, "id": "of-my-own"}, if_none_exist="identifier=http://x.test|1")
        assert first["id"] != "of-my-own"
        again = await ward.create(known, if_none_exist="identifier=http://x.test|1")
        assert (again["id"], again["meta"]["versionId"]) == (first["id"], "1")

        target = ward.of("Patient", first["id"])
        updated = await call("update_fhir_resource", **target, resource_data=person("Other"), if_match='W/"1"')
        assert (updated["id"], updated["meta"]["versionId"]) == (first["id"], "2")
        for name in ("update_fhir_resource", "delete_fhir_resource"):
            data = {"resource_data": person("Late")} if name.startswith("update") else {}
            assert await status_of(call, name, **target, **data, if_match='W/"1"') == 412
            kept = await call("read_fhir_resource", **target)
            assert (kept["name"][0]["family"], kept["meta"]["versionId"]) == ("Other", "2")

        wrong = {**ward.of("Observation"), "resource_data": person("X")}
        mismatch = "Resource type mismatch: URL specifies 'Observation' but resource contains 'Patient'"
        assert await refused(call, "create_fhir_resource", **wrong) == mismatch
        assert await refused(call, "update_fhir_resource", **wrong, resource_id="a") == mismatch
        other = {**target, "resource_data": person("X", id="b")}
        text = f"Resource ID mismatch: URL specifies '{first['id']}' but resource contains 'b'"
        assert await refused(call, "update_fhir_resource", **other) == text

        gone = await call("delete_fhir_resource", **target, if_match='W/"2"')
        assert gone == {"status": "success", "statusCode": 204}
        assert await status_of(call, "read_fhir_resource", **target) == 410


@pytest.mark.requirement("HL-6")
async def test_history_is_narrowed_and_a_compartment_is_read_whole_or_by_one_type(mesh: Any) -> None:
    async with lake(mesh) as call:
        ward = Ward(call, await new_store(call, datastore_name="history"))
        made = await ward.create(person("V1"))
        target = ward.of("Patient", made["id"])
        second = await call("update_fhir_resource", **target, resource_data=person("V2"))
        await call("update_fhir_resource", **target, resource_data=person("V3"))

        async def versions(**narrowed: Any) -> list[str]:
            bundle = await call("get_fhir_resource_history", **target, **narrowed)
            assert bundle["type"] == "history"
            return [entry["resource"]["meta"]["versionId"] for entry in bundle.get("entry", [])]

        assert await versions() == ["3", "2", "1"]
        assert await versions(count=2) == ["3", "2"]
        assert await versions(since=second["meta"]["lastUpdated"]) == ["3", "2"]
        assert await versions(since="2999-01-01T00:00:00Z") == []

        other = await ward.create(person("Somebody", "Else"))
        final = (await ward.create(weight(made["id"])))["id"]
        amended = (await ward.create(weight(made["id"], status="amended")))["id"]
        await ward.create(weight(other["id"]))
        condition = {"resourceType": "Condition", "subject": {"reference": f"Patient/{made['id']}"}}
        ill = (await ward.create(condition))["id"]
        of_one = {"datastore_id": ward.store, "compartment_type": "Patient", "compartment_id": made["id"]}
        whole = await call("get_fhir_resource_compartment", **of_one)
        assert {final, amended, ill} <= set(ids(whole))
        assert other["id"] not in ids(whole)
        assert len(ids(whole, "Observation")) == 2
        only = await call("get_fhir_resource_compartment", **of_one, resource_type="Observation")
        assert (set(ids(only)), only["type"]) == ({final, amended}, "searchset")
        narrowed = {"resource_type": "Observation", "query_parameters": {"status": "amended"}}
        assert ids(await call("get_fhir_resource_compartment", **of_one, **narrowed)) == [amended]


@pytest.mark.requirement("HL-5", "HL-19", "X-41")
async def test_every_write_makes_a_version_and_a_deleted_resource_keeps_its_history(mesh: Any) -> None:
    async with lake(mesh) as call:
        ward = Ward(call, await new_store(call, datastore_name="versions"))
        made = await ward.create(person("One", active=True))
        target = ward.of("Patient", made["id"])
        step = {"op": "replace", "path": "/active", "value": False}
        path = {"type": "replace", "path": "Patient.active", "value": True}
        written = [made]
        written.append(await call("update_fhir_resource", **target, resource_data=person("Two", active=True)))
        written.append(await call("patch_fhir_resource", **target, patch_operations=[step]))
        written.append(await call("patch_fhir_resource", **target, patch_operations=[path], patch_format="fhir-patch"))
        bundled = {"datastore_id": ward.store, "bundle_resources": [person("Five", id=made["id"])]}
        answer = await call("create_fhir_bundle", **bundled)
        assert answer["entry"][0]["response"]["etag"] == 'W/"5"'
        written.append(await call("read_fhir_resource", **target))
        assert [one["meta"]["versionId"] for one in written] == ["1", "2", "3", "4", "5"]
        await call("delete_fhir_resource", **target)
        assert await status_of(call, "read_fhir_resource", **target) == 410
        history = await call("get_fhir_resource_history", **target)
        methods = [entry["request"]["method"] for entry in history["entry"]]
        assert (methods[0], methods[-1], len(methods)) == ("DELETE", "POST", 6)
        kept = [entry["resource"]["meta"]["versionId"] for entry in history["entry"] if "resource" in entry]
        assert kept == ["5", "4", "3", "2", "1"]
        for resource in written:
            version = resource["meta"]["versionId"]
            assert await call("read_fhir_resource", **target, version_id=version) == resource


async def outcome(work: Awaitable[Any]) -> Any:
    """The version that was written, or the status of the refusal."""
    try:
        return (await work)["meta"]["versionId"]
    except Failed as failed:
        return failed.structured["status"]


@pytest.mark.requirement("HL-20")
async def test_conditions_hold_and_of_two_updates_at_once_with_one_if_match_exactly_one_wins(mesh: Any) -> None:
    async with lake(mesh) as one, lake(mesh) as two:
        ward = Ward(one, await new_store(one, datastore_name="conditions"))
        known = person("Same", identifier=[{"system": "http://x.test", "value": "7"}])
        search = "identifier=http://x.test|7"
        both = await asyncio.gather(ward.create(known, if_none_exist=search), _create(two, ward.store, known, search))
        assert both[0]["id"] == both[1]["id"]
        await ward.create(known)
        with pytest.raises(Failed) as several:
            await ward.create(known, if_none_exist=search)
        assert several.value.structured["status"] == 412

        target = ward.of("Patient", both[0]["id"])
        step = [{"op": "add", "path": "/active", "value": True}]
        asked = {"patch_operations": step}
        assert (await one("patch_fhir_resource", **target, **asked, if_match='W/"1"'))["meta"]["versionId"] == "2"
        assert await status_of(one, "patch_fhir_resource", **target, **asked, if_match='W/"1"') == 412
        assert await status_of(one, "delete_fhir_resource", **target, if_match='W/"1"') == 412

        assert len(mesh.pids("gateway")) == 2
        for version in range(2, 2 + ROUNDS):
            tries = (
                call("update_fhir_resource", **target, resource_data=person(name), if_match=f'W/"{version}"')
                for call, name in ((one, "Left"), (two, "Right"))
            )
            ended = await asyncio.gather(*(outcome(each) for each in tries))
            assert sorted(map(str, ended)) == sorted((str(version + 1), "412"))
            stored = await one("read_fhir_resource", **target)
            winner = ("Left", "Right")[ended.index(str(version + 1))]
            assert (stored["meta"]["versionId"], stored["name"][0]["family"]) == (str(version + 1), winner)
        deleted = await one("delete_fhir_resource", **target, if_match=f'W/"{2 + ROUNDS}"')
        assert deleted["statusCode"] == 204


async def _create(call: Lake, store: str, resource: dict[str, Any], search: str) -> dict[str, Any]:
    return await Ward(call, store).create(resource, if_none_exist=search)
