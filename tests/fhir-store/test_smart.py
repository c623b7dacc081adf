"""The second base of the store: SMART tokens of the local hospital open it, scopes and the compartment close it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from store_stage import Fhir, StoreProcess, issue_of, new_process, observation, patient

from cli.hospital_stage import Hospital, Visit, server
from wardmesh_cli.ports import free_port

pytestmark = pytest.mark.timeout(400)
OWN, OTHER = "DP100", "FCE57"
RECORDS: list[dict[str, Any]] = [
    patient("Own") | {"id": OWN},
    patient("Other") | {"id": OTHER},
    {"resourceType": "Practitioner", "id": "smart-doc", "name": [{"family": "Doc"}]},
    observation(f"Patient/{OWN}", id="smart-own", performer=[{"reference": "Practitioner/smart-doc"}]),
    observation(f"Patient/{OTHER}", id="smart-other", performer=[{"reference": "Practitioner/smart-doc"}]),
    {
        "resourceType": "Appointment",
        "id": "smart-shared",
        "status": "booked",
        "participant": [{"actor": {"reference": f"Patient/{who}"}, "status": "accepted"} for who in (OWN, OTHER)],
    },
]


@pytest.fixture(scope="module")
def place(process: StoreProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StoreProcess, Hospital]]:
    """A store of our own over the same database, whose second base trusts a hospital of our own."""
    open_base = Fhir(process.base)
    for resource in RECORDS:
        assert open_base.put(f"{resource['resourceType']}/{resource['id']}", resource).status_code in {200, 201}
    open_base.http.close()
    store = new_process(process.database_url)
    base = store.base.replace("/fhir", "/smart/fhir")
    folder = tmp_path_factory.mktemp("hospital")
    with server(folder, free_port(), base=base, public_url="http://127.0.0.1:9") as hospital:
        store.settings = {"WARDMESH_SMART_ISSUER": hospital.issuer, "WARDMESH_SMART_BASE": base}
        store.start()
        try:
            yield store, hospital
        finally:
            store.kill()


@pytest.fixture
def signed_in(place: tuple[StoreProcess, Hospital]) -> Iterator[Callable[..., Fhir]]:
    """A FHIR client with the token of this person for these scopes."""
    with contextlib.ExitStack() as stack:

        def client(user: str, scope: str, chosen: str = "") -> Fhir:
            visit = stack.enter_context(contextlib.closing(Visit(place[1])))
            fhir = Fhir(place[1].base)
            stack.callback(fhir.http.close)
            fhir.http.headers["Authorization"] = f"Bearer {visit.tokens(user, scope, chosen)['access_token']}"
            return fhir

        yield client


def entries(answer: httpx.Response) -> set[str]:
    assert answer.status_code == 200, answer.text
    found = [entry["resource"] for entry in answer.json().get("entry", [])]
    return {f"{r['resourceType']}/{r['id']}" for r in found if r["resourceType"] != "OperationOutcome"}


def refused(answer: httpx.Response, status: int = 403) -> None:
    assert answer.status_code == status, answer.text
    assert issue_of(answer)["code"] == ("forbidden" if status == 403 else "login")


def test_discovery_names_the_server_and_never_plain_challenges(place: tuple[StoreProcess, Hospital]) -> None:
    base, issuer = place[1].base, place[1].issuer
    answer = httpx.get(f"{base}/.well-known/smart-configuration", headers={"Accept": "application/fhir+json"})
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()
    assert (told["issuer"], told["token_endpoint"]) == (issuer, f"{issuer}/token")
    assert told["code_challenge_methods_supported"] == ["S256"]
    assert {"launch-ehr", "launch-standalone", "client-confidential-asymmetric"} <= set(told["capabilities"])
    statement = httpx.get(f"{base}/metadata").json()
    assert statement["implementation"]["url"] == base
    uris = statement["rest"][0]["security"]["extension"][0]["extension"]
    assert {"url": "token", "valueUri": f"{issuer}/token"} in uris


def test_without_a_good_token_there_is_nothing_but_a_challenge(place: tuple[StoreProcess, Hospital]) -> None:
    store, hospital = place
    with contextlib.closing(Visit(hospital)) as visit:
        token = visit.tokens("dana")["access_token"]
    other = httpx.get(f"{store.base}/Patient/{OWN}")
    assert other.status_code == 200  # the closed-off base beside it is unchanged
    for headers in (
        {},
        {"Authorization": "Basic eDp5"},
        {"Authorization": "Bearer x.y.z"},
        {"Authorization": f"Bearer {token[:-4]}AAAA"},
    ):
        answer = httpx.get(f"{hospital.base}/Patient/{OWN}", headers=headers)
        refused(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert token not in answer.text


def test_the_token_of_another_base_is_not_good_here(
    place: tuple[StoreProcess, Hospital], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("stranger")
    with contextlib.ExitStack() as stack:
        elsewhere = server(folder, free_port(), base="http://127.0.0.1:9/fhir", public_url="http://127.0.0.1:9")
        visit = stack.enter_context(contextlib.closing(Visit(stack.enter_context(elsewhere))))
        token = visit.tokens("dana")["access_token"]
    refused(httpx.get(f"{place[1].base}/Patient/{OWN}", headers={"Authorization": f"Bearer {token}"}), 401)


@pytest.mark.requirement("HL-21")
def test_a_patient_reads_the_own_record_and_nothing_of_another_one(signed_in: Callable[..., Fhir]) -> None:
    fhir = signed_in("dana", "openid launch/patient patient/*.rs")
    assert fhir.get(f"Patient/{OWN}").json()["name"][0]["family"] == "Own"
    assert entries(fhir.get("Observation")) == {"Observation/smart-own"}
    assert entries(fhir.get(f"Observation?patient={OTHER}")) == set()
    assert (
        entries(
            fhir.call(
                "POST", "Observation/_search", f"patient={OTHER}", Content_Type="application/x-www-form-urlencoded"
            )
        )
        == set()
    )
    assert entries(fhir.get("Patient")) == {f"Patient/{OWN}"}
    assert fhir.get("Practitioner/smart-doc").status_code == 200
    everything = entries(fhir.get(f"Patient/{OWN}/$everything"))
    assert "Observation/smart-own" in everything
    assert not everything & {f"Patient/{OTHER}", "Observation/smart-other"}
    for path in (
        f"Patient/{OTHER}",
        "Observation/smart-other",
        "Observation/not-there",
        f"Patient/{OTHER}/$everything",
        f"Patient/{OTHER}/Observation",
        "Practitioner/smart-doc/Observation",
        "Observation/smart-own/_history",
        "_history",
        "Binary/x",
        "Observation?patient.name=Other",
        "Patient?_has:Observation:patient:code=8867-4",
    ):
        refused(fhir.get(path))


def test_included_resources_of_another_record_stay_away(signed_in: Callable[..., Fhir]) -> None:
    fhir = signed_in("dana", "openid launch/patient patient/*.rs")
    found = entries(fhir.get("Appointment?_include=Appointment:patient"))
    assert found == {"Appointment/smart-shared", f"Patient/{OWN}"}
    found = entries(fhir.get("Practitioner?_id=smart-doc&_revinclude=Observation:performer"))
    assert found == {"Practitioner/smart-doc", "Observation/smart-own"}
    clinician = signed_in("dr_jansen", "openid user/Appointment.rs")
    assert entries(clinician.get("Appointment?_id=smart-shared&_include=Appointment:patient")) == {
        "Appointment/smart-shared"
    }


def test_page_links_stay_inside_the_record(signed_in: Callable[..., Fhir]) -> None:
    fhir = signed_in("dana", "openid launch/patient patient/*.rs")
    pages = list(fhir.pages(f"Patient/{OWN}/*?_count=1"))
    found = {entry["resource"]["id"] for page in pages for entry in page.get("entry", [])}
    assert {"smart-own", "smart-shared", OWN} <= found
    assert not found & {"smart-other", OTHER}
    foreign = signed_in("frida", "openid launch/patient patient/*.rs")
    following = next(link["url"] for link in pages[0]["link"] if link["relation"] == "next")
    refused(foreign.get(following))


@pytest.mark.parametrize("scope", ["patient/Observation.read", "patient/Observation.rs"])
def test_scopes_of_both_dialects_hold(signed_in: Callable[..., Fhir], scope: str) -> None:
    fhir = signed_in("dana", f"openid launch/patient {scope}")
    assert entries(fhir.get("Observation")) == {"Observation/smart-own"}
    refused(fhir.get(f"Patient/{OWN}"))
    refused(fhir.get(f"Patient/{OWN}/$everything"))
    refused(fhir.post("Observation", observation(f"Patient/{OWN}")))
    assert entries(fhir.get("Observation?_include=Observation:subject")) == {"Observation/smart-own"}


def test_letters_are_told_apart(signed_in: Callable[..., Fhir]) -> None:
    reader = signed_in("dr_jansen", "openid user/Observation.r")
    assert reader.get("Observation/smart-other").status_code == 200
    refused(reader.get("Observation"))
    creator = signed_in("dr_jansen", "openid user/Observation.c")
    made = creator.post("Observation", observation(f"Patient/{OWN}", id="ignored"))
    assert made.status_code == 201
    refused(creator.get("Observation/smart-other"))
    refused(creator.put("Observation/smart-own", RECORDS[3]))
    refused(creator.call("DELETE", "Observation/smart-own"))
    refused(creator.post("Observation", observation(), If_None_Exist="code=8867-4"))
    all_of_it = signed_in("dr_jansen", "openid user/*.*")
    assert all_of_it.call("DELETE", f"Observation/{made.json()['id']}").status_code in {200, 204}


def test_bundles_are_held_against_the_scopes_entry_by_entry(signed_in: Callable[..., Fhir]) -> None:
    def bundle(*requests: tuple[str, str]) -> dict[str, Any]:
        entry = [{"request": {"method": method, "url": url}} for method, url in requests]
        return {"resourceType": "Bundle", "type": "batch", "entry": entry}

    reader = signed_in("dr_jansen", "openid user/Observation.rs")
    allowed = reader.post("", bundle(("GET", "Observation/smart-own")))
    assert allowed.json()["entry"][0]["response"]["status"].startswith("200")
    for denied in (("GET", f"Patient/{OWN}"), ("DELETE", "Observation/smart-own"), ("GET", "Observation?_include=*")):
        refused(reader.post("", bundle(("GET", "Observation/smart-own"), denied)))
    refused(signed_in("dana", "openid launch/patient patient/*.rs").post("", bundle(("GET", "Observation/smart-own"))))


def test_patient_scopes_without_a_patient_reach_nothing(signed_in: Callable[..., Fhir]) -> None:
    fhir = signed_in("dr_jansen", "openid patient/*.rs")
    for path in ("Observation", f"Patient/{OWN}", "Practitioner/smart-doc"):
        refused(fhir.get(path))


def test_answers_show_the_base_that_was_asked(signed_in: Callable[..., Fhir]) -> None:
    fhir = signed_in("dr_jansen", "openid user/*.rs")
    text = json.dumps(fhir.get("Observation?_id=smart-own").json())
    assert f"{fhir.base}/Observation/smart-own" in text
    refused(fhir.get("$export"))
