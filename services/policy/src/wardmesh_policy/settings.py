"""The policy service's settings."""

from __future__ import annotations

from pathlib import Path

from wardmesh_common.settings import BusSettings

ALIASES: dict[str, str | tuple[str, ...]] = {"cerbos_target": "CERBOS_HTTP_API_URL"}


class PolicySettings(BusSettings, kw_only=True):
    cerbos_target: str  # unix:/path/to/socket, host:port, or the http(s) URL of its API (SM-9)
    cerbos_timeout_seconds: float = 1.0
    station_limit: int = 512
    # Where the ids in a person's own claims mean that person; anywhere else they are somebody else's.
    home_platforms: tuple[str, ...] = ("store",)
    policies: str = ""  # the bundle that Cerbos serves; "" = the one in this package

    @property
    def bundle(self) -> Path:
        return Path(self.policies) if self.policies else Path(__file__).parent / "policies"
