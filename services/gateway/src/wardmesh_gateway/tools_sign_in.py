"""The sign-in tools of FG-22: operations of ours that the auth station performs."""

from __future__ import annotations

from wardmesh_common.vocabulary import Interaction
from wardmesh_gateway.schemas import PLATFORM, Schema, described, tool_input
from wardmesh_gateway.tool_spec import ToolSpec

LONGEST_WAIT = 600

_SCOPES: Schema = {
    "type": "array",
    "items": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": r"^[\x21\x23-\x5B\x5D-\x7E]+$"},
    "maxItems": 64,
    "description": "SMART scopes to ask for, for example ['openid', 'patient/*.rs']. Left out: those of the platform.",
}
_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}


def _answer(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties}


SIGN_IN_TOOLS: tuple[ToolSpec, ...] = (
    ToolSpec(
        name="start_auth",
        title="Start a sign-in",
        summary="Begin connecting the user to a platform. Show the user the authorization_url of the answer: only "
        "they can open it. Then call wait_for_auth with a timeout of at most 50 seconds, again while it is pending.",
        interaction=Interaction.OPERATION,
        performer="auth",
        changes=True,
        input=tool_input(("platform_id",), platform_id=PLATFORM, scopes=_SCOPES),
        output=_answer(
            authorization_url=_TEXT, state=_TEXT, platform_id=_TEXT, auth_handle=_TEXT, message=_TEXT, expires_at={}
        ),
    ),
    ToolSpec(
        name="complete_auth",
        title="Complete a sign-in",
        summary="Finish a sign-in with what a platform sent to the client itself: code, state and, where the redirect "
        "has one, iss; or the whole redirect address. Usually not needed: the gateway receives it.",
        interaction=Interaction.OPERATION,
        performer="auth",
        changes=True,
        input=tool_input(
            ("platform_id",),
            platform_id=PLATFORM,
            code={"type": "string", "minLength": 1, "maxLength": 4096, "description": "The authorization code."},
            state={"type": "string", "minLength": 1, "maxLength": 512, "description": "The state that came with it."},
            iss={"type": "string", "maxLength": 2048, "description": "The `iss` that came with it, if there was one."},
            redirect_url={
                "type": "string",
                "minLength": 1,
                "maxLength": 8192,
                "description": "Instead of the three: the whole address that the platform redirected to.",
            },
        ),
        output=_answer(success=_FLAG, platform_id=_TEXT, expires_in={}, message=_TEXT),
    ),
    ToolSpec(
        name="wait_for_auth",
        title="Wait for a sign-in",
        summary="Wait until the user has signed in at the platform. Answers at once when they already have. When the "
        "answer says pending, or the call was cut off, call it again: nothing is lost.",
        interaction=Interaction.OPERATION,
        performer="auth",
        quick=False,
        input=tool_input(
            ("platform_id",),
            platform_id=PLATFORM,
            timeout={
                "type": "integer",
                "minimum": 1,
                "maximum": LONGEST_WAIT,
                "default": 300,
                "description": "Seconds to wait in all. Many clients give up after a minute: 50 or less is safe. "
                "Left out, the call answers after 50 seconds at the latest and may be repeated.",
            },
        ),
        output=_answer(success=_FLAG, pending=_FLAG, platform_id=_TEXT, expires_in={}, message=_TEXT),
    ),
    ToolSpec(
        name="get_auth_status",
        title="Get sign-in status",
        summary="Whether the user is signed in at one platform, or at which platforms when none is named.",
        interaction=Interaction.OPERATION,
        performer="auth",
        input=tool_input((), platform_id=PLATFORM),
    ),
    ToolSpec(
        name="revoke_auth",
        title="Sign out of a platform",
        summary="End the connection to a platform: its tokens are revoked there and deleted here.",
        interaction=Interaction.OPERATION,
        performer="auth",
        changes=True,
        destructive=True,
        input=tool_input(("platform_id",), platform_id=described(PLATFORM, "Platform to sign out of, by id.")),
        output=_answer(success=_FLAG, message=_TEXT, token_revoked={}),
    ),
)
