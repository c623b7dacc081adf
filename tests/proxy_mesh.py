"""fhir-proxy as it runs, on a real broker, between stand-ins for auth and policy."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from wardmesh_common.bus import Bus
from wardmesh_common.contracts import ASK_KINDS, DECIDE, IDENTIFY, Call, Outcome, Touched, perform_subject
from wardmesh_common.health import Health
from wardmesh_common.questions import Ask, KindsAnswer, KindsQuestion, KindVerdict
from wardmesh_common.station import Hop
from wardmesh_common.submission import Delivery
from wardmesh_common.token_seal import seal_token
from wardmesh_common.vocabulary import Decision, Face, Grant, Interaction, Obligations, Principal, Resource
from wardmesh_fhir_proxy import settings
from wardmesh_fhir_proxy.app import create_app

SEAL_KEY = bytes(range(32, 64))
ENVIRON = {
    "WARDMESH_TOKEN_SEAL_KEY": base64.urlsafe_b64encode(SEAL_KEY).decode(),
    "WARDMESH_CURSOR_KEYS": f'["{base64.urlsafe_b64encode(bytes(32)).decode()}"]',
}


class Records:
    """Stands in for the recorder; remembers the order of things."""

    def __init__(self, upstream: Any) -> None:
        self.upstream = upstream
        self.outcomes: list[Outcome] = []
        self.requests_at_intent: list[int] = []

    async def intent(self, call: Call, touched: tuple[Touched, ...]) -> None:
        self.requests_at_intent.append(len(self.upstream.requests))

    async def outcome(self, call: Call, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


class Mesh:
    def __init__(self, gateway: Bus, records: Records) -> None:
        self.gateway = gateway
        self.records = records
        self.duties = Obligations()
        self.kinds: dict[str, Obligations] = {}

    async def identify(self, call: Call, hop: Hop) -> Call:
        call.principal = Principal(id="p1", roles=("Doctor",))
        sealed = seal_token(SEAL_KEY, "platform-token", call_id=call.id, platform=call.platform, principal_id="p1")
        call.grant = Grant(platform=call.platform, sealed_token=sealed)
        return call

    def decision(self, covers: str, duties: Obligations, *, allowed: bool = True) -> Decision:
        return Decision(
            id="d",
            allowed=allowed,
            reason="r",
            policy_version="1",
            covers=covers,
            expires=time.time() + 30,
            obligations=duties,
        )

    async def decide(self, call: Call, hop: Hop) -> Call:
        call.decision = self.decision(call.digest(), self.duties)
        return call

    async def check_kinds(self, question: KindsQuestion, ask: Ask) -> KindsAnswer:
        return KindsAnswer(
            verdicts=tuple(
                KindVerdict(
                    kind=k, decision=self.decision("", self.kinds.get(k, Obligations()), allowed=k in self.kinds)
                )
                for k in question.kinds
            )
        )

    async def read(self, interaction: str, kind: str, identity: str = "", **more: Any) -> tuple[Any, bytes]:
        delivery = await self.send(interaction, kind, identity, **more)
        return delivery.reply, await delivery.body()

    async def send(self, interaction: str, kind: str, identity: str = "", **more: Any) -> Delivery:
        call = Call(
            id=os.urandom(8).hex(),
            reply_to="",
            face=Face.FHIR,
            tool=interaction,
            interaction=Interaction(interaction),
            platform="probe",
            deadline=time.time() + 10,
            resource=Resource(type=kind, id=identity),
            base_url="http://gateway.example/fhir/probe",
            **more,
        )
        return await self.gateway.submit(call, more.get("body"))


@asynccontextmanager
async def proxy_mesh(upstream: Any, folder: Path, nats_url: str) -> AsyncIterator[Mesh]:
    descriptor = {"id": "probe", "name": "P", "type": "sandbox", "bases": {"patient": upstream.base}, "writes": True}
    (folder / "probe.yaml").write_bytes(msgspec.json.encode(descriptor))
    read = settings.read({**ENVIRON, "WARDMESH_PLATFORMS_DIR": str(folder)})
    async with AsyncExitStack() as stack:
        buses: dict[str, Bus] = {}
        for service in ("gateway", "auth", "policy", "fhir-proxy"):
            buses[service] = await Bus.connect(service, nats_url, "")
            stack.push_async_callback(buses[service].close)
            buses[service].recorder = Records(upstream)
        records = buses["fhir-proxy"].recorder
        assert isinstance(records, Records)
        made = Mesh(buses["gateway"], records)
        await buses["auth"].station(IDENTIFY, made.identify, onward=DECIDE)
        await buses["policy"].station(DECIDE, made.decide, onward=perform_subject("fhir"))
        await buses["policy"].answer(ASK_KINDS, KindsQuestion, made.check_kinds)
        await stack.enter_async_context(create_app(read, buses["fhir-proxy"], Health()))
        yield made
