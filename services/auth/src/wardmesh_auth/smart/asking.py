"""Which scopes to ask a platform for: its own by default, in its dialect, fitting the kind of launch."""

from __future__ import annotations

import re

from wardmesh_auth.scopes import parse
from wardmesh_auth.smart.endpoints import Endpoints
from wardmesh_common.errors import BadRequest
from wardmesh_common.questions import PlatformFacts

DEFAULT = "openid fhirUser patient/*.*"  # FG-13
_TOKEN = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]{1,256}")  # RFC 6749 §3.3
_MOST = 200
_TO_V2 = {"read": "rs", "write": "cud", "*": "cruds"}
_ALONE = frozenset({"launch"})  # means the launch that an EHR started
_PICKED = "launch/"  # launch/patient, launch/encounter: the platform lets the person pick


def scopes_for(
    facts: PlatformFacts,
    endpoints: Endpoints,
    wanted: tuple[str, ...],
    *,
    launched: bool = False,
    confidential: bool = False,
) -> str:
    """The value of the `scope` parameter. Raises BadRequest for words that are no scopes or cannot be said there."""
    quirks = facts.sign_in
    own = (quirks.scopes_confidential if confidential else quirks.scopes_public) or facts.scopes or DEFAULT
    chosen = list(dict.fromkeys((*(wanted or own.split()), *quirks.required_scopes)))
    if len(chosen) > _MOST or not all(_TOKEN.fullmatch(scope) for scope in chosen):
        raise BadRequest("`scopes` must be a list of OAuth scopes")
    if launched:
        chosen = ["launch", *(s for s in chosen if s not in _ALONE and not s.startswith(_PICKED))]
    else:
        # `launch` alone promises a launch parameter that we do not have: some platforms refuse it then.
        chosen = [s for s in chosen if s not in _ALONE]
    if quirks.refresh == "none":
        chosen = [s for s in chosen if s not in ("offline_access", "online_access")]
    dialect = _dialect(facts, endpoints)
    return quirks.scope_separator.join(dict.fromkeys(_said(scope, dialect) for scope in chosen))


def _dialect(facts: PlatformFacts, endpoints: Endpoints) -> str:
    """v1, v2, or "" where a scope is sent as it stands."""
    written = facts.sign_in.scope_dialect
    if written:
        return "" if written == "both" else written
    offered = set(endpoints.capabilities)
    if "permission-v2" in offered:
        return "" if "permission-v1" in offered else "v2"
    return "v1" if "permission-v1" in offered else ""


def _said(scope: str, dialect: str) -> str:
    """One scope in a dialect; what is no resource scope stays as it is."""
    if not dialect or parse(scope) is None:
        return scope
    head, _, tail = scope.partition(".")
    letters, mark, constraint = tail.partition("?")
    if dialect == "v2":
        return f"{head}.{_TO_V2.get(letters, letters)}{mark}{constraint}"
    if letters in _TO_V2:
        return scope
    if mark:
        raise BadRequest("this platform has no scopes with a search constraint")
    reads, changes = set(letters) & set("rs"), set(letters) & set("cud")
    # v1 has three words only: the smallest that holds all that is wanted.
    return f"{head}.{'*' if reads and changes else 'read' if reads else 'write'}"
