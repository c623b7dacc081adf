"""A refusal that says where to sign in, for callers that show nothing by themselves: MCP and `/v1/tools` alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LINK = ("authorization_url", "platform_id", "auth_handle")


def linked(refused: Mapping[str, Any], started: Mapping[str, Any]) -> dict[str, Any]:
    """The refusal of a tool, with the link that `start_auth` answered."""
    said = {**refused, **{name: started[name] for name in _LINK if name in started}}
    said["message"] = f"{said['message']} Show the user authorization_url, then call wait_for_auth and repeat this."
    return said
