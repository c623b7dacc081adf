"""CPU of one identify with a cached token, without the bus: `PYTHONPATH=tests python tests/auth/bench_identify.py`."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from auth.fake_issuer import AUDIENCE, http_fetch, issuer
from auth.stage import platforms
from wardmesh_auth.agents import Naming
from wardmesh_auth.bearers import Bearers
from wardmesh_auth.catalogue import Platforms
from wardmesh_auth.database import Database, engine_for
from wardmesh_auth.grant_store import GrantKey
from wardmesh_auth.grants import Grants
from wardmesh_auth.identify import Identifier, Roles
from wardmesh_auth.platform_token import PlatformToken
from wardmesh_auth.platform_tokens import PlatformTokens
from wardmesh_auth.revocations import Revocations
from wardmesh_auth.sessions import Sessions
from wardmesh_auth.settings import PlatformClient
from wardmesh_common.contracts import Call, Caller
from wardmesh_common.issuer_keys import IssuerKeys
from wardmesh_common.questions import Catalogue, PlatformFacts
from wardmesh_common.station import Hop
from wardmesh_common.tokens import TokenVerifier
from wardmesh_common.vocabulary import Agent, Emergency, Face, Interaction, Principal, Resource

ROUNDS, CALLS = 5, 20_000


class Exchange:
    async def due(self, key: GrantKey, facts: PlatformFacts, client: PlatformClient) -> PlatformToken:
        now = time.time()
        return PlatformToken(access_token="t" * 800, scopes=("system/*.rs",), issued_at=now, expires_at=now + 3600)


class Proxy:
    def __init__(self, rows: tuple[PlatformFacts, ...]) -> None:
        self._catalogue = Catalogue(version="1", platforms=rows)

    async def ask(self, subject: str, question: Any, answer_type: Any, *, timeout_seconds: float = 2.0) -> Any:
        return self._catalogue

    async def hear(self, subject: str, event_type: Any, handler: Any) -> None:
        return None


class NoHandles:
    async def owner(self, handle: str, platform: str) -> Principal:
        raise AssertionError("no call here carries a handle")


class Nobody:
    async def meet(self, call: Call, principal: Principal) -> None:
        return None


class NoPasses:
    def read(self, text: str, principal: Principal, platform: str) -> Emergency:
        raise AssertionError("no call here is an emergency")


async def main() -> None:
    async with issuer() as fake, http_fetch() as fetch:

        async def tell(_: object) -> None:
            return None

        verifier = TokenVerifier(IssuerKeys(fake.url, fetch), issuer=fake.url, audiences=(AUDIENCE,))
        database = Database(engine_for("postgresql://nobody@127.0.0.1:1/none"))  # never asked
        revocations = Revocations(database)
        sessions = Sessions(database, revocations, tell, max_age_seconds=60, idle_seconds=60)
        client = PlatformClient("id", "secret")
        catalogue = Platforms(Proxy(platforms(fake)))
        assert await catalogue.start(1)
        grants = Grants(catalogue, PlatformTokens(Exchange()), lambda _: client, os.urandom(32))
        identify = Identifier(
            Bearers(verifier),
            sessions,
            revocations,
            grants,
            NoHandles(),
            NoPasses(),
            Roles(("roles",), {}),
            {},
            Naming(host="agents.example"),
            Nobody(),  # type: ignore[arg-type]
        )
        token = fake.sign(roles=["Doctor"])
        hop = Hop(time.monotonic() + 3600, "", None)  # type: ignore[arg-type]

        def call(platform: str) -> Call:
            return Call(
                id="c" * 32,
                reply_to="r",
                face=Face.REST,
                tool="read",
                interaction=Interaction.READ,
                platform=platform,
                deadline=0,
                resource=Resource(type="Patient", id="1"),
                caller=Caller(bearer=token, agent=Agent(id="cursor-agent-v1.0.0"), ip="192.0.2.1"),
            )

        for platform, what in (("store", "no platform token"), ("payer", "sealed platform token")):
            await identify(call(platform), hop)
            costs: list[float] = []
            for _ in range(ROUNDS):
                calls = [call(platform) for _ in range(CALLS)]
                started = time.process_time()
                for one in calls:
                    await identify(one, hop)
                costs.append((time.process_time() - started) / CALLS * 1e6)
            print(f"identify, cached token, {what}: {min(costs):.1f} us (worst round {max(costs):.1f})")
        await catalogue.stop()


if __name__ == "__main__":
    asyncio.run(main())
