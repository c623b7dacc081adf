"""What each procedure is called with. Unknown members are refused, so that a typo is not silently ignored."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Word = Annotated[str, Meta(max_length=4096)]
Scopes = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...], Meta(max_length=200)]
Address = Annotated[str, Meta(max_length=2048)]


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class OfPlatform(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    platform_id: Address = ""


class Start(OfPlatform, frozen=True, kw_only=True):
    scopes: Scopes = ()
    launch: Word = ""
    iss: Address = ""


class Open(Start, frozen=True, kw_only=True):
    ticket: Word = ""
    redirect: bool = True  # the gateway's business: it decides how it shows the address


class Finish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    path_platform: Address = ""
    code: Word = ""
    state: Word = ""
    error: Word = ""
    iss: Address = ""
    bound: bool = False  # the browser brought the cookies of SM-2, and they are those of this state


class Complete(OfPlatform, frozen=True, kw_only=True):
    """`code`, `state` and `iss` as the redirect delivered them, or the redirect as a whole."""

    code: Word = ""
    state: Word = ""
    iss: Address = ""
    redirect_url: Annotated[str, Meta(max_length=8192)] = ""

    def __repr__(self) -> str:
        return "Complete(...)"


class Wait(OfPlatform, frozen=True, kw_only=True):
    timeout: Annotated[float, Meta(ge=0, le=600)] = 20.0


class SignIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    next: Address = "/"
    bound: bool = False  # the gateway ties the way back to this browser with the cookies of SM-2
    again: bool = False  # somebody else wants to sign in: whoever the issuer remembers does not count
    username: Annotated[str, Meta(max_length=255)] = ""  # of a local account: no other place is asked
    password: Annotated[str, Meta(max_length=1024)] = ""

    def __repr__(self) -> str:
        return "SignIn(...)"


class SignOut(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    everywhere: bool = False


class LogIn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    username: Annotated[str, Meta(min_length=1, max_length=255)]
    password: Annotated[str, Meta(min_length=1, max_length=1024)]

    def __repr__(self) -> str:
        return "LogIn(...)"


class Refresh(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    refresh: Word

    def __repr__(self) -> str:
        return "Refresh(...)"
