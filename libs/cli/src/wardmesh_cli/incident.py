"""The incident that the show plants: a nurse opens a listed patient's record, and detection has to notice."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import aiohttp

from wardmesh_cli.directory import actor
from wardmesh_cli.mesh import Mesh

WHO = "demo_nurse"
RULES = frozenset({"vip", "no_relationship"})
REVIEWER = "demo_compliance"
CONSOLE = "/console/audit"
REVIEWS = f"{CONSOLE}/reviews"
_SECONDS = 30
_PAUSE = 0.2


@dataclass(frozen=True)
class Noticed:
    """The rules whose alerts about the nurse are in the review queue, and how long that took."""

    rules: frozenset[str]
    seconds: float

    @property
    def whole(self) -> bool:
        return self.rules >= RULES

    def text(self) -> str:
        return f"{', '.join(sorted(self.rules)) or 'nothing'} in the review queue after {self.seconds:.1f} s"


async def noticed(session: aiohttp.ClientSession, mesh: Mesh) -> Noticed:
    """Asks for the queue, as compliance, until both alerts are there. A day has one alert of a kind per patient."""
    begun = time.monotonic()
    while True:
        found = Noticed(await _rules(session, mesh), time.monotonic() - begun)
        if found.whole or found.seconds > _SECONDS:
            return found
        await asyncio.sleep(_PAUSE)


async def _rules(session: aiohttp.ClientSession, mesh: Mesh) -> frozenset[str]:
    url = f"{mesh.layout.public_url}/v1/reviews?status=all"
    async with session.get(url, headers={"Authorization": f"Bearer {mesh.tokens[REVIEWER]}"}) as answer:
        if answer.status != 200:
            return frozenset()
        reviews = (await answer.json())["reviews"]
    who = actor(mesh.layout, WHO)
    return frozenset(each["rule"] for each in reviews if each["actor"] == who and each["rule"] in RULES)
