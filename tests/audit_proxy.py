"""The installed fhir-proxy between stand-ins for its neighbours: its records and what it asks the platform are real."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

from audit_world import Keys
from engines import answers, free_port
from mesh.platform_server import Platform
from wardmesh_common.bus import Bus
from wardmesh_common.contracts import ASK_KEY, DECIDE, Call, encode, perform_subject
from wardmesh_common.questions import Ask, KeyAnswer, KeyQuestion
from wardmesh_common.station import Hop
from wardmesh_common.vocabulary import Decision, Emergency, Obligations

COMMAND = str(Path(sys.executable).with_name("wardmesh-fhir-proxy"))
KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()


def emergency(patient: str) -> Emergency:
    return Emergency(
        id="e1", platform="own", patient=patient, reason_code="unconscious", reason="came without papers", expires=0
    )


@contextlib.contextmanager
def proxy(url: str, folder: Path, platform: Platform, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Ready when the block begins, gone when it ends."""
    descriptor = {"id": "own", "name": "Own", "type": "sandbox", "bases": {"patient": platform.url}, "writes": True}
    (folder / "own.yaml").write_text(json.dumps(descriptor))
    port = free_port()
    environ = {
        "PATH": os.environ["PATH"],
        "WARDMESH_NATS_URL": url,
        "WARDMESH_ADMIN_PORT": str(port),
        "WARDMESH_TOKEN_SEAL_KEY": KEY,
        "WARDMESH_CURSOR_KEYS": json.dumps([KEY]),
        "WARDMESH_PLATFORMS_DIR": str(folder),
        **settings,
    }
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([COMMAND], env=environ, stdout=log, stderr=log)
    try:
        limit = time.monotonic() + 90
        while not answers(f"http://127.0.0.1:{port}/readyz"):
            assert process.poll() is None and time.monotonic() < limit, (folder / "log").read_text()
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait(10)


@contextlib.asynccontextmanager
async def stations(url: str) -> AsyncGenerator[Bus]:
    """Stand-ins for what is around fhir-proxy: auth and policy have let the call through, audit lends keys."""
    keys = Keys()

    async def decide(call: Call, _hop: Hop) -> Call:
        duties = Obligations(spool=call.emergency is not None)
        call.decision = Decision(
            id="d",
            allowed=True,
            reason="r",
            policy_version="1",
            covers=call.digest(),
            expires=time.time() + 60,
            obligations=duties,
        )
        return call

    async def lend(question: KeyQuestion, _ask: Ask) -> KeyAnswer:
        return await keys.lend(question)

    async with contextlib.AsyncExitStack() as stack:
        buses: dict[str, Bus] = {}
        for service in ("auth", "policy", "audit"):
            buses[service] = await Bus.connect(service, url, "")
            buses[service].recorder = Unused()
            stack.push_async_callback(buses[service].close)
        await buses["policy"].station(DECIDE, decide, onward=perform_subject("fhir"))
        await buses["audit"].answer(ASK_KEY, KeyQuestion, lend)
        yield buses["auth"]


class Unused:
    """No station of this test but fhir-proxy ends a call."""

    async def intent(self, *_: Any) -> None:
        raise AssertionError

    outcome = status = intent


def put_in(bus: Bus, call: Call) -> Call:
    """Sends the call on its way as auth does."""
    call.platform, call.sent_at, call.remaining_ms = "own", time.time(), 20_000
    call.reply_to = f"{bus.nc.inbox}.w.c"
    bus.nc.lean_publish(DECIDE, encode(call), reply=f"{bus.nc.inbox}.w.n.{call.id}")
    return call
