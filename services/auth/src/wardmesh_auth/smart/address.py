"""Which addresses a sign-in may reach: public ones over TLS; this machine and private networks by their file."""

from __future__ import annotations

import ipaddress
import socket
from enum import StrEnum
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

from wardmesh_common.questions import PlatformFacts

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# Ranges that lead to an IPv4 address by another name: translation and tunnels.
_DISGUISES = tuple(ipaddress.ip_network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))
# Words in a host name that say: not production.
_REHEARSAL = frozenset({"sandbox", "sbx", "staging", "stg", "stage", "uat", "test", "demo", "preprod"})


class Zone(StrEnum):
    """How far the documents of a platform may lead us."""

    PUBLIC = "public"
    LOOPBACK = "loopback"  # development: the platform's own file names this machine
    PRIVATE = "private"  # the operator's network, by the platform's file


def zone_of(facts: PlatformFacts) -> Zone:
    """Only the platform's file decides; nothing that a platform answers widens it."""
    if facts.sign_in.private_network:
        return Zone.PRIVATE
    named = (facts.fhir_base_url, facts.token_url)
    return Zone.LOOPBACK if any(urlsplit(url).hostname in _LOOPBACK for url in named if url) else Zone.PUBLIC


def reachable(url: str, zone: Zone) -> bool:
    """True when this address may be opened at all; where a name leads is checked when it is resolved."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if not host or "{" in url or "@" in parts.netloc or parts.fragment or not url.isprintable() or " " in url:
        return False
    if host in _LOOPBACK:
        return parts.scheme in ("http", "https") and zone is Zone.LOOPBACK
    return parts.scheme == "https" and (zone is Zone.PRIVATE or not _literal(host) or public(host))


def public(address: str) -> bool:
    """True for an IP address of the open internet."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        elif any(found in net for net in _DISGUISES):
            return False
    return found.is_global and not found.is_multicast


def mixed(facts: PlatformFacts, urls: tuple[str, ...]) -> bool:
    """True when a production FHIR base would go with the sign-in of a sandbox (X-11)."""
    base = urlsplit(facts.fhir_base_url).hostname or ""
    if facts.type == "sandbox" or not base or _words(base) & _REHEARSAL:
        return False
    rehearsal = urlsplit(facts.sandbox_url).hostname or ""
    hosts = {urlsplit(url).hostname or "" for url in urls} - {base, ""}
    return any(host == rehearsal or _words(host) & _REHEARSAL for host in hosts)


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses only, at the moment of connecting: no name can be moved in between."""

    def __init__(self) -> None:
        self._resolver = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = [entry for entry in await self._resolver.resolve(host, port, family) if public(entry["host"])]
        if not found:
            raise OSError("the name leads to no public address")
        return found

    async def close(self) -> None:
        await self._resolver.close()


def _literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _words(host: str) -> set[str]:
    return set(host.lower().replace("-", ".").split("."))
