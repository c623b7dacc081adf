"""Auth does all its work with exactly the rights that deploy/nats gives it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import nkeys
import pytest

import engines
from auth.stage import stage, until
from wardmesh_common.contracts import USERS
from wardmesh_common.questions import PlatformFacts
from wardmesh_common.vocabulary import Principal

pytestmark = pytest.mark.anyio
CONF = Path(__file__).resolve().parents[2] / "deploy" / "nats" / "nats.conf"


async def test_nothing_that_auth_does_is_refused_by_the_broker(
    postgres: engines.Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "wardmesh")
    environ = {"WARDMESH_NATS_HOST": "127.0.0.1", "WARDMESH_NATS_MONITOR": "127.0.0.1:-1"}
    seeds: dict[str, str] = {}
    for user in USERS:
        seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
        seeds[user] = seed.decode()
        public = nkeys.from_seed(seed).public_key.decode()
        environ[f"WARDMESH_NKEY_{user.upper().replace('-', '_')}"] = public
    with engines.nats(CONF.read_text(), environ) as broker:
        async with stage(postgres.url(), broker.url, replicas=2, seeds=seeds) as scene:
            one, two = scene.replicas
            assert (await scene.call(bearer=scene.issuer.sign())).status == 200
            assert (await scene.call(bearer="junk")).status == 401
            made = await one.sessions.create(Principal(id="i:me"))
            assert (await scene.call(cookie=made.secret)).status == 200
            await one.sessions.revoke(made.handle)
            await until(lambda: two.revocations._ends, 10)  # sooner than replicas look by themselves
            await scene.change_catalogue(*scene.catalogue, PlatformFacts(id="new", name="New", type="ehr"))
            await until(lambda: "new" in {facts.id for facts in two.platforms.all()})
    assert "permission" not in caplog.text.lower()
