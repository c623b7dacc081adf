"""A replica of auth waits for the first catalogue before it takes calls, within a limit."""

from __future__ import annotations

import asyncio

import pytest

from wardmesh_auth.catalogue import Platforms
from wardmesh_common.errors import Unavailable
from wardmesh_common.questions import Catalogue, PlatformFacts

pytestmark = pytest.mark.anyio


async def test_the_catalogue_is_asked_for_until_somebody_answers() -> None:
    asked: list[int] = []

    async def ask() -> Catalogue:
        asked.append(len(asked))
        if len(asked) < 3:
            raise Unavailable("nobody is there")
        return Catalogue(version="1", platforms=(PlatformFacts(id="store", name="Store", type="sandbox"),))

    platforms = Platforms(ask)
    assert await asyncio.wait_for(platforms.first(20), 20)
    assert (await platforms.serving("store")).id == "store"
    assert len(asked) == 3
    await platforms.close()


async def test_the_wait_has_an_end() -> None:
    async def nobody() -> Catalogue:
        raise Unavailable("nobody is there")

    platforms = Platforms(nobody)
    assert not await asyncio.wait_for(platforms.first(0.3), 20)
    await platforms.close()
