"""Composition root: from settings to a running FHIR face with health and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import signal

import uvicorn

from wardmesh_common.health import Health
from wardmesh_common.listening import Farewell, reserve
from wardmesh_common.quiet_server import QuietServer
from wardmesh_common.settings import BadSettings
from wardmesh_fhir_store.binaries import is_raw_upload
from wardmesh_fhir_store.datastores import Datastores
from wardmesh_fhir_store.feed.publisher import published
from wardmesh_fhir_store.front import Front
from wardmesh_fhir_store.jobs.wiring import Jobs
from wardmesh_fhir_store.migrate import DEFAULT_DATASTORE
from wardmesh_fhir_store.opening import Unusable, registry
from wardmesh_fhir_store.settings import StoreSettings
from wardmesh_fhir_store.smart_face import SmartFace
from wardmesh_fhir_store.wire import AsgiApp

_LOG = logging.getLogger("wardmesh.fhir-store")
EXIT_FAILURE = 1


def create_app(settings: StoreSettings, datastores: Datastores, jobs: Jobs) -> AsgiApp:
    """The default datastore answers at the base itself, every one under its id, and the default one to SMART tokens."""
    handle = Front(datastores.addresses, datastores, jobs.bulk).handle
    if settings.smart_issuer:
        handle = SmartFace(settings.smart, settings.smart_issuer, datastores, handle).handle
    return AsgiApp(jobs.control(handle).handle, settings.max_body_bytes, is_raw_upload)


async def serve(settings: StoreSettings) -> int:
    """Until SIGTERM or SIGINT: then not ready, requests finish, connections close."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    health = Health()
    try:
        await health.listen(settings.admin_host, settings.admin_port)
        async with registry(settings) as datastores:
            key = (await datastores.registered(DEFAULT_DATASTORE)).link_key
            jobs = Jobs(settings, datastores, key)
            async with jobs.running(), published(settings, key):
                await _answer(settings, create_app(settings, datastores, jobs), health, stop)
    except Unusable as error:
        _LOG.error("%s", error)
        return EXIT_FAILURE
    except (OSError, BadSettings) as error:
        _LOG.error("cannot start, a port is taken or the database is away: %s", type(error).__name__)
        return EXIT_FAILURE
    finally:
        await health.close()
    _LOG.info("stopped")
    return 0


async def _answer(settings: StoreSettings, app: AsgiApp, health: Health, stop: asyncio.Event) -> None:
    farewell = Farewell(app)
    server = _server(settings, farewell)
    sock = reserve(settings.host, settings.port, settings.listen_fds)
    running = asyncio.create_task(server.serve(sockets=[sock]))
    await _started(server, running)
    health.started = True
    _LOG.info("ready")
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait({waiting, running}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    health.draining = True
    await farewell.leave(server)
    server.should_exit = True
    await running


def _server(settings: StoreSettings, app: Farewell) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=int(settings.drain_seconds),
    )
    return QuietServer(config)


async def _started(server: uvicorn.Server, running: asyncio.Task[None]) -> None:
    """uvicorn tells only by a flag; it ends its task when the port is taken."""
    while not server.started:
        if running.done():
            running.result()
            raise OSError(98, "the port is not free")
        await asyncio.sleep(0.01)
