"""Accounts that the configuration of a deployment brings along; only demonstrations have a file of them."""

from __future__ import annotations

from msgspec import Struct


class SeedAccount(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    username: str
    roles: tuple[str, ...]
    password: str = ""
    password_hash: str = ""  # argon2id; better than a password in a file
    email: str = ""
    patient: str = ""
    practitioner: str = ""

    def __repr__(self) -> str:
        return f"SeedAccount({self.username!r})"
