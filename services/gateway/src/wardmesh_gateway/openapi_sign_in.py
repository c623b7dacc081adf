"""The sign-in routes as the OpenAPI document describes them (C-4, FG-11, SM-1, SH-9)."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_FLAG: Json = {"type": "boolean"}
_PLATFORM: Json = {
    "name": "platform",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": r"^[a-z][a-z0-9\-]+$"},
}
_HTML = {"text/html": {"schema": _TEXT}}
_PROBLEM = {"application/json": {"schema": {"$ref": "#/components/schemas/Detail"}}, **_HTML}
_SM = {"application/json": {"schema": {"type": "object"}}, **_HTML}
_BROWSER = "A person's browser is sent here."


def sign_in_paths(reasons: dict[str, str]) -> Json:
    """`reasons` says what each status means; every route may answer with each of them."""
    refusals = {status: {"description": text, "content": _PROBLEM} for status, text in reasons.items()}

    def route(name: str, summary: str, good: Json, *, parameters: tuple[Json, ...] = (), **more: Json) -> Json:
        answer = {"operationId": name, "summary": summary, "tags": ["sign-in"], "responses": {**refusals, **good}}
        return answer | ({"parameters": list(parameters)} if parameters else {}) | more

    def of_platform(**operations: Json) -> Json:
        return {"parameters": [_PLATFORM], **operations}

    callback = (_query("code"), _query("state"), _query("error"), _query("iss"))
    pages = {"200": {"description": "Signed in.", "content": _HTML}, "302": _there(), **_sm_errors()}
    return {
        "/auth/{platform}/login": of_platform(
            get=route(
                "platformLogin",
                "Begin a sign-in at a platform",
                {"200": _json("The address to open.", "authorization_url", "state", "platform_id"), "302": _there()},
                parameters=(_query("redirect", _FLAG), _query("scopes"), _query("session")),
            )
        ),
        "/auth/{platform}/wait": of_platform(
            get=route(
                "platformWait",
                "Wait until a sign-in is done",
                {"200": _json("Done, or not yet.", "success", "message")},
                parameters=(_query("timeout", {"type": "integer", "minimum": 1, "maximum": 300}),),
            )
        ),
        "/auth/{platform}/logout": of_platform(
            post=route(
                "platformLogout",
                "End a connection to a platform",
                {"200": _json("Ended.", "success", "message", "token_revoked")},
                parameters=({"name": "X-Requested-With", "in": "header", "required": True, "schema": _TEXT},),
            )
        ),
        "/auth/status": {
            "get": route("signInStatus", "What this caller is signed in to", {"200": _json("", "platforms")})
        },
        "/auth/callback": {"get": route("callback", _BROWSER, pages, parameters=callback)},
        "/oauth/callback": {"get": route("callbackElsewhere", _BROWSER, pages, parameters=callback)},
        "/auth/callback/{platform}": of_platform(get=route("callbackOf", _BROWSER, pages, parameters=callback)),
        "/auth/login": {"get": route("login", "Sign in at this gateway", {"302": _there(), **_sm_errors()})},
        "/auth/logout": {"get": route("logout", "End this browser's session", {"302": _there()})},
        "/api/token/": {
            "post": route(
                "token",
                "Tokens for a local account",
                {"200": _json("Tokens.", "access", "refresh")},
                requestBody=_body("username", "password"),
            )
        },
        "/api/token/refresh/": {
            "post": route(
                "tokenRefresh",
                "A new access token",
                {"200": _json("A token.", "access")},
                requestBody=_body("refresh"),
            )
        },
        "/.well-known/jwks.json": {"get": route("keys", "Public keys of our clients", {"200": _json("Keys.", "keys")})},
    }


def _query(name: str, schema: Json = _TEXT) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _there() -> Json:
    return {"description": "The browser goes on from here."}


def _sm_errors() -> Json:
    return {
        "400": {"description": "This is nobody's way back.", "content": _SM},
        "500": {"description": "The sign-in failed.", "content": _SM},
    }


def _json(description: str, *names: str) -> Json:
    schema = {"type": "object", "properties": {name: {} for name in names}}
    return {"description": description or "The answer.", "content": {"application/json": {"schema": schema}}}


def _body(*names: str) -> Json:
    schema = {"type": "object", "properties": dict.fromkeys(names, _TEXT), "required": list(names)}
    return {"required": True, "content": {"application/json": {"schema": schema}}}
