"""How a service starts and ends: settings, logs, bus, recorder, its own application, health, and an orderly drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

import uvloop
from nats.errors import Error as NatsError

from wardmesh_common.bus import Bus
from wardmesh_common.health import Health
from wardmesh_common.recorder import Recorder, open_recorder
from wardmesh_common.reloading import Code, begin_anew, folders_of
from wardmesh_common.settings import EXIT_CONFIGURATION, BadSettings, BusSettings
from wardmesh_common.telemetry import Telemetry, configure_logging

S = TypeVar("S", bound=BusSettings)
# New objects between two looks for cycles.
COLLECT_EVERY = 20_000
_ANEW = -1  # instead of an exit code: stopped in order because the code has changed
CreateApp = Callable[[S, Bus, Health], AbstractAsyncContextManager[None]]


def run(service: str, read_settings: Callable[[], S], create_app: CreateApp[S]) -> int:
    """Run one service until SIGTERM or SIGINT; returns the exit code. Never raises for a configuration fault."""
    try:
        settings = read_settings()
    except BadSettings as error:
        sys.stderr.write(f"wardmesh-{service}: {error}\n")
        return EXIT_CONFIGURATION
    configure_logging(service, service, settings.log_level, as_json=settings.log_json)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(_serve(service, settings, create_app))
    if code == _ANEW:
        begin_anew()
    return code


class _Ending:
    """SIGTERM and SIGINT: noticed at once while the service runs, and also while it is still starting.

    While debugging also a change of its code, from its start on.
    """

    def __init__(self, code: Code | None) -> None:
        self.code = code
        self.asked = asyncio.Event()
        self.starting = False
        self.anew = False
        self._task = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._ask)

    def _ask(self) -> None:
        self.asked.set()
        if self.starting and self._task is not None:
            self._task.cancel()


async def _serve(service: str, settings: S, create_app: CreateApp[S]) -> int:
    log = logging.getLogger(f"wardmesh.{service}")
    ending = _Ending(Code(folders_of(service)) if settings.debug else None)
    health = Health()
    try:
        await health.listen(settings.admin_host, settings.admin_port)
    except OSError as error:
        log.error("the admin port %d is not free: %s", settings.admin_port, error.strerror)
        return EXIT_CONFIGURATION
    telemetry = Telemetry(service, os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""))
    bus = await _connect(service, settings, telemetry, ending.asked, log)
    if bus is None:
        await health.close()
        return 0
    health.checks["bus"] = lambda: (bus.connected, "connected" if bus.connected else "away")
    bus.recorder = recorder = _recorder(settings, bus)
    spools = asyncio.create_task(recorder.resume_spools())
    ending.starting = True
    try:
        async with create_app(settings, bus, health):
            ending.starting = False
            await _work(settings, bus, health, ending, log)
    except BadSettings as error:
        log.error("%s", error)
        return EXIT_CONFIGURATION
    except asyncio.CancelledError:
        if not ending.asked.is_set():
            raise
    finally:
        ending.starting = False
        spools.cancel()
        await asyncio.gather(spools, return_exceptions=True)
        await recorder.close()
        await bus.close()
        telemetry.close()
        await health.close()
    log.info("stopped")
    return _ANEW if ending.anew else 0


def _recorder(settings: BusSettings, bus: Bus) -> Recorder:
    return open_recorder(
        bus,
        logs=settings.audit_logs,
        spool_dir=Path(settings.audit_spool_dir) if settings.audit_spool_dir else None,
        deadline_seconds=settings.audit_deadline_seconds,
    )


async def _work(settings: BusSettings, bus: Bus, health: Health, ending: _Ending, log: logging.Logger) -> None:
    """Ready until told to stop, then no new work and the rest to its end."""
    _tame_collector()
    health.started = True
    log.info("ready")
    await _end(ending, log)
    log.info("draining")
    health.draining = True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(settings.drain_seconds):
            await bus.drain()


async def _end(ending: _Ending, log: logging.Logger) -> None:
    """Until somebody asks for it or, while debugging, until the code is another."""
    if ending.code is None:
        await ending.asked.wait()
        return
    waiting = [asyncio.create_task(work) for work in (_asked(ending), ending.code.changed())]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    if not ending.asked.is_set():
        log.info("the code has changed")
        ending.anew = True


async def _asked(ending: _Ending) -> None:
    await ending.asked.wait()


def _tame_collector() -> None:
    """Modules and settings live as long as the process: the collector need not walk them again and again.

    Almost everything a call makes is freed by its reference count. Looking for cycles every 700 new objects, and at
    all objects every hundredth time, was 10 to 25 % of the CPU of a busy service; this way it is below 2 %.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY, 10, 10)


async def _connect(
    service: str, settings: BusSettings, telemetry: Telemetry, stop: asyncio.Event, log: logging.Logger
) -> Bus | None:
    """The broker may come up after us: keep trying until it is there or we are told to stop."""
    while not stop.is_set():
        try:
            return await Bus.connect(service, settings.nats_url, settings.nats_seed, telemetry)
        except (NatsError, OSError) as error:
            log.warning("waiting for the bus: %s", type(error).__name__)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await stop.wait()
    return None
