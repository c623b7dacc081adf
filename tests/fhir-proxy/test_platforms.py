"""FG-4, FG-27, FG-32, X-11, B-15: platforms are data, told honestly; the compartment definition is pinned."""

# ruff: noqa: E501 - tables of cases read better in one line

from __future__ import annotations

import asyncio
import csv
from pathlib import Path
from typing import Any

import msgspec
import pytest

from wardmesh_common.errors import PlatformUnconfigured, PlatformUnknown, Unprocessable
from wardmesh_fhir_proxy import catalogue, platforms_dir
from wardmesh_fhir_proxy.capability import capability_summary
from wardmesh_fhir_proxy.catalogue import Platforms
from wardmesh_fhir_proxy.compartment import PATIENT_COMPARTMENT, SHARED, patients_of, peek
from wardmesh_fhir_proxy.links import Address

pytestmark = pytest.mark.anyio
ROWS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "platforms.csv"
OWN = ("store", "healthlake")
SANDBOX_HOSTS = ("sandbox", "r-hi2")


@pytest.mark.skipif(not ROWS.exists(), reason="the source table is not on this machine")
@pytest.mark.requirement("FG-32", "X-11")
def test_every_row_of_the_source_table_is_a_platform_with_the_same_facts() -> None:
    facts = {f.id: f for f in Platforms().facts().platforms}
    descriptors = Platforms().descriptors
    with ROWS.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["id"] for row in rows} == {
        name for name in facts if name not in OWN and not name.startswith("local-smart")
    }
    for row in rows:
        fact, whole = facts[row["id"]], descriptors[row["id"]]
        assert (fact.name, fact.type, fact.fhir_base_url) == (row["name"], row["kind"], row["fhir_base_url"])
        assert (fact.authorize_url, fact.token_url, fact.scopes) == (
            row["authorization_url"],
            row["token_url"],
            row["scopes"],
        )
        assert (fact.verification_status, fact.fhir_version) == (row["verification"], row["fhir_version"])
        assert whole.verification.fhir_version == row["probed_fhir_version"]
        assert str(whole.verification.metadata_status or "") == row["probed_metadata_status"]
        assert (fact.sandbox_url, fact.developer_portal) == (row["sandbox_url"], row["registration_url"])
        assert " | ".join(fact.aliases) == row["aliases"]
        assert " | ".join(fact.name_patterns) == row["name_patterns"]
        assert " ".join(fact.payer_ids) == row["payer_ids"]
        assert " ".join(fact.capabilities) == row["capabilities"]
        assert fact.live == (row["upstream_status"] == "head-live")
        assert whole.source == row["source"]
        assert not fact.writes


@pytest.mark.requirement("FG-32")
def test_the_honest_counts_are_the_published_ones() -> None:
    platforms = [d for d in Platforms().descriptors.values() if d.id not in OWN and not d.id.startswith("local-smart")]
    states = [d.verification.status for d in platforms]
    assert (len(states), states.count("verified"), states.count("unverified"), states.count("template")) == (
        69,
        25,
        9,
        35,
    )
    assert sum(bool(d.bases.patient) for d in platforms) == 34


@pytest.mark.requirement("X-11")
def test_x11_production_bases_do_not_pair_with_sandbox_sign_in_and_dstu2_is_refused() -> None:
    platforms = Platforms()
    medicare = platforms.descriptors["medicare"]
    assert "sandbox" not in medicare.bases.patient + medicare.oauth.authorize_url + medicare.oauth.token_url
    for identity in ("anthem", "anthem-patient", "bcbsks", "bluekc"):
        with pytest.raises(Unprocessable, match="R4"):
            platforms.serving(identity)


