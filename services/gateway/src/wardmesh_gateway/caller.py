"""Who is at the door: bearer token, session cookie or nobody; and from which address (FG-14, FG-39, X-10, X-38)."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from wardmesh_common.contracts import Caller
from wardmesh_common.errors import Unauthenticated
from wardmesh_common.tokens import VerifiedToken
from wardmesh_common.vocabulary import Agent, Principal
from wardmesh_gateway.cookies import SESSION_NAMES, read
from wardmesh_gateway.known_sessions import KnownSessions
from wardmesh_gateway.mcp_door import Credential
from wardmesh_gateway.ratelimit import address_key

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# The setting's default: loopback and private ranges, where ingress controllers and local proxies live.
PRIVATE_NETWORKS = ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
MAX_USER_AGENT = 256


class Verifies(Protocol):
    """wardmesh_common.tokens.TokenVerifier."""

    async def verify(self, token: str) -> VerifiedToken: ...


class Visit(Struct, frozen=True, kw_only=True):
    """One request's caller as far as the gateway can tell; the Principal of record is auth's."""

    caller: Caller
    budget: str  # whose rate limit this counts against: never a value that the client can choose
    token: VerifiedToken | None = None
    own_session: bool = False  # the budget is that of a session that auth knows

    @property
    def anonymous(self) -> bool:
        return self.token is None and not self.caller.cookie and not self.caller.handle


class TrustedProxies:
    """Believes `X-Forwarded-For` only from listed peers, and only as far as the chain is trusted."""

    def __init__(self, cidrs: Sequence[str]) -> None:
        if tuple(cidrs) == ("none",):
            cidrs = ()
        elif not cidrs:
            cidrs = PRIVATE_NETWORKS
        networks: tuple[Network, ...] = tuple(ipaddress.ip_network(cidr, strict=False) for cidr in cidrs)

        @lru_cache(maxsize=4096)
        def trusted(address: str) -> bool:
            try:
                parsed = ipaddress.ip_address(address)
            except ValueError:
                return False
            return any(parsed in network for network in networks)

        self.trusted = trusted

    def address(self, scope: Mapping[str, Any]) -> str:
        """The first address from the right that is not a trusted proxy's."""
        client = scope.get("client")
        peer: str = client[0] if client else ""
        forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        if not forwarded or not self.trusted(peer):
            return peer
        address = peer
        for hop in reversed(",".join(forwarded).split(",")):
            candidate = hop.strip().removeprefix("[").partition("]")[0]
            if not _is_address(candidate):
                break
            address = candidate
            if not self.trusted(address):
                break
        return address


class Callers:
    """Builds a Visit from a request's headers. The bearer token wins over a cookie (FG-14)."""

    def __init__(self, verifier: Verifies | None, proxies: TrustedProxies, sessions: KnownSessions) -> None:
        self._verifier = verifier
        self._proxies = proxies
        self._sessions = sessions

    def address(self, scope: Mapping[str, Any]) -> str:
        return self._proxies.address(scope)

    async def check(self, bearer: str) -> Credential:
        """The token in the words of the MCP face. Raises Unauthenticated, Unavailable."""
        token = await self._verify(bearer)
        return Credential(
            principal=f"{budget_of(token.principal_id)}.{budget_of(token.client_id)}",
            scopes=frozenset(token.scopes),
            expires=token.expires_at,
            client_id=token.client_id,
        )

    async def visit(self, scope: Mapping[str, Any]) -> Visit:
        """Raises Unauthenticated when an `Authorization` header is there but does not hold."""
        cookies = False
        authorization = user_agent = emergency = ""
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value.decode("latin-1").strip()
            elif name == b"cookie":
                cookies = True
            elif name == b"user-agent":
                user_agent = value.decode("latin-1")[:MAX_USER_AGENT]
            elif name == b"x-break-glass":
                emergency = value.decode("latin-1")
        bearer = _bearer(authorization) if authorization else ""
        caller = Caller(
            bearer=bearer,
            cookie=read(scope["headers"], SESSION_NAMES) if cookies and not bearer else "",
            agent=agent_of(user_agent),
            ip=self._proxies.address(scope),
            user_agent=user_agent,
            emergency=emergency,
        )
        return await self.visit_of(caller)

    def stranger(self, scope: Mapping[str, Any]) -> Visit:
        """The same without any credential: for routes where who somebody is stands in the body."""
        caller = Caller(ip=self._proxies.address(scope))
        return Visit(caller=caller, budget=address_key(caller.ip))

    async def visit_of(self, caller: Caller) -> Visit:
        """The same for a Caller that another face has put together."""
        if caller.bearer:
            token = await self._verify(caller.bearer)
            return Visit(caller=caller, budget=budget_of(token.principal_id), token=token)
        budget = self.budget(caller)
        return Visit(caller=caller, budget=budget, own_session=budget != address_key(caller.ip))

    def budget(self, caller: Caller) -> str:
        """For a caller without a token. A cookie counts only once auth has looked: until then the address pays."""
        own = self._sessions.budget(caller.cookie) if caller.cookie else ""
        return own or address_key(caller.ip)

    async def _verify(self, bearer: str) -> VerifiedToken:
        if self._verifier is None:
            raise Unauthenticated("the access token is not valid here")
        return await self._verifier.verify(bearer)


def with_handle(visit: Visit, handle: str) -> Visit:
    """The same visit with the auth_handle that a tool call carried (FG-26); whether it holds is auth's to say."""
    return msgspec.structs.replace(visit, caller=msgspec.structs.replace(visit.caller, handle=handle))


def principal_of(token: VerifiedToken, agent: Agent) -> Principal:
    """Good enough to ask which tools to show and to record a refusal of ours; decisions use auth's Principal."""
    roles: object = token.claims.get("roles", ())
    return Principal(
        id=token.principal_id,
        roles=tuple(role for role in roles if isinstance(role, str)) if isinstance(roles, list) else (),
        scopes=token.scopes,
        client_id=token.client_id,
        agent=agent,
    )


@lru_cache(maxsize=4096)
def budget_of(name: str) -> str:
    """A digest that stands for a principal or client: what is kept per caller never shows who that is."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("Only bearer tokens are accepted.")
    return token.strip()


@lru_cache(maxsize=4096)
def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


_product = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,47})/([A-Za-z0-9][A-Za-z0-9._-]{0,23})").match


@lru_cache(maxsize=1024)
def agent_of(user_agent: str) -> Agent:
    """A hint only: who calls REST or FHIR has not introduced itself the way an MCP client does (mcp.md §5)."""
    found = _product(user_agent)
    if not found:
        return Agent()
    return Agent(name=found[1], version=found[2], source="user-agent")
