"""The station of auth: a Caller becomes a Principal with a Grant, and its credential ends here."""

from __future__ import annotations

import re
from typing import Any, Protocol

import msgspec

from wardmesh_auth.agents import AgentRegister, Naming
from wardmesh_auth.bearers import Bearers
from wardmesh_auth.bounded import Bounded
from wardmesh_auth.refusals import InvalidCredential
from wardmesh_auth.revocations import Revocations
from wardmesh_auth.sign_in.handles import refused
from wardmesh_common.contracts import Call, Caller
from wardmesh_common.errors import Unauthenticated
from wardmesh_common.local_tokens import ISSUER
from wardmesh_common.station import Hop
from wardmesh_common.tokens import VerifiedToken
from wardmesh_common.vocabulary import Emergency, Grant, Principal

ANONYMOUS = Principal(id="anonymous")
TOKEN = "token:"  # noqa: S105 - how an access token stands where a session would: by its digest
_MAX_ROLES = 64
# Steps of a browser that may still carry the cookie of a session that is over.
_BROWSER = frozenset({"open_auth", "finish_auth", "sign_in", "sign_out", "get_auth_status"})
_FHIR_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


class FindsSessions(Protocol):
    async def find(self, secret: str) -> Principal: ...


class LendsGrants(Protocol):
    async def lend(self, call: Call, principal: Principal) -> Grant: ...


class ReadsHandles(Protocol):
    async def owner(self, handle: str, platform: str) -> Principal: ...


class ReadsPasses(Protocol):
    def read(self, text: str, principal: Principal, platform: str) -> Emergency: ...


class Roles:
    """Roles from verified claims only, none by default (X-23): which claims, and which value means which role."""

    def __init__(self, claims: tuple[str, ...], mapping: dict[str, tuple[str, ...]]) -> None:
        self._paths = tuple(claim_path(text) for text in claims)
        self._mapping = mapping

    def of(self, claims: dict[str, Any]) -> tuple[str, ...]:
        """With a mapping a value that is not in it means nothing; without one it is the role."""
        found: dict[str, None] = {}
        for path in self._paths:
            for value in _texts(_at(claims, path)):
                found.update(dict.fromkeys(self._mapping.get(value, ()) if self._mapping else (value,)))
        return tuple(found)[:_MAX_ROLES]

    @property
    def claims(self) -> tuple[str, ...]:
        """The top-level claims that the verifier has to keep."""
        return tuple(path[0] for path in self._paths)


