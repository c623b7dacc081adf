"""Whom an auth_handle stands for: the principal that called start_auth, with nothing but its sign-in (FG-26)."""

from __future__ import annotations

from wardmesh_auth.catalogue import Platforms
from wardmesh_auth.sign_in.consents import Consents
from wardmesh_auth.sign_in.handles import AuthHandles, refused
from wardmesh_common.errors import PlatformUnknown
from wardmesh_common.vocabulary import Principal


class HandleOwners:
    def __init__(self, handles: AuthHandles, consents: Consents, platforms: Platforms) -> None:
        self._handles, self._consents, self._platforms = handles, consents, platforms

    async def owner(self, handle: str, platform: str) -> Principal:
        """Without roles: a handle passes through a model's hands, so it opens one platform and no more.

        Raises InvalidAuthHandle, Unavailable.
        """
        try:
            serving = (await self._platforms.serving(platform)).id
        except PlatformUnknown:
            raise refused() from None
        consent = await self._consents.by_handle(self._handles.read(handle, serving))
        if consent is None or consent.platform != serving:
            raise refused()
        return Principal(id=consent.principal_id, tenant=consent.tenant)
