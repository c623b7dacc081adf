"""Refusals of sign-in, in the codes of FG-24, each with the word of FG-19 under which it is recorded."""

from __future__ import annotations

from wardmesh_common.errors import BadRequest, Denied, NotFound, RateLimited, SignInRequired, Unauthenticated
from wardmesh_common.record_class import GLASS_REFUSED


class InvalidRequest(BadRequest):
    code = "invalid_request"


class InvalidState(InvalidRequest):
    """Unknown, used, over, or of another platform: nobody is told which."""

    event = "security.invalid_state"


class NoSignIn(NotFound):
    code = "session_error"


class SignInFailed(BadRequest):
    code, event = "session_error", "auth.failure"


class SignInCancelled(SignInFailed):
    """The person said no, or the client called the sign-in off."""

    code = "sign_in_cancelled"


class InvalidAuthHandle(Unauthenticated):
    code, event = "invalid_auth_handle", "security.invalid_token"


class OAuthNotConfigured(BadRequest):
    code = "oauth_not_configured"


class WrongPassword(Unauthenticated):
    """One text for an unknown name, a wrong password and a closed account."""

    code, event = "invalid_credentials", "auth.failure"


class TooManyLogIns(RateLimited):
    event = "security.rate_limit"


class InvalidCredential(Unauthenticated):
    """A token or cookie was sent and does not hold."""

    event = "security.invalid_token"


class TokenExpired(SignInRequired):
    """There was a grant; it is over and cannot be renewed."""

    event = "token.expired"


class PassRefused(Denied):
    """A pass of break-glass that is not good, not theirs or over."""

    code, event = "break_glass_refused", GLASS_REFUSED


class PassLimit(Denied):
    """One pass too many for one person."""

    code, event = "break_glass_limit", GLASS_REFUSED
