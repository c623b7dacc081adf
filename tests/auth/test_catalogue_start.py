"""A replica of auth waits for the first catalogue before it takes calls, within a limit."""

from __future__ import annotations

import asyncio

import pytest

from wardmesh_auth.catalogue import Platforms
from wardmesh_common.errors import Unavailable
from wardmesh_common.questions import Catalogue, Changed, PlatformFacts

pytestmark = pytest.mark.anyio


async def ask_organisation(name: str) -> PlatformFacts:
    return PlatformFacts(id=name, name="Clinic", type="ehr", vendor="epic", fhir_base_url="https://clinic.example/r4")


async def test_the_catalogue_is_asked_for_until_somebody_answers() -> None:
    asked: list[int] = []

    async def ask() -> Catalogue:
        asked.append(len(asked))
        if len(asked) < 3:
            raise Unavailable("nobody is there")
        return Catalogue(version="1", platforms=(PlatformFacts(id="store", name="Store", type="sandbox"),))

    platforms = Platforms(ask, ask_organisation)
    assert await asyncio.wait_for(platforms.first(20), 20)
    assert (await platforms.serving("store")).id == "store"
    assert len(asked) == 3
    await platforms.close()


async def test_the_wait_has_an_end() -> None:
    async def nobody() -> Catalogue:
        raise Unavailable("nobody is there")

    platforms = Platforms(nobody, ask_organisation)
    assert not await asyncio.wait_for(platforms.first(0.3), 20)
    await platforms.close()


@pytest.mark.requirement("B-20")
async def test_an_organisation_of_a_directory_is_asked_for_once_and_not_kept_with_the_catalogue() -> None:
    asked: list[str] = []

    async def ask() -> Catalogue:
        return Catalogue(version="1", platforms=(PlatformFacts(id="epic", name="Epic", type="ehr", organisations=1),))

    async def organisation(name: str) -> PlatformFacts:
        asked.append(name)
        return await ask_organisation(name)

    platforms = Platforms(ask, organisation)
    name = "epic-org-0123456789abcdef"
    found = await asyncio.gather(*(platforms.serving(name) for _ in range(20)))
    assert {facts.fhir_base_url for facts in found} == {"https://clinic.example/r4"}
    assert asked == [name]
    assert [facts.id for facts in await platforms.all()] == ["epic"]
    await platforms.changed(Changed(version="2"))
    await platforms.serving(name)
    assert asked == [name] * 2, "a list may have been imported again"
    await platforms.close()