class Identifier:
    """Handler of `call.identify`. The stamps go into the call itself: a refusal is recorded with its principal."""

    def __init__(
        self,
        verifier: Bearers,
        sessions: FindsSessions,
        revocations: Revocations,
        grants: LendsGrants,
        handles: ReadsHandles,
        passes: ReadsPasses,
        roles: Roles,
        client_agents: dict[str, str],
        naming: Naming,
        register: AgentRegister,
        cache_size: int = 20_000,
    ) -> None:
        self._verifier, self._sessions = verifier, sessions
        self._revocations, self._grants, self._handles, self._passes = revocations, grants, handles, passes
        self._roles, self._client_agents = roles, client_agents
        self._naming, self._register = naming, register
        self._local_roles = Roles(("role",), {})
        self._principals: Bounded[str, Principal] = Bounded(cache_size)

    async def __call__(self, call: Call, hop: Hop) -> Call:
        caller = call.caller
        # First of all: whatever happens next, the recorder and the next station see no credential.
        call.caller = without_credential(caller)
        call.grant = call.decision = call.principal = call.emergency = None
        try:
            principal = await self._principal(caller, call)
        except Unauthenticated as error:
            raise InvalidCredential(error.problem.detail) from None
        if caller.handle:
            principal = await self._by_handle(caller.handle, call.platform, principal)
        call.principal = principal = self._with_agent(principal, caller)
        if caller.emergency and not call.procedure:
            call.emergency = self._passes.read(caller.emergency, principal, call.platform)
        else:
            # In an emergency a register that cannot be written keeps nobody waiting; the record names the agent.
            await self._register.meet(call, principal)
        # An operation of ours needs nothing of a platform; some of them a browser starts that is nobody yet.
        call.grant = Grant(platform="") if call.procedure else await self._grants.lend(call, principal)
        return call

    def roles_of(self, token: VerifiedToken) -> tuple[str, ...]:
        return self._roles_for(token).of(token.claims)

    def _roles_for(self, token: VerifiedToken) -> Roles:
        """A local account's role is ours; what an issuer says is mapped as the deployment wants."""
        return self._local_roles if token.issuer == ISSUER else self._roles

    async def _principal(self, caller: Caller, call: Call) -> Principal:
        """A header takes precedence over a cookie (FG-14). A bad credential is refused, never made anonymous."""
        if caller.bearer:
            token = await self._verifier.verify(caller.bearer)
            if self._revocations.token_revoked(token):
                raise Unauthenticated("the access token has been revoked")
            principal = self._principals.get(token.digest)
            if principal is None:
                principal = principal_of(token, self._roles_for(token))
                self._principals.put(token.digest, principal, 300.0)
            if call.performer == "auth" and call.tool == "sign_out":
                # What is signed out is this token, known to everyone after us by its digest only.
                return msgspec.structs.replace(principal, session=TOKEN + token.digest)
            return principal
        if caller.cookie:
            return await self._by_cookie(caller.cookie, call)
        return ANONYMOUS

    async def _by_cookie(self, cookie: str, call: Call) -> Principal:
        try:
            return await self._sessions.find(cookie)
        except Unauthenticated:
            if call.performer == "auth" and call.tool in _BROWSER:
                return ANONYMOUS  # a session that is over must not keep anybody from signing in again
            raise

    async def _by_handle(self, handle: str, platform: str, principal: Principal) -> Principal:
        """An auth_handle is an identity for who has none; beside another one it has to say the same (FG-26)."""
        owner = await self._handles.owner(handle, platform)
        if principal.anonymous:
            return owner
        if (owner.tenant, owner.id) != (principal.tenant, principal.id):
            raise refused()
        return principal

    def _with_agent(self, principal: Principal, caller: Caller) -> Principal:
        """The agent is this request's own word (X-19); a known client that calls itself something else is flagged."""
        expected = self._client_agents.get(principal.client_id, "") if self._client_agents else ""
        mismatch = bool(expected) and not caller.agent.id.startswith(expected)
        return msgspec.structs.replace(principal, agent=self._naming.named(caller.agent), agent_mismatch=mismatch)


def claim_path(text: str) -> tuple[str, ...]:
    """`realm_access.roles` goes down; a claim named by a URL is one name, dots and all; `/a/b.c` is a JSON pointer."""
    if text.startswith("/"):
        return tuple(part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/"))
    return (text,) if "://" in text else tuple(text.split("."))


def without_credential(caller: Caller) -> Caller:
    return Caller(
        agent=caller.agent,
        ip=caller.ip,
        user_agent=caller.user_agent,
        anonymous_listener=caller.anonymous_listener,
    )


def principal_of(token: VerifiedToken, roles: Roles) -> Principal:
    kind, own = reference(token.claims.get("fhirUser"))
    return Principal(
        id=token.principal_id,
        roles=roles.of(token.claims),
        patient=_id(token.claims.get("patient")) or (own if kind == "Patient" else ""),
        practitioner=_id(token.claims.get("practitioner")) or (own if kind == "Practitioner" else ""),
        scopes=token.scopes,
        client_id=token.client_id,
    )


def reference(value: object) -> tuple[str, str]:
    """Type and id of a relative or absolute reference, as `fhirUser` carries it."""
    parts = value.rsplit("/", 2) if isinstance(value, str) else []
    return (parts[-2], _id(parts[-1])) if len(parts) > 1 else ("", "")


def _id(value: object) -> str:
    """A logical id, also out of `Patient/123`; anything else is no id at all."""
    text = value.rpartition("/")[2] if isinstance(value, str) else ""
    return text if _FHIR_ID.fullmatch(text) else ""


def _at(claims: dict[str, Any], path: tuple[str, ...]) -> object:
    found: object = claims
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _texts(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(v for v in values if isinstance(v, str) and v)
