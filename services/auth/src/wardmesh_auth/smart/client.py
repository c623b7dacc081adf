"""The SMART client: one object that signs in at every platform; what differs is data in the platform's facts."""

from __future__ import annotations

from typing import Any

from wardmesh_auth.platform_token import PlatformToken
from wardmesh_auth.settings import PlatformClient
from wardmesh_auth.smart.client_keys import ClientKeys
from wardmesh_auth.smart.discovery import Discovery
from wardmesh_auth.smart.wire import Wire
from wardmesh_common.questions import PlatformFacts


class SmartClient:
    """Keeps nothing of a sign-in: state, verifier and nonce come from the caller, tokens go back to it."""

    def __init__(self, discovery: Discovery, wire: Wire, keys: ClientKeys) -> None:
        self._discovery, self._wire, self._keys = discovery, wire, keys

    async def authorization(
        self,
        facts: PlatformFacts,
        client: PlatformClient,
        *,
        redirect_uri: str,
        state: str,
        verifier: str,
        nonce: str,
        scopes: tuple[str, ...] = (),
        launch: str = "",
        iss: str = "",
    ) -> str:
        raise NotImplementedError

    async def exchange(
        self,
        facts: PlatformFacts,
        client: PlatformClient,
        *,
        code: str,
        verifier: str,
        redirect_uri: str,
        nonce: str,
        iss: str = "",
    ) -> PlatformToken:
        raise NotImplementedError

    async def refresh(self, facts: PlatformFacts, client: PlatformClient, token: PlatformToken) -> PlatformToken:
        raise NotImplementedError

    async def backend(
        self, facts: PlatformFacts, client: PlatformClient, scopes: tuple[str, ...] = ()
    ) -> PlatformToken:
        raise NotImplementedError

    async def revoke(self, facts: PlatformFacts, client: PlatformClient, token: PlatformToken) -> bool:
        raise NotImplementedError

    async def introspect(self, facts: PlatformFacts, client: PlatformClient, access_token: str) -> dict[str, Any]:
        raise NotImplementedError