def test_fg27_epic_is_served_by_its_sandbox_until_it_has_a_base(tmp_path: Path) -> None:
    platforms = Platforms(tmp_path)
    facts = {f.id: f for f in platforms.facts().platforms}
    assert platforms.serving("epic").id == "epic-sandbox-patient"
    assert facts["epic"].served_by == "epic-sandbox-patient"
    (tmp_path / "epic.yaml").write_text("bases:\n  patient: https://fhir.hospital.example/r4\n")
    assert platforms.reload()
    assert platforms.serving("epic").bases.patient == "https://fhir.hospital.example/r4"
    assert platforms.serving("epic").pkce == "supported", "the rest of the shipped file stays"
    assert {f.id: f for f in platforms.facts().platforms}["epic"].served_by == ""


def test_unknown_and_unconfigured_platforms_have_their_own_errors() -> None:
    platforms = Platforms()
    with pytest.raises(PlatformUnknown):
        platforms.serving("nope")
    with pytest.raises(PlatformUnconfigured):
        platforms.serving("kaiser")


@pytest.mark.requirement("FG-32")
async def test_fg32_adding_a_file_and_reloading_adds_the_platform(tmp_path: Path) -> None:
    platforms = Platforms(tmp_path)
    told: list[str] = []
    heard = asyncio.Event()

    async def tell(version: str) -> None:
        told.append(version)
        heard.set()

    watching = asyncio.create_task(catalogue.watch(platforms, tell, asyncio.Event(), poll=0.01))
    (tmp_path / "clinic.yaml").write_text(
        "id: clinic\nname: Clinic\ntype: ehr\nbases: {patient: 'https://c.example/r4'}\n"
    )
    async with asyncio.timeout(30):
        await heard.wait()
    watching.cancel()
    assert told == [platforms.version]
    assert platforms.serving("clinic").name == "Clinic"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id: bad\nname: B\ntype: ehr\nquirk: 1\n", "bad.yaml: Object contains unknown field `quirk`"),
        ("id: bad\nname: B\ntype: hospital\n", r"bad.yaml: Invalid enum value .* `\$.type`"),
        ("id: bad\nname: B\ntype: ehr\nrate: {rps: fast}\n", r"bad.yaml: .*`\$.rate.rps`"),
        (
            "id: bad\nname: B\ntype: ehr\nbases: {patient: 'http://far.example/r4'}\n",
            "bad.yaml: `bases.patient` must be an https URL",
        ),
        ("id: Bad\nname: B\ntype: ehr\n", "bad.yaml: `id` must match"),
        ("id: bad\nname: B\ntype: ehr\nname_patterns: ['(']\n", "bad.yaml: `name_patterns`"),
        ("- 1\n", "bad.yaml: must be a mapping"),
        ("a: [\n", "bad.yaml: not readable as YAML"),
    ],
)
def test_a_wrong_file_is_named_with_its_field(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(platforms_dir.PlatformFileInvalid, match=message):
        platforms_dir.load(tmp_path)


def test_a_bad_file_at_reload_leaves_the_catalogue_as_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    platforms = Platforms(tmp_path)
    before = platforms.version
    (tmp_path / "bad.yaml").write_text("- 1\n")
    assert not platforms.reload()
    assert platforms.version == before
    assert "bad.yaml" in caplog.text


@pytest.mark.requirement("B-15")
def test_b15_the_compartment_definition_has_the_66_types_of_r4() -> None:
    assert len(PATIENT_COMPARTMENT) == 66
    assert not set(PATIENT_COMPARTMENT) & SHARED
    paths = {".".join(p) for p in PATIENT_COMPARTMENT["CarePlan"].paths}
    assert paths == {"subject", "activity.detail.performer"}


@pytest.mark.requirement("B-15")
@pytest.mark.parametrize("kind", sorted(set(PATIENT_COMPARTMENT) - {"Patient"}))
def test_b15_membership_is_found_on_every_path_of_every_type(kind: str) -> None:
    address = Address("https://a.example/r4")
    for path in PATIENT_COMPARTMENT[kind].paths:
        for reference, expected in (
            ("Patient/p1", ("p1",)), ("https://a.example/r4/Patient/p1/_history/2", ("p1",)),
            ("https://b.example/r4/Patient/p1", ()), ("Group/p1", ()), ("#p1", ()), ("urn:uuid:p1", ()),
        ):  # fmt: skip
            for wrap in (lambda x: x, lambda x: [x]):
                node: Any = {"reference": reference}
                for name in reversed(path):
                    node = {name: wrap(node)}
                seen = peek(msgspec.json.encode({"resourceType": kind, "id": "1", **node}))
                assert patients_of(seen, address) == expected


STATEMENT = {
    "resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "status": "active", "publisher": "P", "software": {"name": "S"},
    "rest": [{"mode": "server", "resource": [{"type": "Patient", "interaction": [{"code": "read"}, {"code": "search-type"}],
                                              "searchParam": [{"name": f"s{n}", "type": "string"} for n in range(12)], "operation": [{"name": "everything"}]}]}],
}  # fmt: skip


def test_fg4_summary_and_single_type() -> None:
    summary = capability_summary(STATEMENT)
    assert list(summary) == [
        "resourceType",
        "fhirVersion",
        "status",
        "publisher",
        "software",
        "resourceCount",
        "resources",
        "note",
    ]
    (row,) = summary["resources"]
    assert (row["type"], row["interactions"], len(row["searchParams"]), row["searchParamCount"]) == (
        "Patient",
        ["read", "search-type"],
        10,
        12,
    )
    single = capability_summary(STATEMENT, "Patient")
    assert list(single) == ["resourceType", "resource", "searchParam", "operation", "interaction"]
    issue = capability_summary(STATEMENT, "Claim")["issue"][0]
    assert (issue["severity"], issue["code"]) == ("warning", "not-found")


async def test_fg4_the_summary_is_asked_for_by_the_operation(bench: Any) -> None:
    bench.upstream.answer(STATEMENT)
    for operation, key in (("summary", "resourceCount"), ("summary:Patient", "searchParam"), ("", "rest")):
        outcome = await bench.perform("capabilities", operation=operation)
        assert key in msgspec.json.decode(outcome.body)
    assert {seen.path for seen in bench.upstream.requests} == {"/r4/metadata"}


def test_a_tenant_fills_the_addresses_of_its_platform_and_sign_in_quirks_reach_the_facts(tmp_path: Path) -> None:
    (tmp_path / "cerner.yaml").write_text(
        "tenant: {tenant_id: clinic-7}\n"
        "bases: {patient: 'https://fhir.example.org/r4/{tenant_id}/'}\n"
        "auth: {token_auth: private_key_jwt, alg: ES384}\n"
        "oauth: {token_headers: {X-Practice: '80000'}, revocation_url: 'https://x.example/{tenant_id}/revoke'}\n"
        "aud: none\n"
    )
    facts = {f.id: f for f in Platforms(tmp_path).facts().platforms}
    cerner = facts["cerner"]
    assert cerner.fhir_base_url == "https://fhir.example.org/r4/clinic-7/"
    assert "/tenants/clinic-7/" in cerner.authorize_url
    assert "{" not in cerner.authorize_url + cerner.token_url
    assert (cerner.sign_in.alg, cerner.sign_in.aud) == ("ES384", "none")
    assert cerner.sign_in.token_headers == (("X-Practice", "80000"),)
    assert cerner.sign_in.revocation_url == "https://x.example/clinic-7/revoke"
    assert "{tenant_id}" in {f.id: f for f in Platforms().facts().platforms}["cerner"].token_url
    assert facts["smarthealthit-sandbox-patient"].sign_in.client_id == "demo_client"
    assert facts["medicare"].sign_in.grant_expiry_field == "access_grant_expiration"
    assert facts["aetna-sandbox"].sign_in.refresh == "none"


@pytest.mark.parametrize(
    "line", ["aud: 'http://elsewhere.example'", "pkce: sometimes", "auth: {alg: HS256}", "oauth: {id_token: maybe}"]
)
def test_a_sign_in_quirk_that_is_none_is_an_error_in_the_file(tmp_path: Path, line: str) -> None:
    (tmp_path / "epic.yaml").write_text(line + "\n")
    with pytest.raises(platforms_dir.PlatformFileInvalid, match=r"epic\.yaml"):
        platforms_dir.load(tmp_path)
