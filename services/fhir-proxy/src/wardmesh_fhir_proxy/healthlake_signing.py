"""Requests to AWS are signed where others get a bearer token: SigV4, anew for every attempt (HL-16, HL-17)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

import msgspec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from wardmesh_common.errors import PlatformUnconfigured
from wardmesh_fhir_proxy.descriptor import Descriptor
from wardmesh_fhir_proxy.upstream import UpstreamRequest

SERVICE = "healthlake"
FRESH_SECONDS = 60.0  # credentials of a role end; botocore renews them when they are read again
NOT_CONFIGURED = "No AWS credentials are configured for this platform."

ReadCredentials = Callable[[], ReadOnlyCredentials | None]


class Signs(Protocol):
    """What Exchanges needs: the request as it may be sent to this platform."""

    async def sign(self, descriptor: Descriptor, request: UpstreamRequest) -> UpstreamRequest: ...


class Signer:
    """Leaves requests to every other platform as they are."""

    def __init__(self, read: ReadCredentials, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._held: tuple[float, ReadOnlyCredentials] | None = None

    async def sign(self, descriptor: Descriptor, request: UpstreamRequest) -> UpstreamRequest:
        """Raises PlatformUnconfigured when there are no credentials."""
        section = descriptor.healthlake
        if section.signing != "sigv4":
            return request
        return signed(request, await self._credentials(), section.region)

    async def _credentials(self) -> ReadOnlyCredentials:
        now = self._clock()
        if self._held is None or self._held[0] <= now:
            # May read files or ask the machine's metadata service.
            found = await asyncio.to_thread(self._read)
            if found is None:
                raise PlatformUnconfigured(NOT_CONFIGURED)
            self._held = now + FRESH_SECONDS, found
        return self._held[1]


def signed(request: UpstreamRequest, credentials: ReadOnlyCredentials, region: str) -> UpstreamRequest:
    """The same request with the headers of AWS Signature Version 4."""
    kept = {name: value for name, value in request.headers.items() if name != "Authorization"}
    kept["Host"] = urlsplit(request.url).netloc
    draft = AWSRequest(method=request.method, url=request.url, data=request.body, headers=kept)
    SigV4Auth(credentials, SERVICE, region).add_auth(draft)
    return msgspec.structs.replace(request, headers=dict(draft.headers.items()))


def aws_environment(profile: str) -> ReadCredentials:
    """The usual places: variables, shared files with this profile, the role of the machine."""

    def read() -> ReadOnlyCredentials | None:
        try:
            found = Session(profile=profile or None).get_credentials()
            return found.get_frozen_credentials() if found is not None else None
        except BotoCoreError:
            return None  # its text may name files and accounts

    return read
