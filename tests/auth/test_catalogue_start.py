"""A replica of auth waits for the first catalogue before it takes calls, within a limit; then for organisations."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from wardmesh_auth.catalogue import Platforms
from wardmesh_common.contracts import ASK_CATALOGUE
from wardmesh_common.errors import Unavailable
from wardmesh_common.questions import Catalogue, Changed, PlatformFacts

pytestmark = pytest.mark.anyio


class Proxy:
    """fhir-proxy's side: away for so many questions, then with one catalogue of a vendor's directory."""

    def __init__(self, *, away: int = 0) -> None:
        self.away, self.asked, self.version = away, 0, "1"
        self.organisations: list[str] = []
        self.changed: Any = None

    async def ask(self, subject: str, question: Any, answer_type: Any, *, timeout_seconds: float = 2.0) -> Any:
        if subject != ASK_CATALOGUE:
            name = question.platform
            self.organisations.append(name)
            return PlatformFacts(
                id=name, name="Clinic", type="ehr", vendor="epic", fhir_base_url="https://clinic.example/r4"
            )
        self.asked += 1
        if self.asked <= self.away:
            raise Unavailable("nobody is there")
        facts = PlatformFacts(id="epic", name="Epic", type="ehr", organisations=1)
        return Catalogue(version=self.version, platforms=(facts,))

    async def hear(self, subject: str, event_type: Any, handler: Any) -> None:
        self.changed = handler


async def test_the_catalogue_is_asked_for_until_somebody_answers() -> None:
    proxy = Proxy(away=2)
    platforms = Platforms(proxy)
    assert await asyncio.wait_for(platforms.start(20), 60)
    assert (await platforms.serving("epic")).id == "epic"
    assert proxy.asked == 3
    await platforms.stop()


async def test_the_wait_has_an_end_and_calls_are_refused_until_the_catalogue_is_there() -> None:
    platforms = Platforms(Proxy(away=10_000))
    assert not await asyncio.wait_for(platforms.start(0.3), 60)
    with pytest.raises(Unavailable):
        await platforms.serving("epic")
    await platforms.stop()


@pytest.mark.requirement("B-20")
async def test_an_organisation_of_a_directory_is_asked_for_once_and_not_kept_with_the_catalogue() -> None:
    proxy = Proxy()
    platforms = Platforms(proxy)
    assert await asyncio.wait_for(platforms.start(20), 60)
    name = "epic-org-0123456789abcdef"
    found = await asyncio.gather(*(platforms.serving(name) for _ in range(20)))
    assert {facts.fhir_base_url for facts in found} == {"https://clinic.example/r4"}
    assert proxy.organisations == [name]
    assert [facts.id for facts in platforms.all()] == ["epic"]
    proxy.version = "2"
    await proxy.changed(Changed(version="2"))
    async with asyncio.timeout(30):
        while proxy.organisations == [name]:
            await asyncio.sleep(0.005)
            await platforms.serving(name)
    assert proxy.organisations == [name] * 2, "a list may have been imported again"
    await platforms.stop()
