"""Probes platforms as a courteous stranger: metadata and SMART configuration, slowly, and says what answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
from msgspec import Struct

from wardmesh_fhir_proxy.descriptor import Descriptor, Verification

AT_ONCE = 4
PER_HOST_SECONDS = 1.0  # between two requests to one host
TIMEOUT_SECONDS = 10.0
MAX_BYTES = 8 * 1024 * 1024
USER_AGENT = "wardmesh-platform-check"


T = TypeVar("T", bound=Struct)


class Probe(Struct, frozen=True, kw_only=True):
    """What one platform answered. Status 0 = no answer; `smart` = it publishes a SMART configuration."""

    platform: str
    metadata_status: int
    fhir_version: str = ""
    smart: bool = False

    def verification(self, today: str) -> Verification:
        """`verified` means that something answered, no more (see the catalogue's rules)."""
        answered = 0 < self.metadata_status < 500
        return Verification(
            status="verified" if answered else "unverified",
            verified_on=today,
            metadata_status=self.metadata_status,
            fhir_version=self.fhir_version,
        )


class _Statement(Struct):
    resourceType: str = ""  # noqa: N815 - FHIR's name
    fhirVersion: str = ""  # noqa: N815


class _Configuration(Struct):
    authorization_endpoint: str = ""
    token_endpoint: str = ""


class Prober:
    """Few at once, one host at a time, one request a second and host; never a credential, never a redirect."""

    def __init__(self, http: aiohttp.ClientSession, *, per_host_seconds: float = PER_HOST_SECONDS) -> None:
        self._http = http
        self._pause = per_host_seconds
        self._places = asyncio.Semaphore(AT_ONCE)
        self._hosts: dict[str, tuple[asyncio.Lock, list[float]]] = {}

    async def all(self, descriptors: Iterable[Descriptor], told: Callable[[Probe], None]) -> list[Probe]:
        """One probe per platform that has an address; `told` hears each as it is done."""

        async def one(descriptor: Descriptor) -> Probe:
            probe = await self.probe(descriptor)
            told(probe)
            return probe

        return list(await asyncio.gather(*(one(each) for each in descriptors if each.bases.patient)))

    async def probe(self, descriptor: Descriptor) -> Probe:
        base = descriptor.bases.patient.rstrip("/")
        headers = {**descriptor.headers, "Accept": descriptor.accept, "User-Agent": USER_AGENT}
        status, body = await self._get(f"{base}/metadata", headers)
        version = _read(body, _Statement).fhirVersion if status == 200 else ""
        smart_status, document = await self._get(f"{base}/.well-known/smart-configuration", headers)
        smart = smart_status == 200 and bool(_read(document, _Configuration).token_endpoint)
        return Probe(platform=descriptor.id, metadata_status=status, fhir_version=version, smart=smart)

    async def _get(self, url: str, headers: dict[str, str]) -> tuple[int, bytes]:
        """Status and body; status 0 when nothing came."""
        lock, last = self._hosts.setdefault(urlsplit(url).netloc, (asyncio.Lock(), [float("-inf")]))
        async with lock, self._places:
            await asyncio.sleep(max(0.0, last[0] + self._pause - time.monotonic()))
            try:
                timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
                async with self._http.get(url, headers=headers, allow_redirects=False, timeout=timeout) as answer:
                    return answer.status, await answer.content.read(MAX_BYTES)
            except (aiohttp.ClientError, OSError, TimeoutError):
                return 0, b""
            finally:
                last[0] = time.monotonic()


def _read(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return kind()


def today() -> str:
    return datetime.now(UTC).date().isoformat()
