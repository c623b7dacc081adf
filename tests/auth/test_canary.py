"""No credential, token or secret in any log line, error, record, hand-on or database dump (AR-8, X-35)."""

from __future__ import annotations

import base64
import logging
import subprocess

import pytest

import engines
from auth.stage import CLIENT, MASTER_KEY, SEAL_KEY, stage
from wardmesh_cli.binaries import Binaries
from wardmesh_common.contracts import encode
from wardmesh_common.vocabulary import Interaction, Principal

pytestmark = pytest.mark.anyio
ANSWER = {
    "access_token": "CANARY-PLATFORM-TOKEN",
    "refresh_token": "CANARY-REFRESH",
    "expires_in": 3600,
    "scope": "system/*.rs",
}


def dump(database: engines.Postgres) -> bytes:
    command = [str(Binaries().postgres_bin() / "pg_dump"), "--inserts", database.url()]
    return subprocess.run(command, capture_output=True, check=True, timeout=30).stdout


@pytest.mark.requirement("X-35")
async def test_no_secret_leaves_auth_in_the_clear(nats: engines.Nats, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with engines.postgres("auth", durable=True) as database:
        async with stage(database.url(), nats.url) as scene:
            fake = scene.issuer
            fake.token_answer = ANSWER
            good, bad = fake.sign(), fake.sign(iss="https://evil.example")
            session = await scene.replicas[0].sessions.create(Principal(id="i:me", roles=("Doctor",)))
            replies = [
                await scene.call(platform="payer", bearer=good),
                await scene.call(platform="payer", bearer=good, interaction=Interaction.CREATE),
                await scene.call(platform="payer", bearer=bad),
                await scene.call(cookie=session.secret),
                await scene.call(cookie=session.secret[:-1] + "~"),
                await scene.call(platform="sign-in", bearer=good),
            ]
            await scene.replicas[0].sessions.revoke(session.handle)
            fake.token_status = 401
            scene.replicas[0].tokens._cache.drop_keys(lambda _: True)
            async with scene.replicas[0].database.transaction() as connection:
                await connection.exec_driver_sql("UPDATE auth.platform_grant SET sealed = 'x'")
            replies.append(await scene.call(platform="payer", bearer=good))
            database_text = dump(database)
            log_of_postgres = database.log().encode()
            handed_on = b"".join(encode(c) for c in scene.decided)
            recorded = b"".join(encode(c) + encode(o) for c, o in scene.records.outcomes)
            database.kill()
            replies.append(await scene.call(cookie="B" * 43))
    assert [r.status for r in replies] == [200, 403, 401, 200, 401, 401, 503, 503]
    assert "no token from platform payer" in caplog.text
    assert b"auth.session" in database_text
    assert b"auth.platform_grant" in database_text
    told = caplog.text.encode() + repr(replies).encode()
    everywhere = told + handed_on + recorded + database_text + log_of_postgres
    secrets = [good, bad, session.secret, *CLIENT.values(), *map(str, ANSWER.values())]
    secrets += [good.split(".")[1], good.split(".")[2], "CANARY"]
    secrets.append(base64.b64encode(b"our-client:CANARY-CLIENT-SECRET").decode())  # as HTTP Basic carries it
    secrets += [base64.b64encode(SEAL_KEY).decode()[:40], MASTER_KEY]
    for secret in secrets:
        if secret not in ("our-client", "our-public-client", "3600", "system/*.rs"):
            assert secret.encode() not in everywhere, f"leaked: {secret[:12]}"
