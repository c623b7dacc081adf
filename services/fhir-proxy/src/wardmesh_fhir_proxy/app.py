"""Composition root: catalogue, transport and performer wired to the bus."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from wardmesh_common.bus import Bus
from wardmesh_common.contracts import (
    ASK_CATALOGUE,
    ASK_DIRECTORY,
    ASK_KINDS,
    ASK_ORGANISATION,
    ASK_RENEWAL,
    EVENT_CATALOGUE_CHANGED,
    Call,
    Outcome,
    Touched,
    perform_subject,
)
from wardmesh_common.ending import ended
from wardmesh_common.health import Health
from wardmesh_common.questions import (
    CatalogueQuestion,
    Changed,
    DirectoryQuestion,
    KindsAnswer,
    KindsQuestion,
    OrganisationQuestion,
    RenewalAnswer,
    RenewalQuestion,
)
from wardmesh_common.settings import BadSettings
from wardmesh_common.token_seal import open_token
from wardmesh_fhir_proxy import catalogue
from wardmesh_fhir_proxy.cursors import Cursors
from wardmesh_fhir_proxy.exchange import Exchanges
from wardmesh_fhir_proxy.finding import Finder
from wardmesh_fhir_proxy.healthlake_client import ControlPlane
from wardmesh_fhir_proxy.healthlake_desk import ControlDesk
from wardmesh_fhir_proxy.healthlake_hapi import Hapi
from wardmesh_fhir_proxy.healthlake_hapi_server import HapiServer
from wardmesh_fhir_proxy.healthlake_model import Model
from wardmesh_fhir_proxy.healthlake_signing import Signer, aws_environment
from wardmesh_fhir_proxy.kinds import AskKinds
from wardmesh_fhir_proxy.performer import Hop, OpenToken, Performer, RecordIntent, RenewToken
from wardmesh_fhir_proxy.platforms_dir import PlatformFileInvalid
from wardmesh_fhir_proxy.settings import Settings, key_of
from wardmesh_fhir_proxy.upstream import Transport

RENEWAL_SECONDS = 12.0  # the token endpoint of a platform takes its time; the call's own deadline holds as well


@asynccontextmanager
async def create_app(settings: Settings, bus: Bus, health: Health) -> AsyncGenerator[None]:
    platforms = read_platforms(settings)
    health.checks["catalogue"] = lambda: (True, f"{len(platforms.descriptors)} platforms")
    transport = Transport(max_answer_bytes=settings.max_answer_bytes)
    exchanges = Exchanges(transport, Signer(aws_environment(settings.aws_profile)))
    model = Model()
    seal_key = key_of("WARDMESH_TOKEN_SEAL_KEY", settings.token_seal_key)
    performer = Performer(
        platforms,
        exchanges,
        Cursors([key_of("WARDMESH_CURSOR_KEYS", key) for key in settings.cursor_keys]),
        token_opener(seal_key),
        kinds_asker(bus),
        intent_recorder(bus),
        token_renewer(bus, seal_key),
        ControlDesk({"healthlake": ControlPlane(exchanges, model), "hapi": Hapi(HapiServer(exchanges), model)}),
    )
    wake = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, wake.set)

    async def tell(version: str) -> None:
        await bus.tell(EVENT_CATALOGUE_CHANGED, Changed(version=version))

    async def perform(call: Call, hop: Hop) -> Outcome:
        return await performer.perform(call, hop)

    watching = asyncio.create_task(catalogue.watch(platforms, tell, wake))
    try:
        await bus.answer(ASK_CATALOGUE, CatalogueQuestion, platforms.answer)
        await bus.answer(ASK_ORGANISATION, OrganisationQuestion, platforms.organisation)
        await bus.answer(ASK_DIRECTORY, DirectoryQuestion, Finder(platforms).answer)
        await bus.station(perform_subject("fhir"), perform, limit=settings.call_limit)
        await tell(platforms.version)
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        await ended(watching)
        await transport.close()


def read_platforms(settings: Settings) -> catalogue.Platforms:
    try:
        return catalogue.Platforms(
            Path(settings.platforms_dir) if settings.platforms_dir else None,
            region=settings.datastore_region,
            read_only_datastores=settings.datastores_read_only,
        )
    except PlatformFileInvalid as error:
        raise BadSettings(f"WARDMESH_PLATFORMS_DIR: {error}") from error


def token_opener(key: bytes) -> OpenToken:
    """The only place where a platform token is in the clear."""

    def opened(call: Call) -> str:
        if call.grant is None or not call.grant.sealed_token or call.principal is None:
            return ""
        return open_token(
            key,
            call.grant.sealed_token,
            call_id=call.id,
            platform=call.platform,
            principal_id=call.principal.id,
        )

    return opened


def token_renewer(bus: Bus, key: bytes) -> RenewToken:
    async def renewed(call: Call) -> str:
        assert call.grant is not None and call.principal is not None, "only a call with a token gets a new one"
        question = RenewalQuestion(
            call_id=call.id,
            platform=call.platform,
            tenant=call.principal.tenant,
            principal_id=call.principal.id,
            sealed_token=call.grant.sealed_token,
        )
        answer = await bus.ask(ASK_RENEWAL, question, RenewalAnswer, timeout_seconds=RENEWAL_SECONDS)
        return open_token(
            key, answer.sealed_token, call_id=call.id, platform=call.platform, principal_id=call.principal.id
        )

    return renewed


def kinds_asker(bus: Bus) -> AskKinds:
    async def ask(question: KindsQuestion) -> KindsAnswer:
        return await bus.ask(ASK_KINDS, question, KindsAnswer, principal=question.principal)

    return ask


def intent_recorder(bus: Bus) -> RecordIntent:
    async def record(call: Call, touched: tuple[Touched, ...]) -> None:
        assert bus.recorder is not None, "the service sets the recorder before the application"
        await bus.recorder.intent(call, touched)

    return record
