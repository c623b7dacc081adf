"""Reads what a token endpoint says: token, life, scopes and launch context; or what its refusal means."""

from __future__ import annotations

import datetime
import math
import re
from typing import Any, NoReturn

from wardmesh_auth.platform_token import FhirContext, PlatformToken
from wardmesh_auth.smart.wire import Answer
from wardmesh_common.errors import PlatformDown, PlatformUnconfigured, SignInRequired
from wardmesh_common.questions import PlatformFacts

_UNSAID_SECONDS = 300.0  # RFC 6749 lets a server keep silent about the life of a token
_LONGEST = 86_400.0
_MAX_TOKEN = 64 * 1024
_MAX_CONTEXT = 50
# A logical id, also as `Patient/123` or as the end of an absolute address.
_CONTEXT_ID = re.compile(r"(?:(?:https?://[^\s?#]{1,500}/)?(?:Patient|Encounter)/)?([A-Za-z0-9\-.]{1,64})")
_TRANSIENT = frozenset({"server_error", "temporarily_unavailable", "slow_down"})


def read_answer(answer: dict[str, Any], started: float, requested: str, facts: PlatformFacts) -> PlatformToken:
    """Raises PlatformUnconfigured for an answer that holds no usable bearer token."""
    token, kind = answer.get("access_token"), answer.get("token_type", "bearer")
    usable = isinstance(token, str) and 0 < len(token) <= _MAX_TOKEN and token.isascii() and token.isprintable()
    if not usable or not isinstance(kind, str) or kind.lower() != "bearer":
        raise PlatformUnconfigured("the platform gave no usable token")
    banner = answer.get("need_patient_banner")
    return PlatformToken(
        access_token=str(token),
        # A server that grants exactly what was asked may leave `scope` out (RFC 6749 §5.1).
        scopes=_scopes(answer.get("scope", requested), facts.sign_in.scope_separator),
        patient=_id(answer.get("patient")),
        encounter=_id(answer.get("encounter")),
        fhir_context=_context(answer.get("fhirContext")),
        need_patient_banner=banner if isinstance(banner, bool) else None,
        intent=_short(answer.get("intent")),
        issued_at=started,
        expires_at=started + _life(answer.get("expires_in"), facts.sign_in.token_seconds),
        refresh_token=_secret(answer.get("refresh_token")),
        grant_until=_moment(answer.get(facts.sign_in.grant_expiry_field)),
    )


def refuse(answer: Answer, platform: str, log: Any) -> NoReturn:
    """The error that an answer without a token stands for. Our own words: the platform's may quote what we sent."""
    code = answer.members().get("error")
    known = code if isinstance(code, str) and code in _KNOWN else "none we know"
    log.warning("no token from platform %s: status %d, error %s", platform, answer.status, known)
    if answer.status >= 500 or answer.status == 429 or known in _TRANSIENT:
        wait = answer.retry_after
        pause = min(int(wait), 300) if wait.isdecimal() and len(wait) < 6 else 5
        raise PlatformDown("the sign-in service of the platform does not answer", retry_after=pause)
    if known in ("invalid_grant", "access_denied", "interaction_required", "login_required", "consent_required"):
        raise SignInRequired("the platform does not accept this sign-in any more: sign in again")
    if known in ("invalid_client", "unauthorized_client"):
        raise PlatformUnconfigured("the platform does not accept the configured client")
    raise PlatformUnconfigured("the platform refuses our request for a token")


_KNOWN = _TRANSIENT | {
    "invalid_grant",
    "invalid_client",
    "invalid_request",
    "invalid_scope",
    "invalid_target",
    "unauthorized_client",
    "unsupported_grant_type",
    "access_denied",
    "interaction_required",
    "login_required",
    "consent_required",
}


def _scopes(value: object, separator: str) -> tuple[str, ...]:
    """Split at the platform's separator and at blanks; some servers send a list."""
    if isinstance(value, list):
        return tuple(v for v in value if isinstance(v, str))
    return tuple(value.replace(separator, " ").split()) if isinstance(value, str) else ()


def _life(value: object, unsaid: int) -> float:
    """Seconds from `expires_in`, which some servers send as text."""
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float(unsaid or _UNSAID_SECONDS)
    return min(max(seconds, 0.0), _LONGEST) if not math.isnan(seconds) else _UNSAID_SECONDS


def _moment(value: object) -> float:
    """Unix seconds from a number or an ISO 8601 time; 0.0 for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) and value > 0 else 0.0
    if not isinstance(value, str) or not 0 < len(value) <= 40:
        return 0.0
    try:
        found = datetime.datetime.fromisoformat(value)
    except ValueError:
        return 0.0
    return (found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).timestamp()


def _context(value: object) -> tuple[FhirContext, ...]:
    """SMART 2.2 sends objects, 2.0 sent objects with a reference only, drafts sent plain references."""
    found: list[FhirContext] = []
    for item in value[:_MAX_CONTEXT] if isinstance(value, list) else ():
        members = {"reference": item} if isinstance(item, str) else item if isinstance(item, dict) else {}
        reference, canonical = _short(members.get("reference")), _short(members.get("canonical"))
        if reference or canonical:
            role, kind = _short(members.get("role")), _short(members.get("type"))
            found.append(FhirContext(reference=reference, role=role, type=kind, canonical=canonical))
    return tuple(found)


def _id(value: object) -> str:
    found = _CONTEXT_ID.fullmatch(value) if isinstance(value, str) else None
    return found[1] if found else ""


def _short(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= 512 and value.isprintable() else ""


def _secret(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= _MAX_TOKEN and value.isprintable() else ""
