"""The catalogue a service keeps: asked at start, on the announcement and now and then; the last good one stays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from wardmesh_common.catalogue import KeptCatalogue
from wardmesh_common.errors import Unavailable
from wardmesh_common.questions import Catalogue, Changed

pytestmark = pytest.mark.anyio


class Proxy:
    def __init__(self) -> None:
        self.version, self.away, self.asked = "1", False, 0
        self.tell: Any = None
        self.held: asyncio.Event | None = None

    async def ask(self, subject: str, question: Any, answer_type: Any, *, timeout_seconds: float = 2.0) -> Any:
        self.asked += 1
        answer = Catalogue(version=self.version, platforms=())
        if self.held is not None:
            await self.held.wait()
        if self.away:
            raise Unavailable("nobody is there")
        return answer

    async def hear(self, subject: str, event_type: Any, handler: Any) -> None:
        self.tell = handler


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_one_attempt_is_waited_for_and_no_more() -> None:
    proxy, taken = Proxy(), list[str]()
    proxy.away = True
    kept = KeptCatalogue(proxy, lambda catalogue: taken.append(catalogue.version))
    await kept.start()
    assert not await asyncio.wait_for(kept.first(), 60)
    assert proxy.asked >= 1
    proxy.away = False
    assert await asyncio.wait_for(kept.first(5), 60)
    assert taken == ["1"]
    await kept.stop()


async def test_an_announcement_is_followed_at_once_and_the_known_version_is_not_asked_for_again() -> None:
    proxy, taken = Proxy(), list[str]()
    kept = KeptCatalogue(proxy, lambda catalogue: taken.append(catalogue.version))
    await kept.start()
    assert await asyncio.wait_for(kept.first(5), 60)
    await proxy.tell(Changed(version="1"))
    proxy.version = "2"
    await proxy.tell(Changed(version="2"))
    await until(lambda: taken == ["1", "2"])
    assert proxy.asked == 2
    await kept.stop()


async def test_a_change_told_while_an_older_answer_comes_is_asked_about_again() -> None:
    proxy, taken = Proxy(), list[str]()
    proxy.held = asyncio.Event()
    kept = KeptCatalogue(proxy, lambda catalogue: taken.append(catalogue.version))
    await kept.start()
    await until(lambda: proxy.asked == 1)
    proxy.version = "2"
    await proxy.tell(Changed(version="2"))
    proxy.held.set()
    await until(lambda: taken == ["1", "2"])
    await kept.stop()


async def test_a_lost_announcement_is_made_good_in_time_and_the_last_catalogue_stays_meanwhile() -> None:
    proxy, taken = Proxy(), list[str]()
    kept = KeptCatalogue(proxy, lambda catalogue: taken.append(catalogue.version), refresh_seconds=0.02)
    await kept.start()
    assert await asyncio.wait_for(kept.first(5), 60)
    proxy.away = True
    before = proxy.asked
    await until(lambda: proxy.asked > before + 1)
    assert await kept.first(), "what is known stays known"
    proxy.away, proxy.version = False, "2"
    await until(lambda: taken == ["1", "2"])
    await kept.stop()
