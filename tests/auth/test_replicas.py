"""Two auth replicas as processes: who finishes what the other began, one renewal for all, no crossing of people."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import engines
from auth.fake_issuer import AUDIENCE
from auth.stage import MASTER_KEY, SEAL_KEY, Stage, stage
from auth.test_sign_in import query
from wardmesh_auth.database import Database, engine_for
from wardmesh_auth.grant_store import GrantKey, GrantStore, principal_digest
from wardmesh_auth.platform_token import PlatformToken
from wardmesh_auth.sessions import handle_of, session_principal
from wardmesh_auth.vault import Vault, master_key
from wardmesh_common.contracts import EVENT_GRANT_CHANGED, Call
from wardmesh_common.questions import GrantChanged
from wardmesh_common.token_seal import open_token
from wardmesh_common.tokens import principal_id

pytestmark = pytest.mark.anyio
SCRIPT = str(Path(__file__).with_name("replica_process.py"))


class Mesh:
    """The stage with replicas outside of this process."""

    def __init__(self, scene: Stage, database_url: str, nats_url: str, stack: AsyncExitStack) -> None:
        self.scene, self._stack = scene, stack
        self.processes: list[subprocess.Popen[str]] = []
        self.database = Database(engine_for(database_url))
        self.store = GrantStore(self.database, Vault((master_key(MASTER_KEY),)))
        self.environ = {
            "PATH": os.environ["PATH"],
            "WARDMESH_NATS_URL": nats_url,
            "WARDMESH_DATABASE_URL": database_url,
            "WARDMESH_ISSUER": scene.issuer.url,
            "WARDMESH_AUDIENCE": AUDIENCE,
            "WARDMESH_TOKEN_SEAL_KEY": base64.urlsafe_b64encode(SEAL_KEY).decode(),
            "WARDMESH_MASTER_KEY": MASTER_KEY,
            "WARDMESH_PLATFORM_SIGN_IN_CLIENT_ID": "our-public-client",
            "WARDMESH_PLATFORM_SIGN_IN_TWO_CLIENT_ID": "our-public-client",
        }

    async def replica(self) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, SCRIPT], env=self.environ, stdout=subprocess.PIPE, text=True)
        self._stack.callback(_ended, process)
        self.processes.append(process)
        assert process.stdout is not None
        async with asyncio.timeout(60):
            assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
        return process

    async def store_token(self, key: GrantKey, access_token: str, *, issued_at: float, expires_at: float) -> None:
        token = PlatformToken(
            access_token=access_token,
            refresh_token="p1/1",
            scopes=("patient/*.rs",),
            patient="p1",
            issued_at=issued_at,
            expires_at=expires_at,
        )
        async with self.store.exclusively(key) as connection:
            await self.store.write(connection, key, token)

    async def forget_caches(self, key: GrantKey) -> None:
        """As a replica does after a sign-in: the event reaches all of them."""
        event = GrantChanged(principal=principal_digest(key), platform=key.platform)
        await self.scene.proxy.tell(EVENT_GRANT_CHANGED, event)
        refusals = 0
        async with asyncio.timeout(60):
            while refusals < 20:  # so that both replicas have heard it
                reply = await self.scene.call(platform="sign-in", bearer=self.scene.issuer.sign())
                refusals = refusals + 1 if reply.status == 401 else 0
        self.scene.decided.clear()

    def tokens(self) -> list[tuple[Call, str]]:
        """What fhir-proxy would have sent: only it and auth hold the key."""
        return [(call, lent(call)) for call in self.scene.decided]


def _ended(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=10)


def lent(call: Call) -> str:
    assert call.grant is not None
    assert call.principal is not None
    bound = {"call_id": call.id, "platform": call.platform, "principal_id": call.principal.id}
    return open_token(SEAL_KEY, call.grant.sealed_token, **bound)


@asynccontextmanager
async def meshed(postgres: engines.Postgres, nats: engines.Nats, replicas: int) -> AsyncIterator[Mesh]:
    async with AsyncExitStack() as stack:
        scene = await stack.enter_async_context(stage(postgres.url(), nats.url, replicas=0))
        first = next(facts for facts in scene.catalogue if facts.id == "sign-in")
        two = type(first)(**{name: getattr(first, name) for name in first.__struct_fields__} | {"id": "sign-in-two"})
        scene.catalogue = (*scene.catalogue, two)
        mesh = Mesh(scene, postgres.url(), nats.url, stack)
        await asyncio.gather(*(mesh.replica() for _ in range(replicas)))
        yield mesh
        await mesh.database.close()


def answer(asked: dict[str, str], life: int = 3600) -> dict[str, Any]:
    """Tokens that say whose they are: of the code, or of the refresh token, which carries the same name."""
    name = asked.get("code") or asked["refresh_token"].partition("/")[0]
    return {
        "access_token": f"{name}/{time.monotonic_ns()}",
        "refresh_token": f"{name}/{time.monotonic_ns()}",
        "token_type": "Bearer",
        "expires_in": life,
        "scope": "patient/*.rs",
        "patient": name,
    }


@pytest.mark.requirement("FG-33")
async def test_a_sign_in_survives_the_replica_that_began_it_and_who_waits_hears_of_its_end(
    postgres: engines.Postgres, nats: engines.Nats
) -> None:
    async with meshed(postgres, nats, 1) as mesh:
        scene = mesh.scene
        scene.issuer.answer_for = answer
        first = await scene.procedure("open_auth", {"platform_id": "sign-in"}, platform="sign-in")
        (began,) = mesh.processes
        await mesh.replica()
        began.kill()
        began.wait(10)
        cookie, state = first["session"], query(first["location"])["state"]
        asked = {"platform_id": "sign-in", "timeout": 20}
        waiting = asyncio.create_task(scene.procedure("wait_for_auth", asked, platform="sign-in", cookie=cookie))
        back = await scene.procedure("finish_auth", {"code": "p1", "state": state}, cookie=cookie)
        assert back["page"] == "success"
        assert (await asyncio.wait_for(waiting, 15))["success"], "well before its time is up"
        again = await scene.procedure("finish_auth", {"code": "p1", "state": state}, cookie=cookie)
        assert (again.body["page"], again.reply.status) == ("invalid_state", 400)


@pytest.mark.requirement("FG-15", "X-16", "B-2")
async def test_200_calls_with_a_token_about_to_end_cause_one_refresh_and_all_use_the_new_token(
    postgres: engines.Postgres, nats: engines.Nats
) -> None:
    async with meshed(postgres, nats, 2) as mesh:
        scene = mesh.scene
        scene.issuer.answer_for, scene.issuer.token_delay = answer, 0.3
        key = GrantKey("default", principal_id(scene.issuer.url, "demo_doctor"), "sign-in")
        now = time.time()
        await mesh.store_token(key, "old", issued_at=now - 3560, expires_at=now + 40)
        bearer = scene.issuer.sign()
        replies = await asyncio.gather(*(scene.call(platform="sign-in", bearer=bearer) for _ in range(200)))
        assert Counter(reply.status for reply in replies) == {200: 200}
        assert [asked["grant_type"] for asked in scene.issuer.token_requests] == ["refresh_token"]
        used = {token for _, token in mesh.tokens()}
        assert len(used) == 1
        assert used != {"old"}
        # The next refresh is refused: nobody goes on with the token that is about to end.
        scene.decided.clear()
        scene.issuer.token_status = 400
        await mesh.store_token(key, "old-too", issued_at=now - 3560, expires_at=now + 40)
        await mesh.forget_caches(key)
        replies = await asyncio.gather(*(scene.call(platform="sign-in", bearer=bearer) for _ in range(50)))
        assert Counter((r.status, r.problem.code) for r in replies if r.problem) == {(401, "sign_in_required"): 50}
        assert scene.decided == []


@pytest.mark.requirement("FG-34")
async def test_two_people_on_two_platforms_never_get_each_others_token(
    postgres: engines.Postgres, nats: engines.Nats
) -> None:
    """A thousand interleaved calls while tokens end every few seconds and are renewed by either replica."""
    async with meshed(postgres, nats, 2) as mesh:
        scene = mesh.scene
        scene.issuer.answer_for = lambda asked: answer(asked, life=3)
        cookies: dict[str, str] = {}
        for person in ("ann", "bob"):
            for platform in ("sign-in", "sign-in-two"):
                caller = {"cookie": cookies[person]} if person in cookies else {}
                opened = await scene.procedure("open_auth", {"platform_id": platform}, platform=platform, **caller)
                cookies.setdefault(person, opened.body.get("session", ""))
                given = {"code": f"{person}-{platform}", "state": query(opened["location"])["state"]}
                assert (await scene.procedure("finish_auth", given, cookie=cookies[person]))["page"] == "success"
        journeys = [(person, platform) for person in cookies for platform in ("sign-in", "sign-in-two")] * 250
        random.Random(7).shuffle(journeys)
        for start in range(0, len(journeys), 50):
            part = journeys[start : start + 50]
            calls = (scene.call(platform=platform, cookie=cookies[person]) for person, platform in part)
            assert {reply.status for reply in await asyncio.gather(*calls)} == {200}
        owners = {_owner(cookie): person for person, cookie in cookies.items()}
        seen: Counter[tuple[str, str, str]] = Counter()
        for call, token in mesh.tokens():
            assert call.principal is not None
            assert call.grant is not None
            assert call.grant.patient == token.partition("/")[0]
            seen[owners[call.principal.id], call.platform, call.grant.patient] += 1
        assert len(mesh.tokens()) == 1000
        assert seen == {
            (person, platform, f"{person}-{platform}"): 250
            for person in cookies
            for platform in ("sign-in", "sign-in-two")
        }


def _owner(cookie: str) -> str:
    return session_principal(handle_of(cookie))
