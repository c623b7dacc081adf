"""Settings from the environment: one Struct per service, one clear message when something is missing or wrong."""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

T = TypeVar("T", bound=Struct)

PREFIX = "WARDMESH_"
LOG_LEVELS = frozenset({"DEBUG", "INFO", "WARN", "WARNING", "ERROR"})
# Names that hold for every service (FG-17, SM-9).
_COMMON: dict[str, tuple[str, ...]] = {
    "log_level": ("FHIR_GATEWAY_LOG_LEVEL", "LOG_LEVEL"),
    "log_json": ("FHIR_GATEWAY_LOG_JSON",),
    "debug": ("FHIR_GATEWAY_DEBUG",),
    "environment": ("ENVIRONMENT",),
}
LEAST_RECORD_SECONDS, MOST_RECORD_SECONDS = 0.05, 5.0
EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h


class BadSettings(Exception):
    """Names the variable and what is wrong with it, never its value."""


class BusSettings(Struct, kw_only=True):
    """What every service on the bus needs."""

    nats_url: str = "nats://127.0.0.1:4222"
    nats_seed: str = ""  # nkey seed of this service
    admin_host: str = "127.0.0.1"
    admin_port: int = 9090
    deployment: str = "local"
    log_level: str = "INFO"
    log_json: bool = True
    debug: bool = False  # begins anew when its code changes (FG-31)
    environment: str = ""  # "", development, staging or production (SM-9): the last one allows nothing unsafe
    drain_seconds: float = 15.0
    audit_logs: int = 1  # as many as the audit service has
    audit_spool_dir: str = ""  # where records wait that policy lets through while the stream is away
    audit_deadline_seconds: float = 0.25  # a record that takes longer is none: no answer leaves (AR-3)


def load(kind: type[T], environ: Mapping[str, str], *, aliases: Mapping[str, str | tuple[str, ...]] | None = None) -> T:
    """Read `kind` from the environment: field `nats_url` is WARDMESH_NATS_URL, or the content of the file that
    WARDMESH_NATS_URL_FILE names. `aliases` maps a field to other accepted variables (C-9); ours wins.

    Lists and structs are JSON. Raises BadSettings.
    """
    hints = get_type_hints(kind)
    known = {**_COMMON, **(aliases or {})}
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        names = [PREFIX + field.name.upper()]
        if field.name in known:
            others = known[field.name]
            names.extend((others,) if isinstance(others, str) else others)
        text = _find(names, environ)
        if text is not None:
            values[field.name] = _parse(names[0], text, hints[field.name])
        elif field.required:
            raise BadSettings(f"{names[0]} is not set (and no {names[0]}_FILE)")
    if str(values.get("log_level", "INFO")).upper() not in LOG_LEVELS:
        raise BadSettings("WARDMESH_LOG_LEVEL must be DEBUG, INFO, WARN or ERROR")
    if values.get("environment") == "production" and values.get("debug"):
        raise BadSettings("ENVIRONMENT=production goes with DEBUG=false only")
    if not LEAST_RECORD_SECONDS <= values.get("audit_deadline_seconds", LEAST_RECORD_SECONDS) <= MOST_RECORD_SECONDS:
        raise BadSettings("WARDMESH_AUDIT_DEADLINE_SECONDS must be a number of seconds from 0.05 to 5")
    return kind(**values)


def _find(names: list[str], environ: Mapping[str, str]) -> str | None:
    for name in names:
        if name in environ:
            return environ[name]
        path = environ.get(f"{name}_FILE")
        if path is not None:
            try:
                return Path(path).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise BadSettings(f"the file named by {name}_FILE cannot be read: {error.strerror}") from None
    return None


def _parse(name: str, text: str, hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    try:
        if hint is str:
            return text
        if hint is bool:
            return _flag(text)
        if hint in (int, float):
            return hint(text)
        return msgspec.json.decode(text, type=hint)
    except (ValueError, msgspec.DecodeError, msgspec.ValidationError):
        raise BadSettings(f"{name} is not a valid {getattr(hint, '__name__', 'JSON value')}") from None


def _flag(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in ("1", "true", "yes", "on"):
        return True
    if lowered in ("0", "false", "no", "off", ""):
        return False
    raise ValueError
