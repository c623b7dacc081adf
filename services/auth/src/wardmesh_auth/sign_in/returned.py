"""What a platform's redirect brings back: single values, or the whole address as a person pasted it."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from msgspec import Struct

from wardmesh_auth.refusals import InvalidRequest
from wardmesh_auth.sign_in.arguments import Complete

_TOGETHER = "give either `redirect_url` or `code` and `state`, not both"
_MAX_FIELDS = 32


class Returned(Struct, frozen=True):
    code: str
    state: str
    iss: str
    error: str

    def __repr__(self) -> str:
        return "Returned(...)"


def returned(asked: Complete, redirect_uri: str) -> Returned:
    """Raises InvalidRequest."""
    if not asked.redirect_url:
        found = Returned(asked.code, asked.state, asked.iss, "")
    elif asked.code or asked.state or asked.iss:
        raise InvalidRequest(_TOGETHER)
    else:
        found = _of_address(asked.redirect_url.strip(), redirect_uri)
    if not found.state:
        raise InvalidRequest("`state` is missing")
    if not (found.code or found.error):
        raise InvalidRequest("`code` is missing")
    return found


def _of_address(address: str, redirect_uri: str) -> Returned:
    try:
        parts, ours = urlsplit(address), urlsplit(redirect_uri)
        fields = parse_qs(parts.query, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise InvalidRequest("`redirect_url` is not an address") from None
    if (parts.scheme, parts.netloc, parts.path) != (ours.scheme, ours.netloc, ours.path):
        raise InvalidRequest("`redirect_url` is not the address that our sign-ins lead back to")
    names = ("code", "state", "iss", "error")
    if any(len(fields.get(name, ())) > 1 for name in names):
        raise InvalidRequest("`redirect_url` says the same thing twice")
    return Returned(*(fields.get(name, [""])[0] for name in names))
