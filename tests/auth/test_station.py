"""The station on a real bus: who gets through to policy, as whom, and what is refused with which answer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import msgspec
import pytest

import engines
from auth.stage import SEAL_KEY, Stage, stage, until
from wardmesh_auth.grant_store import GrantKey
from wardmesh_auth.platform_token import PlatformToken
from wardmesh_common.questions import PlatformFacts
from wardmesh_common.token_seal import open_token
from wardmesh_common.tokens import principal_id
from wardmesh_common.vocabulary import Agent, Interaction, Principal, Resource

pytestmark = pytest.mark.anyio
GRANTED = {"access_token": "CANARY-PLATFORM-TOKEN", "token_type": "Bearer", "expires_in": 3600, "scope": "system/*.rs"}


@pytest.fixture
async def scene(postgres: engines.Postgres, nats: engines.Nats) -> AsyncIterator[Stage]:
    async with stage(postgres.url(), nats.url) as ready:
        ready.issuer.token_answer = GRANTED
        yield ready


@pytest.mark.requirement("OA-5")
async def test_a_bearer_becomes_a_principal_and_the_token_stays_behind(scene: Stage) -> None:
    token = scene.issuer.sign(roles=["Doctor"], fhirUser="Practitioner/dr-1")
    agent = Agent(id="cursor-agent-v1.0.0", source="meta")
    reply = await scene.call(bearer=token, agent=agent, user_agent="x/1")
    assert reply.status == 200
    (call,) = scene.decided
    assert call.principal == Principal(
        id=principal_id(scene.issuer.url, "demo_doctor"),
        roles=("Doctor",),
        practitioner="dr-1",
        scopes=("fhir.read",),
        client_id="cli",
        agent=msgspec.structs.replace(agent, did="did:web:localhost%3A8000:cursoragentv100"),
    )
    assert call.grant is not None
    assert (call.grant.platform, call.grant.sealed_token) == ("store", b"")
    assert (call.caller.bearer, call.caller.cookie, call.caller.user_agent) == ("", "", "x/1")


@pytest.mark.requirement("X-23")
async def test_without_a_role_claim_there_is_no_role(scene: Stage) -> None:
    await scene.call(bearer=scene.issuer.sign(role="admin", Roles=["admin"]))
    principal = scene.decided[0].principal
    assert principal is not None
    assert principal.roles == ()


async def test_a_bad_credential_is_refused_and_never_made_anonymous(scene: Stage) -> None:
    expired = scene.issuer.sign(exp=1)
    for credential in ({"bearer": expired}, {"bearer": "junk"}, {"cookie": "A" * 43}, {"cookie": "app_session=x; y"}):
        reply = await scene.call(platform="open", **credential)
        assert reply.status == 401
        assert reply.problem is not None
        assert reply.problem.code == "invalid_token"
    session = await scene.replicas[0].sessions.create(Principal(id="somebody"))
    reply = await scene.call(bearer=expired, cookie=session.secret)
    assert reply.status == 401, "a good cookie does not excuse a bad header"
    assert scene.decided == []
    assert all(not c.caller.bearer and not c.caller.cookie for c, _ in scene.records.outcomes)
    assert len(scene.records.outcomes) == 5


@pytest.mark.requirement("X-44")
async def test_without_a_credential_only_reads_of_open_platforms_go_on(scene: Stage) -> None:
    assert (await scene.call(platform="open")).status == 200
    assert (await scene.call(platform="open-sign-in")).status == 200
    assert [c.principal.id for c in scene.decided if c.principal] == ["anonymous", "anonymous"]
    for platform in ("store", "payer", "sign-in", "alias"):
        assert (await scene.call(platform=platform)).status == 401
    assert (await scene.call(platform="open", interaction=Interaction.CREATE)).status == 401
    assert scene.issuer.token_requests == [], "nobody's credentials are used for an anonymous call"


async def test_one_setting_turns_anonymous_use_off(postgres: engines.Postgres, nats: engines.Nats) -> None:
    async with stage(postgres.url(), nats.url, anonymous_open_platforms=False) as scene:
        assert (await scene.call(platform="open")).status == 401
        assert (await scene.call(platform="open", bearer=scene.issuer.sign())).status == 200


async def test_platforms_that_are_unknown_or_not_set_up_say_so(scene: Stage) -> None:
    bearer = scene.issuer.sign()
    expected = {
        "nowhere": (404, "platform_not_found"),
        "unset": (503, "platform_not_configured"),
        "sign-in": (401, "sign_in_required"),
        "sign-in-unset": (503, "platform_not_configured"),
    }
    for platform, (status, code) in expected.items():
        reply = await scene.call(platform=platform, bearer=bearer)
        assert reply.problem is not None
        assert (reply.status, reply.problem.code) == (status, code)
    recorded = [c.principal.id for c, _ in scene.records.outcomes if c.principal]
    assert recorded == [principal_id(scene.issuer.url, "demo_doctor")] * 4, "a refusal is recorded with its principal"
    assert (await scene.call(platform="open-sign-in", bearer=bearer)).status == 200
    assert (await scene.call(platform="alias", bearer=bearer)).status == 200
    assert (await scene.call(platform="", bearer=bearer)).status == 200


@pytest.mark.requirement("AR-6", "OA-5")
async def test_client_credentials_yield_a_token_that_only_this_call_can_open(scene: Stage) -> None:
    bearer = scene.issuer.sign()
    assert (await scene.call(platform="payer", bearer=bearer)).status == 200
    assert (await scene.call(platform="payer", bearer=bearer)).status == 200
    assert len(scene.issuer.token_requests) == 1
    asked = scene.issuer.token_requests[0]
    assert (asked["grant_type"], asked["scope"]) == ("client_credentials", "system/*.rs")
    assert asked["authorization"].startswith("Basic ")
    for call in scene.decided:
        assert call.grant is not None
        assert call.principal is not None
        assert b"CANARY" not in call.grant.sealed_token
        bound = {"call_id": call.id, "platform": "payer", "principal_id": call.principal.id}
        assert open_token(SEAL_KEY, call.grant.sealed_token, **bound) == "CANARY-PLATFORM-TOKEN"
        assert call.grant.scopes == ("system/*.rs",)


@pytest.mark.requirement("X-6")
async def test_the_scopes_of_a_grant_are_enforced_before_the_call_goes_on(scene: Stage) -> None:
    bearer = scene.issuer.sign()
    for interaction in (Interaction.CREATE, Interaction.DELETE, Interaction.TRANSACTION):
        reply = await scene.call(platform="payer", bearer=bearer, interaction=interaction)
        assert reply.problem is not None
        assert (reply.status, reply.problem.code) == (403, "insufficient_scope")
    assert scene.decided == []


@pytest.mark.requirement("X-6")
async def test_a_grant_without_smart_scopes_opens_nothing(scene: Stage) -> None:
    scene.issuer.token_answer = GRANTED | {"scope": ""}
    reply = await scene.call(platform="payer", bearer=scene.issuer.sign())
    assert reply.status == 403


async def test_smart_scopes_in_the_callers_own_token_narrow_it(scene: Stage) -> None:
    bearer = scene.issuer.sign(scope="fhir.read user/Observation.rs")
    assert (await scene.call(bearer=bearer, resource=Resource(type="Observation", id="1"))).status == 200
    reply = await scene.call(bearer=bearer, resource=Resource(type="Patient", id="1"))
    assert reply.problem is not None
    assert (reply.status, reply.problem.scope) == (403, "user/Patient.r")


@pytest.mark.requirement("X-19")
async def test_two_agents_on_one_token_keep_their_own_names(scene: Stage) -> None:
    bearer = scene.issuer.sign()
    for name in ("claude-agent-v1", "cursor-agent-v2", "claude-agent-v1"):
        await scene.call(bearer=bearer, agent=Agent(id=name))
    assert [c.principal.agent.id for c in scene.decided if c.principal] == [
        "claude-agent-v1",
        "cursor-agent-v2",
        "claude-agent-v1",
    ]


async def test_an_agent_that_is_not_its_client_is_flagged_not_believed(
    postgres: engines.Postgres, nats: engines.Nats
) -> None:
    async with stage(postgres.url(), nats.url, client_agents={"cli": "claude"}) as scene:
        for agent, client in (("claude-agent-v1", "cli"), ("cursor-agent-v1", "cli"), ("cursor-agent-v1", "other")):
            await scene.call(bearer=scene.issuer.sign(client_id=client), agent=Agent(id=agent))
        assert [c.principal.agent_mismatch for c in scene.decided if c.principal] == [False, True, False]


async def test_roles_come_through_the_configured_claims_and_map(postgres: engines.Postgres, nats: engines.Nats) -> None:
    options = {
        "role_claims": ("groups", "realm_access.roles", "https://acme.example/roles"),
        "role_map": {"/clinic/doctors": ("Doctor", "practitioner"), "r-nurse": ("Nurse",)},
    }
    async with stage(postgres.url(), nats.url, **options) as scene:
        token = scene.issuer.sign(
            roles=["Admin"],
            groups=["/clinic/doctors", "Admin", 7],
            realm_access={"roles": ["r-nurse", "admin"]},
        )
        await scene.call(bearer=token)
        principal = scene.decided[0].principal
        assert principal is not None
        assert principal.roles == ("Doctor", "practitioner", "Nurse")


async def test_a_changed_catalogue_counts_without_a_restart(scene: Stage) -> None:
    bearer = scene.issuer.sign()
    assert (await scene.call(platform="new", bearer=bearer)).status == 404
    await scene.change_catalogue(PlatformFacts(id="new", name="New", type="ehr"))
    known = scene.replicas[0].platforms
    await until(lambda: {facts.id for facts in known.all()} == {"new"})
    assert (await scene.call(platform="new", bearer=bearer)).status == 200


@pytest.mark.requirement("OA-9")
async def test_a_revoked_token_and_a_revoked_principal_are_refused_at_once(scene: Stage) -> None:
    app = scene.replicas[0]
    token, other = scene.issuer.sign(), scene.issuer.sign(sub="nurse")
    digest = (await app.verifier.verify(token)).digest
    assert (await scene.call(bearer=token)).status == 200
    await app.revoke_token(digest)
    assert (await scene.call(bearer=token)).status == 401
    assert (await scene.call(bearer=other)).status == 200
    await app.sessions.revoke_principal(principal_id(scene.issuer.url, "nurse"))
    assert (await scene.call(bearer=other)).status == 401


async def test_a_session_uses_the_grant_of_its_own_principal(scene: Stage) -> None:
    app = scene.replicas[0]
    assert app.store is not None
    now = time.time()
    token = PlatformToken(
        access_token="mine", scopes=("patient/*.read",), patient="p9", issued_at=now, expires_at=now + 900
    )
    key = GrantKey("default", "i:me", "sign-in")
    async with app.store.exclusively(key) as connection:
        await app.store.write(connection, key, token)
    mine = await app.sessions.create(Principal(id="i:me"))
    other = await app.sessions.create(Principal(id="i:you"))
    assert (await scene.call(platform="sign-in", cookie=mine.secret)).status == 200
    (call,) = scene.decided
    assert call.grant is not None
    bound = {"call_id": call.id, "platform": "sign-in", "principal_id": "i:me"}
    assert open_token(SEAL_KEY, call.grant.sealed_token, **bound) == "mine"
    assert call.grant.patient == "p9"
    refused = await scene.call(platform="sign-in", cookie=other.secret)
    assert refused.problem is not None
    assert (refused.status, refused.problem.code) == (401, "sign_in_required")
    write = await scene.call(platform="sign-in", cookie=mine.secret, interaction=Interaction.UPDATE)
    assert write.status == 403
