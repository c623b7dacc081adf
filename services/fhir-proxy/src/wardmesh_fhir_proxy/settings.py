"""What the fhir-proxy reads from its environment."""

from __future__ import annotations

from collections.abc import Mapping

from wardmesh_common.settings import BadSettings, BusSettings, load
from wardmesh_common.token_seal import parse_key

ALIASES: dict[str, str | tuple[str, ...]] = {
    "datastore_region": "AWS_REGION",
    "datastores_read_only": "HEALTHLAKE_MCP_READONLY",
    "aws_profile": "AWS_PROFILE",
}


class Settings(BusSettings, kw_only=True):
    """`token_seal_key` is shared with auth alone; `cursor_keys` is a JSON list, the first one seals."""

    token_seal_key: str
    cursor_keys: list[str]
    platforms_dir: str = ""
    datastore_region: str = ""  # "" = as the platform's file says
    datastores_read_only: bool = False  # the names of HL-12 and HL-16 are understood as well
    aws_profile: str = ""
    call_limit: int = 256
    max_answer_bytes: int = 50 * 1024 * 1024  # of JSON, which is looked into; other content is streamed (PX-6)


def read(environ: Mapping[str, str]) -> Settings:
    settings = load(Settings, environ, aliases=ALIASES)
    key_of("WARDMESH_TOKEN_SEAL_KEY", settings.token_seal_key)
    if not settings.cursor_keys:
        raise BadSettings("WARDMESH_CURSOR_KEYS holds no key")
    for key in settings.cursor_keys:
        key_of("WARDMESH_CURSOR_KEYS", key)
    return settings


def key_of(variable: str, text: str) -> bytes:
    """A 32-byte key; the message names the variable, never its value."""
    try:
        return parse_key(text)
    except ValueError as error:
        raise BadSettings(f"{variable}: {error}") from None
