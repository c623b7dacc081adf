"""Which representation a caller wants: `_format` wins over `Accept`; JSON in its four spellings only (PX-4)."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import unquote_plus

from wardmesh_gateway.asgi import Request
from wardmesh_gateway.problem import NotAcceptable

_JSON = frozenset({"json", "application/json", "application/json+fhir", "application/fhir+json", "text/json", "*/*"})
_refused = "Only JSON is offered: application/fhir+json or application/json."


def checked_query(request: Request) -> str:
    """The query without `_format`, everything else untouched and in order. Raises NotAcceptable."""
    query = request.query
    if "_format" in query or "%5fformat" in query.lower():
        kept: list[str] = []
        wanted = ""
        for pair in query.split("&"):
            name, _, value = pair.partition("=")
            if unquote_plus(name) == "_format":
                # An unescaped `+` of `application/fhir+json` arrives as a space.
                wanted = unquote_plus(value).replace(" ", "+")
            else:
                kept.append(pair)
        if wanted:
            if wanted.partition(";")[0].strip().lower() not in _JSON:
                raise NotAcceptable(_refused)
            return "&".join(kept)
        query = "&".join(kept)
    if not _accepts_json(request.joined(b"accept")):
        raise NotAcceptable(_refused)
    return query


@lru_cache(maxsize=512)
def _accepts_json(accept: str) -> bool:
    if not accept.strip():
        return True
    for part in accept.lower().split(","):
        kind, _, parameters = part.partition(";")
        kind = kind.strip()
        if (kind in _JSON or kind in ("application/*", "text/*")) and "q=0" not in _q(parameters):
            return True
    return False


def _q(parameters: str) -> str:
    """`q=0` when the weight is nothing, else something that is not."""
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "q":
            return "q=0" if value.strip("0.") == "" else "q=1"
    return ""
