"""Discovery by the NATS micro convention, so that `nats micro ls` shows the mesh (NB-17, ADR-32)."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from wardmesh_common.lean import LeanClient, NotConnected

PREFIX = "io.nats.micro.v1"


class Discovery:
    """Answers $SRV.PING, INFO and STATS for one replica."""

    def __init__(self, nc: LeanClient, service: str, instance: str, in_flight: Callable[[], int]) -> None:
        self._nc = nc
        self._service = service
        self._instance = instance
        self._in_flight = in_flight
        self._started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    async def start(self) -> None:
        for verb in ("PING", "INFO", "STATS"):
            for scope in ("", f".{self._service}", f".{self._service}.{self._instance}"):
                self._nc.lean_subscribe(f"$SRV.{verb}{scope}", self._on_question)

    def _on_question(self, subject: bytes, reply: bytes, _data: bytes, _header: bytes | None) -> None:
        verb = subject.split(b".")[1].decode()
        if reply:
            with contextlib.suppress(NotConnected):
                self._nc.lean_publish(reply.decode(), json.dumps(self._answer(verb)).encode())

    def _answer(self, verb: str) -> dict[str, object]:
        about: dict[str, object] = {
            "type": f"{PREFIX}.{verb.lower()}_response",
            "name": self._service,
            "id": self._instance,
            "version": _version(self._service),
            "metadata": {},
        }
        if verb == "INFO":
            about |= {"description": f"wardmesh {self._service}", "endpoints": []}
        elif verb == "STATS":
            about |= {"started": self._started, "endpoints": [], "data": {"in_flight": self._in_flight()}}
        return about


def _version(service: str) -> str:
    with contextlib.suppress(PackageNotFoundError):
        return version(f"wardmesh-{service}")
    return "0.0.0"
