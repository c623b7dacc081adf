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


class _Routes:
    """Builds operations; every one may answer with each of the refusals."""

    def __init__(self, reasons: dict[str, str]) -> None:
        self._refusals = {status: {"description": text, "content": _PROBLEM} for status, text in reasons.items()}

    def one(self, name: str, summary: str, good: Json, *parameters: Json, **more: Json) -> Json:
        answer = {"operationId": name, "summary": summary, "tags": ["sign-in"]}
        answer |= {"responses": {**self._refusals, **good}, **more}
        return answer | ({"parameters": list(parameters)} if parameters else {})


def sign_in_paths(reasons: dict[str, str]) -> Json:
    """`reasons` says what each status means."""
    routes = _Routes(reasons)
    return {**_platform_paths(routes), **_callbacks(routes), **_person_paths(routes), **_token_paths(routes)}


def _platform_paths(routes: _Routes) -> Json:
    address = _json("The address to open.", "authorization_url", "state", "platform_id")
    seconds = _query("timeout", {"type": "integer", "minimum": 1, "maximum": 300})
    header: Json = {"name": "X-Requested-With", "in": "header", "required": True, "schema": _TEXT}
    asked = (_query("redirect", _FLAG), _query("scopes"), _query("session"))
    login = routes.one("platformLogin", "Begin a sign-in at a platform", {"200": address, "302": _there()}, *asked)
    done = {"200": _json("Done, or not yet.", "success", "message")}
    wait = routes.one("platformWait", "Wait until a sign-in is done", done, seconds)
    ended = {"200": _json("Ended.", "success", "message", "token_revoked")}
    logout = routes.one("platformLogout", "End a connection to a platform", ended, header)
    return {
        "/auth/{platform}/login": {"parameters": [_PLATFORM], "get": login},
        "/auth/{platform}/wait": {"parameters": [_PLATFORM], "get": wait},
        "/auth/{platform}/logout": {"parameters": [_PLATFORM], "post": logout},
        "/auth/status": {
            "get": routes.one("signInStatus", "What this caller is signed in to", {"200": _json("", "platforms")})
        },
    }


def _callbacks(routes: _Routes) -> Json:
    asked = (_query("code"), _query("state"), _query("error"), _query("iss"))
    pages = {"200": {"description": "Signed in.", "content": _HTML}, "302": _there(), **_sm_errors()}
    return {
        "/auth/callback": {"get": routes.one("callback", _BROWSER, pages, *asked)},
        "/oauth/callback": {"get": routes.one("callbackElsewhere", _BROWSER, pages, *asked)},
        "/auth/callback/{platform}": {
            "parameters": [_PLATFORM],
            "get": routes.one("callbackOf", _BROWSER, pages, *asked),
        },
    }


def _person_paths(routes: _Routes) -> Json:
    there = {"302": _there(), **_sm_errors()}
    return {
        "/auth/login": {"get": routes.one("login", "Sign in at this gateway", there, _query("next"), _query("again"))},
        "/auth/logout": {"get": routes.one("logout", "End this browser's session", {"302": _there()})},
    }


def _token_paths(routes: _Routes) -> Json:
    tokens, token = {"200": _json("Tokens.", "access", "refresh")}, {"200": _json("A token.", "access")}
    glass = {"200": _json("For the header X-Break-Glass of later requests.", "break_glass", "id", "expires_in")}
    why, which = _body("platform_id", "patient_id", "reason_code", "reason"), _body("platform_id", "break_glass")
    ended = {"200": _json("Ended.", "success", "id")}
    named, refreshed = _body("username", "password"), _body("refresh")
    return {
        "/api/token/": {"post": routes.one("token", "Tokens for a local account", tokens, requestBody=named)},
        "/api/token/refresh/": {"post": routes.one("tokenRefresh", "A new access token", token, requestBody=refreshed)},
        "/api/break-glass": {
            "post": routes.one("openBreakGlass", "Emergency access to one record, by a person", glass, requestBody=why)
        },
        "/api/break-glass/close": {
            "post": routes.one("closeBreakGlass", "End an emergency access", ended, requestBody=which)
        },
        "/.well-known/jwks.json": {
            "get": routes.one("keys", "Public keys of our clients", {"200": _json("Keys.", "keys")})
        },
    }


def _query(name: str, schema: Json = _TEXT) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _there() -> Json:
    return {"description": "The browser goes on from here."}


def _sm_errors() -> Json:
    return {
        "400": {"description": "A parameter is wrong, or this is nobody's way back.", "content": _SM},
        "500": {"description": "The sign-in failed.", "content": _SM},
    }


def _json(description: str, *names: str) -> Json:
    schema = {"type": "object", "properties": {name: {} for name in names}}
    return {"description": description or "The answer.", "content": {"application/json": {"schema": schema}}}


def _body(*names: str) -> Json:
    schema = {"type": "object", "properties": dict.fromkeys(names, _TEXT), "required": list(names)}
    return {"required": True, "content": {"application/json": {"schema": schema}}}
