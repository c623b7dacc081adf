"""Organisations behind vendors: found by name, described, and called like any platform (B-20)."""

from __future__ import annotations

import json

import msgspec
import pytest

from gateway.rest_stage import PLATFORMS, READER, Stage
from wardmesh_common.errors import PlatformUnknown
from wardmesh_common.questions import (
    Candidate,
    Catalogue,
    DirectoryAnswer,
    DirectoryQuestion,
    OrganisationQuestion,
    PlatformFacts,
)
from wardmesh_gateway.catalogue import Platforms

pytestmark = pytest.mark.anyio
CLINIC = "epic-org-0123456789abcdef"
EPIC = PlatformFacts(id="epic", name="Epic", type="ehr", auth_method="authorization_code", organisations=2, open=True)
FOUND = DirectoryAnswer(
    candidates=(
        Candidate(platform=CLINIC, name="Saint Mary", vendor="epic", city="Springfield", source="s", listed_on="d"),
    ),
    total=7,
)


def stage() -> Stage:
    made = Stage()
    made.platforms.put(Catalogue(version="2", platforms=(*PLATFORMS, EPIC)))
    made.bus.answers[DirectoryQuestion] = FOUND
    return made


@pytest.mark.requirement("B-20")
async def test_a_name_gives_candidates_with_the_list_they_stand_in() -> None:
    mesh = stage()
    answer = await mesh.get("/api/organisations?q=saint%20mary&state=IL&limit=5")
    assert answer.json() == {
        "candidates": [
            {
                "platform_id": CLINIC,
                "name": "Saint Mary",
                "vendor": "epic",
                "city": "Springfield",
                "verification_status": "unverified",
                "source": "s",
                "listed_on": "d",
            }
        ],
        "total": 7,
    }
    assert mesh.bus.questions == [DirectoryQuestion(text="saint mary", state="IL", limit=5)]
    by_tool = await mesh.send(
        "POST",
        "/v1/tools/find_platform",
        headers={**READER, "content-type": "application/json"},
        content=json.dumps({"query": "saint mary"}).encode(),
    )
    assert by_tool.json() == answer.json()
    assert mesh.bus.calls == []


@pytest.mark.parametrize("query", ["", "q=", "q=x&limit=0", "q=x&state=Illinois", "q=" + "x" * 201])
async def test_a_question_that_makes_no_sense_is_refused(query: str) -> None:
    answer = await stage().get(f"/api/organisations?{query}")
    assert answer.status_code == 422


@pytest.mark.requirement("B-20")
async def test_an_organisation_is_called_like_any_platform_and_is_never_open() -> None:
    mesh = stage()
    assert (await mesh.get(f"/api/fhir/{CLINIC}/Patient/p1")).status_code == 200
    assert mesh.bus.call.platform == CLINIC
    anonymous = await mesh.get(f"/api/fhir/{CLINIC}/Patient/p1", headers={"accept": "*/*"})
    assert anonymous.status_code == 401, "its vendor is open, the organisation is not"


async def test_its_details_come_from_the_directory_and_a_made_up_id_is_not_found() -> None:
    mesh = stage()
    mesh.bus.answers[OrganisationQuestion] = msgspec.structs.replace(
        EPIC, id=CLINIC, name="Saint Mary", vendor="epic", fhir_base_url="https://mary.example/r4", organisations=0
    )
    answer = (await mesh.get(f"/api/platforms/{CLINIC}")).json()
    assert (answer["name"], answer["fhir_base_url"]) == ("Saint Mary", "https://mary.example/r4")
    mesh.bus.answers[OrganisationQuestion] = PlatformUnknown("This platform is not in the catalogue.")
    assert (await mesh.get(f"/api/platforms/{CLINIC}")).status_code == 404
    assert (await mesh.get("/api/fhir/store-org-0123456789abcdef/Patient/p1")).status_code == 404


@pytest.mark.requirement("B-20")
async def test_a_vendor_without_a_list_has_no_organisations() -> None:
    platforms = Platforms(Stage().bus)
    platforms.put(Catalogue(version="1", platforms=(msgspec.structs.replace(EPIC, organisations=0),)))
    assert platforms.platform(CLINIC) is None
