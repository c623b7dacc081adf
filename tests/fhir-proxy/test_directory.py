"""The directory: vendors' lists are imported, searched, resolved to a platform, and honest about their age (B-20)."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from wardmesh_cli.ports import free_port
from wardmesh_common.errors import BadRequest, PlatformUnknown
from wardmesh_common.organisations import organisation_id, vendor_of
from wardmesh_common.questions import Ask, DirectoryQuestion, OrganisationQuestion
from wardmesh_fhir_proxy import directory_files, platform_commands, platforms_dir
from wardmesh_fhir_proxy.catalogue import Platforms, facts_of
from wardmesh_fhir_proxy.directory import Directory
from wardmesh_fhir_proxy.directory_files import DirectoryList, Header, Organisation
from wardmesh_fhir_proxy.endpoint_bundles import BundleInvalid, read_bundle
from wardmesh_fhir_proxy.finding import Finder
from wardmesh_fhir_proxy.probing import Prober

pytestmark = pytest.mark.anyio
ASKED = Ask(id="1", sent_at=0.0, remaining_ms=1000)


def endpoint(number: int, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Endpoint",
        "id": f"e{number}",
        "status": "active",
        "connectionType": {"code": "hl7-fhir-rest"},
        "address": f"https://fhir.example/{number}/r4/",
        **more,
    }


def organisation(number: int, name: str, city: str, state: str, **more: Any) -> dict[str, Any]:
    address = [{"city": city, "state": state, "postalCode": f"{number:05d}"}]
    return {"resourceType": "Organization", "id": f"o{number}", "name": name, "address": address, **more}


def bundle(*resources: dict[str, Any]) -> bytes:
    return json.dumps({"resourceType": "Bundle", "entry": [{"resource": each} for each in resources]}).encode()


LIST = bundle(
    endpoint(1, managingOrganization={"reference": "Organization/o1"}),
    organisation(1, "Saint Mary Medical Center", "Springfield", "IL", alias=["St Mary"]),
    endpoint(2),
    organisation(2, "Hôpital Sainte-Anne", "Montreal", "QC", endpoint=[{"reference": "Endpoint/e2"}]),
    endpoint(3, name="Riverside Clinic", contained=[], managingOrganization={"display": "Riverside Clinic"}),
    organisation(4, "Saint Mary Hospital", "Portland", "OR", endpoint=[{"reference": "Endpoint/e4"}]),
    endpoint(4),
    endpoint(5, status="off", managingOrganization={"reference": "Organization/o1"}),
    endpoint(6, address="http://plain.example/r4", managingOrganization={"reference": "Organization/o1"}),
    endpoint(7, connectionType={"code": "dicom-wado-rs"}, managingOrganization={"reference": "Organization/o1"}),
)


@pytest.fixture
def unused_port() -> int:
    return free_port()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "list.json").write_bytes(LIST)
    said = ["import", "epic", str(tmp_path / "list.json"), "--source", "vendor list", "--listed-on", "2026-11-01"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WARDMESH_PLATFORMS_DIR", str(tmp_path))
        assert platform_commands.main(said) == 0
    return tmp_path


@pytest.mark.requirement("B-20")
async def test_a_vendors_bundle_becomes_organisations_that_can_be_found_and_called(folder: Path) -> None:
    platforms = Platforms(folder)
    answer = await Finder(platforms).answer(DirectoryQuestion(text="saint mary"), ASKED)
    assert [each.name for each in answer.candidates] == ["Saint Mary Hospital", "Saint Mary Medical Center"]
    assert answer.total == 2, "an ambiguous name gives candidates, never a guess"
    first = answer.candidates[0]
    assert (first.source, first.listed_on, first.verification_status) == ("vendor list", "2026-11-01", "unverified")
    narrowed = await Finder(platforms).answer(DirectoryQuestion(text="st mary spring", state="il"), ASKED)
    assert [each.city for each in narrowed.candidates] == ["Springfield"]
    accents = await Finder(platforms).answer(DirectoryQuestion(text="hopital montreal"), ASKED)
    chosen = accents.candidates[0].platform
    assert vendor_of(chosen) == "epic"
    descriptor = platforms.serving(chosen)
    assert descriptor.bases.patient == "https://fhir.example/2/r4"
    assert descriptor.discovery == "smart" and not descriptor.oauth.token_url, "signed in at its own SMART endpoints"
    facts = await platforms.organisation(OrganisationQuestion(platform=chosen), ASKED)
    assert (facts.vendor, facts.has_oauth, facts.open) == ("epic", True, False)
    epic = next(each for each in platforms.facts().platforms if each.id == "epic")
    assert epic.organisations == 4


@pytest.mark.requirement("B-20")
async def test_what_nobody_lists_is_unknown_and_a_text_without_a_word_is_refused(folder: Path) -> None:
    platforms = Platforms(folder)
    with pytest.raises(PlatformUnknown):
        platforms.serving("epic-org-0123456789abcdef")
    with pytest.raises(BadRequest):
        await Finder(platforms).answer(DirectoryQuestion(text=" -- "), ASKED)
    assert (await Finder(platforms).answer(DirectoryQuestion(text="nowhere at all"), ASKED)).candidates == ()


async def test_platforms_of_the_catalogue_are_found_by_alias_payer_id_and_name(folder: Path) -> None:
    finder = Finder(Platforms(folder))
    for text, expected in (("mychart", "epic"), ("oracle health", "cerner"), ("aetna", "aetna")):
        answer = await finder.answer(DirectoryQuestion(text=text), ASKED)
        assert answer.candidates[0].platform == expected


def test_a_list_can_be_left_out_replaced_and_is_refused_when_it_is_cut(folder: Path) -> None:
    platforms = Platforms(folder)
    path = directory_files.directory_files(folder)[0]
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rfind(b"{")])
    assert platforms.moved()
    assert not platforms.reload(), "half a list is no list: the earlier one stays"
    assert platforms.directory.counts == {"epic": 4}
    path.unlink()
    assert platforms.reload()
    assert platforms.directory.counts == {}


def test_only_rest_endpoints_that_are_on_and_callable_are_taken() -> None:
    found = read_bundle(LIST)
    assert [row.name for row in found.rows] == [
        "Hôpital Sainte-Anne",
        "Riverside Clinic",
        "Saint Mary Hospital",
        "Saint Mary Medical Center",
    ]
    assert found.left_out == 3


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.booleans() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_anything_else_is_refused_as_no_bundle(data: bytes) -> None:
    with pytest.raises(BundleInvalid):
        read_bundle(data)


@pytest.mark.requirement("B-20")
def test_twenty_five_thousand_entries_are_searched_in_well_under_fifty_milliseconds() -> None:
    names = ("Saint", "Memorial", "Regional", "Community", "Children", "County", "Valley", "University")
    rows = tuple(
        Organisation(
            name=f"{names[n % 8]} {names[n // 8 % 8]} Hospital {n}",
            base=f"https://fhir.example/{n}",
            city=f"City{n % 700}",
            state=("CA", "TX", "NY", "WA")[n % 4],
        )
        for n in range(25_000)
    )
    directory = Directory([DirectoryList(Header(vendor="epic", source="s", listed_on="d", entries=25_000), rows)])
    spent: list[float] = []
    for text in ("saint hospital", "university hospital 12345", "county city12", "h", "memorial valley tx"):
        tries: list[float] = []
        for _ in range(5):
            before = time.process_time()
            found, total = directory.search(text)
            tries.append(time.process_time() - before)
            assert found and total >= len(found)
        spent.append(min(tries))
    assert sorted(spent)[2] < 0.05, spent
    assert directory.search("university hospital 12345")[0][0].place.organisation.base.endswith("/12345")


def test_ids_of_organisations_are_stable_and_name_their_vendor() -> None:
    one = organisation_id("oracle-health", "https://FHIR.example/r4/")
    assert one == organisation_id("oracle-health", "https://fhir.example/r4")
    assert vendor_of(one) == "oracle-health"
    assert vendor_of("epic-sandbox-patient") == ""


async def test_a_check_asks_politely_and_its_result_is_shown_with_its_date(folder: Path, unused_port: int) -> None:
    seen: list[tuple[float, str, str]] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((time.monotonic(), request.path, request.headers.get("Authorization", "")))
        if request.path.endswith("/metadata"):
            return web.json_response({"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"})
        return web.json_response({"authorization_endpoint": "https://a.example", "token_endpoint": "https://t.example"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_port).start()
    try:
        for name in ("first-place", "second-place"):
            document = {
                "id": name,
                "name": name,
                "type": "sandbox",
                "bases": {"patient": f"http://127.0.0.1:{unused_port}/{name}"},
            }
            (folder / f"{name}.yaml").write_text(json.dumps(document))
        platforms = Platforms(folder)
        wanted = [platforms.descriptors[name] for name in ("first-place", "second-place")]
        async with aiohttp.ClientSession() as http:
            probes = await Prober(http, per_host_seconds=0.05).all(wanted, lambda _: None)
    finally:
        await runner.cleanup()
    assert [(p.metadata_status, p.fhir_version, p.smart) for p in probes] == [(200, "4.0.1", True)] * 2
    moments = [moment for moment, _, _ in seen]
    assert all(later - earlier > 0.04 for earlier, later in itertools.pairwise(moments)), "one host, in turn"
    assert not any(credential for _, _, credential in seen)
    found = {probe.platform: probe.verification("2026-11-21") for probe in probes}
    (folder / platforms_dir.PROBED).write_bytes(msgspec.json.encode(found))
    assert platforms.reload()
    facts = {each.id: each for each in platforms.facts().platforms}["first-place"]
    assert (facts.verification_status, facts.verified_on) == ("verified", "2026-11-21")


async def test_a_platform_that_does_not_answer_is_unverified(folder: Path, unused_port: int) -> None:
    document = {
        "id": "gone",
        "name": "gone",
        "type": "sandbox",
        "bases": {"patient": f"http://127.0.0.1:{unused_port}/r4"},
    }
    (folder / "gone.yaml").write_text(json.dumps(document))
    async with aiohttp.ClientSession() as http:
        probe = await Prober(http, per_host_seconds=0).probe(Platforms(folder).descriptors["gone"])
    assert probe.verification("2026-11-21").status == "unverified"


@pytest.mark.parametrize("arguments", [["import", "nobody", "x", "--source", "s"], ["search", "--"], []])
def test_wrong_usage_ends_with_64(arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDMESH_PLATFORMS_DIR", str(folder))
    try:
        code = platform_commands.main(arguments)
    except SystemExit as ended:
        code = ended.code
    assert code == 64


def test_a_vendors_secret_is_for_the_hosts_of_its_own_file_whatever_a_list_says(folder: Path) -> None:
    (folder / "epic.yaml").write_text(
        "auth:\n  secret_hosts: [Login.Vendor.example]\n"
        "oauth:\n  token_url: https://shared.example:8443/{tenant}/token\n"
        "  revocation_url: https://{tenant}.example/revoke\n"
    )
    platforms = Platforms(folder)
    listed = next(iter(platforms.directory.places))
    facts = facts_of(platforms.tenant(listed), vendor="epic")
    assert facts.sign_in.secret_hosts == ("login.vendor.example", "shared.example:8443")


def test_a_list_of_the_same_day_and_length_that_says_something_else_is_a_change(folder: Path) -> None:
    platforms = Platforms(folder)
    before, path = platforms.version, directory_files.directory_files(folder)[0]
    path.write_bytes(path.read_bytes().replace(b"https://fhir.example/2/r4", b"https://fhir.example/9/r4"))
    assert platforms.reload()
    assert platforms.version != before, "the other services are told, and ask again"
    assert not platforms.reload()
