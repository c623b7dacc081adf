"""The platform catalogue: look-ups by the rules of the data, public lists, and how a replica keeps it new."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.rest_stage import PLATFORMS, Stage
from wardmesh_common.errors import Unavailable
from wardmesh_common.questions import Catalogue, Changed, PlatformFacts
from wardmesh_gateway.catalogue import Ambiguous, Platforms, Snapshot

pytestmark = pytest.mark.anyio


def facts(platform: str, **more: Any) -> PlatformFacts:
    return PlatformFacts(id=platform, name=platform, type="payer", **more)


ANTHEM = ("47198", "00834")
SNAPSHOT = Snapshot(
    [
        facts("anthem", aliases=ANTHEM, payer_ids=ANTHEM),
        facts("anthem-patient", aliases=("anthem",), payer_ids=ANTHEM, live=True, name_patterns=("anthem patient",)),
        facts("anthem-provider", aliases=("elevance",), payer_ids=ANTHEM, live=True),
        facts("hapi-fhir", aliases=("hapi", "hapi-local")),
        facts("hapi-local", aliases=("hapi", "local"), payer_ids=("TEST001",), live=True),
        facts("test", aliases=("hapi", "local"), payer_ids=("TEST001",)),
        facts("aetna", name_patterns=("aetna", "cvs health"), live=True),
        facts("bcbsks", name_patterns=("bcbs.*kansas(?!.*city)", "("), live=True),
    ]
)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("anthem", "anthem"),
        ("ANTHEM", "anthem"),
        ("hapi-local", "hapi-local"),
        ("hapi", "hapi-local"),
        ("local", "hapi-local"),
        ("test001", "hapi-local"),
        ("Elevance", "anthem-provider"),
        ("Aetna Better Health", "aetna"),
        ("CVS Health", "aetna"),
        ("BCBS of Kansas", "bcbsks"),
        ("BCBS of Kansas City", None),
        ("aetna-typo", None),
        ("nowhere", None),
        ("", None),
    ],
)
def test_a_name_is_an_id_then_an_alias_then_a_payer_id_then_a_pattern(name: str, found: str | None) -> None:
    platform = SNAPSHOT.find(name)
    assert (platform.id if platform else None) == found


def test_a_name_of_several_platforms_is_an_error_that_lists_them() -> None:
    with pytest.raises(Ambiguous, match=": anthem-patient, anthem-provider"):
        SNAPSHOT.find("47198")


@pytest.mark.requirement("FG-1")
async def test_health_needs_no_credential_and_counts_the_platforms() -> None:
    answer = await Stage().send("GET", "/health")
    assert answer.json() == {
        "status": "healthy",
        "service": "fhir-gateway",
        "version": "0.1.0",
        "platforms_registered": len(PLATFORMS),
    }


async def test_the_list_is_sorted_by_name_and_can_be_narrowed_to_registered_ones() -> None:
    stage = Stage(registered=frozenset({"AETNA"}))
    answer = (await stage.send("GET", "/api/platforms")).json()
    names = [row["name"] for row in answer["platforms"]]
    assert names == sorted(names)
    assert answer["total"] == len(PLATFORMS)
    assert answer["platforms"][0].keys() == {
        "id", "name", "type", "fhir_base_url", "developer_portal", "has_oauth", "oauth_registered",
        "verification_status",
    }  # fmt: skip
    narrowed = (await stage.send("GET", "/api/platforms?registered_only=true")).json()
    assert [(row["id"], row["oauth_registered"]) for row in narrowed["platforms"]] == [("aetna", True)]
    wrong = await stage.send("GET", "/api/platforms?registered_only=CANARY")
    assert (wrong.status_code, wrong.json()) == (422, {"detail": "Invalid value for: registered_only"})


@pytest.mark.requirement("FG-3")
async def test_one_platform_is_shown_by_any_of_its_names() -> None:
    stage = Stage()
    answer = (await stage.send("GET", "/api/platforms/smarthealthit-sandbox")).json()
    assert answer.keys() == {
        "id", "name", "display_name", "type", "fhir_base_url", "sandbox_url", "developer_portal", "support_email",
        "fhir_version", "capabilities", "has_oauth", "oauth_registered", "oauth_authorize_url",
        "verification_status",
    }  # fmt: skip
    assert answer["name"] == "SMART Health IT Sandbox (Patient)"
    assert answer["capabilities"].keys() == {"patient_access", "provider_directory", "patient_everything", "bulk_data"}
    store = (await stage.send("GET", "/api/platforms/store")).json()
    assert store["capabilities"]["patient_access"] is True
    assert store["verification_status"] == "verified"
    missing = await stage.send("GET", "/api/platforms/nowhere")
    assert (missing.status_code, missing.json()) == (404, {"detail": "Platform 'nowhere' not found"})
    several = await stage.send("GET", "/api/platforms/47198")
    assert several.status_code == 400
    assert "aetna, anthem" in several.json()["detail"]


async def test_before_the_first_catalogue_the_answer_is_503_and_health_still_there() -> None:
    stage = Stage()
    stage.platforms._snapshot = None
    assert (await stage.get("/api/fhir/store/Patient")).status_code == 503
    assert (await stage.send("GET", "/api/platforms")).status_code == 503
    assert (await stage.send("GET", "/health")).json()["platforms_registered"] == 0


class Proxy:
    """fhir-proxy's side: away at first, then with a catalogue that changes."""

    def __init__(self) -> None:
        self.away = 2
        self.catalogue = Catalogue(version="1", platforms=(facts("one"),))
        self.changed: Any = None
        self.asked = 0

    async def ask(self, subject: str, question: Any, answer_type: Any, **_: Any) -> Any:
        self.asked += 1
        if self.away:
            self.away -= 1
            raise Unavailable("nobody there")
        return self.catalogue

    async def hear(self, subject: str, event_type: Any, handler: Any) -> None:
        self.changed = handler


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_replica_waits_for_the_catalogue_and_follows_its_changes() -> None:
    proxy = Proxy()
    platforms = Platforms(proxy)
    await platforms.start()
    with pytest.raises(Unavailable):
        platforms.snapshot.find("one")
    await until(lambda: platforms.count == 1)
    assert proxy.asked == 3
    proxy.catalogue = Catalogue(version="2", platforms=(facts("one"), facts("two")))
    await proxy.changed(Changed(version="1"))
    await proxy.changed(Changed(version="2"))
    await until(lambda: platforms.count == 2)
    proxy.away = 1
    await proxy.changed(Changed(version="3"))
    await until(lambda: proxy.away == 0)
    assert platforms.count == 2
    await platforms.stop()
