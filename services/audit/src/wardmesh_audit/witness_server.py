"""`wardmesh-audit witness`: the witness as its own process, with its own key and store; no bus, no database server."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web
from msgspec import Struct

from wardmesh_audit.cosignature import Cosigner
from wardmesh_audit.note import BadNote, Verifier, parse_vkey
from wardmesh_audit.settings import secret
from wardmesh_audit.witness import Answer, Witness, log_path
from wardmesh_audit.witness_store import WitnessStore
from wardmesh_common.settings import EXIT_CONFIGURATION, BadSettings, load
from wardmesh_common.telemetry import configure_logging

MAX_BODY = 64 * 1024

_log = logging.getLogger("wardmesh.witness")


class WitnessSettings(Struct, kw_only=True):
    """From WARDMESH_WITNESS_* variables. Whoever runs the ledger must not be the one who can read these."""

    witness_key: str = ""  # Ed25519 seed, base64url
    witness_name: str = "witness"
    witness_store: str = "witness.sqlite3"
    witness_logs: str = ""  # verifier keys of the logs, separated by spaces
    witness_host: str = "127.0.0.1"
    witness_port: int = 8010
    log_level: str = "INFO"
    log_json: bool = True

    def cosigner(self) -> Cosigner:
        try:
            return Cosigner(self.witness_name, secret("WARDMESH_WITNESS_KEY", self.witness_key))
        except BadNote:
            raise BadSettings("WARDMESH_WITNESS_NAME must not be empty or hold spaces or plus signs") from None

    def logs(self) -> list[Verifier]:
        try:
            logs = [parse_vkey(part) for part in self.witness_logs.split()]
        except BadNote:
            raise BadSettings("WARDMESH_WITNESS_LOGS holds something that is no verifier key") from None
        if not logs:
            raise BadSettings("WARDMESH_WITNESS_LOGS names no log")
        return logs


def application(witness: Witness, origins: list[str]) -> web.Application:
    places = {log_path(origin): origin for origin in origins}

    async def add(request: web.Request) -> web.Response:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _text(Answer(400, "too large\n"))
        return _text(await asyncio.to_thread(witness.add_checkpoint, body))

    async def newest(request: web.Request) -> web.Response:
        origin = places.get(request.path)
        note = await asyncio.to_thread(witness.latest, origin) if origin else None
        if note is None:
            return _text(Answer(404, "nothing cosigned\n"))
        return web.Response(text=note, headers={"Cache-Control": "no-store"})

    async def ready(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application(client_max_size=MAX_BODY)
    app.router.add_post("/add-checkpoint", add)
    app.router.add_get("/log/{place}/checkpoint", newest)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/livez", ready)
    return app


def alert(answer: Answer, origin: str) -> None:
    """A refusal is evidence: it is stored, and whoever watches the witness' log hears of it."""
    level = logging.CRITICAL if answer.signed else logging.WARNING
    _log.log(level, "refused %s with %d%s", answer.evidence, answer.status, f" for {origin}" if answer.signed else "")


def main(action: str, environ: Mapping[str, str]) -> int:
    """Prints the key, or serves until SIGTERM or SIGINT; returns the exit code."""
    try:
        settings = load(WitnessSettings, environ)
        cosigner = settings.cosigner()
        if action == "public-key":
            sys.stdout.write(f"{cosigner.key.vkey()}\n")
            return 0
        logs = settings.logs()
    except BadSettings as error:
        sys.stderr.write(f"wardmesh-audit witness: {error}\n")
        return EXIT_CONFIGURATION
    configure_logging("witness", settings.witness_name, settings.log_level, as_json=settings.log_json)
    store = WitnessStore(Path(settings.witness_store))
    app = application(Witness(store, logs, cosigner, alert=alert), [log.name for log in logs])
    try:
        return asyncio.run(_serve(app, settings, cosigner))
    finally:
        store.close()


async def _serve(app: web.Application, settings: WitnessSettings, cosigner: Cosigner) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.witness_host, settings.witness_port).start()
    except OSError as error:
        _log.error("port %d is not free: %s", settings.witness_port, error.strerror)
        return EXIT_CONFIGURATION
    else:
        _log.info("ready as %s", cosigner.key.vkey())
        await stop.wait()
        return 0
    finally:
        await runner.cleanup()


def _text(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, text=answer.body, content_type=answer.media_type)
