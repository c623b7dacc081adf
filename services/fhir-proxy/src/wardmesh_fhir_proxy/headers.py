"""Which headers cross the proxy, in both directions (PX-4)."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qsl

from wardmesh_common.errors import BadRequest

TO_UPSTREAM = ("if-match", "if-none-match", "if-modified-since", "if-none-exist", "prefer", "traceparent")
TO_CALLER = (
    "ETag",
    "Last-Modified",
    "Location",
    "Content-Location",
    "Retry-After",
    "X-Progress",
    "Expires",
    "Vary",
)
CANONICAL = {
    "if-match": "If-Match",
    "if-none-match": "If-None-Match",
    "if-modified-since": "If-Modified-Since",
    "if-none-exist": "If-None-Exist",
    "prefer": "Prefer",
    "traceparent": "traceparent",
}
FHIR_JSON = "application/fhir+json"
FHIR_NDJSON = "application/fhir+ndjson"
JSON = "application/json"
JSON_TYPES = frozenset({"json", JSON, "application/json+fhir", FHIR_JSON, "text/json"})
ANY_TYPE = frozenset({"*/*", "application/*"})
MAX_RETRY_AFTER = 3600


def media_type(value: str) -> str:
    return value.partition(";")[0].strip().lower()


def wants_json(accept: str, query: str) -> bool:
    """`_format` wins over Accept; both accept the old spellings of FHIR JSON."""
    pairs = parse_qsl(query, keep_blank_values=True) if "_format" in query or "%" in query else []
    formats = [value for name, value in pairs if name == "_format"]
    if formats:
        return media_type(formats[-1].replace(" ", "+")) in JSON_TYPES
    if not accept:
        return True
    kinds = [media_type(part) for part in accept.split(",") if part.strip()]
    return not kinds or any(kind in JSON_TYPES or kind in ANY_TYPE for kind in kinds)


def require_json(accept: str, query: str) -> None:
    if not wants_json(accept, query):
        raise BadRequest("Only FHIR JSON is served; other formats cannot be checked against policy.")


def prefer(own: str, strict: bool) -> str:
    """The caller's Prefer plus strict handling where the platform understands it (PX-13)."""
    parts = [p.strip() for p in own.split(",") if p.strip() and not p.strip().startswith("handling=")]
    if strict:
        parts.append("handling=strict")
    elif "handling=" in own:
        parts.append(next(p.strip() for p in own.split(",") if p.strip().startswith("handling=")))
    return ", ".join(parts)


def retry_after_seconds(value: str, now: float) -> int:
    """Seconds or an HTTP date, capped; 0 = not said or not readable."""
    text = value.strip()
    if text.isdigit():
        return min(int(text), MAX_RETRY_AFTER)
    try:
        seconds = parsedate_to_datetime(text).timestamp() - now
    except (TypeError, ValueError, IndexError):
        return 0
    return max(0, min(int(seconds + 0.999), MAX_RETRY_AFTER))


def to_caller(upstream: Mapping[str, str]) -> dict[str, str]:
    return {name: upstream[name] for name in TO_CALLER if name in upstream}
