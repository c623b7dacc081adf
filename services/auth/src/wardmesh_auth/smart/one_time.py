"""Values that are used once per sign-in: state, PKCE verifier, nonce."""

from __future__ import annotations

import secrets


def new_state() -> str:
    """48 hexadecimal characters (FG-13)."""
    return secrets.token_hex(24)


def new_verifier() -> str:
    """64 characters of the alphabet that RFC 7636 allows."""
    return secrets.token_urlsafe(48)


def new_nonce() -> str:
    return secrets.token_urlsafe(24)
