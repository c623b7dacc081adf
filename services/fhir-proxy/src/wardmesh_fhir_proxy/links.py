"""Addresses of a platform turned into ours, and back: parsed and rebuilt, never replaced as text (PX-1, PX-3)."""

from __future__ import annotations

import re
from urllib.parse import quote, urljoin

from wardmesh_fhir_proxy.descriptor import Descriptor

# Lenient on purpose: servers emit doubled ports and unencoded characters that urlsplit refuses or keeps.
_ABSOLUTE = re.compile(
    r"(?i)(https?)://(?:[^/?#@]*@)?(\[[^\]]*\]|[^/?#:]*)((?::[^/?#]*)?)([^?#]*)(?:\?([^#]*))?(?:#.*)?"
)
_SAFE = "/:?#[]@!$&'()*+,;=%-._~"


class Address:
    """One platform base and the host names that mean the same server."""

    def __init__(self, base: str, aliases: tuple[str, ...] = ()) -> None:
        self.base = base.rstrip("/")
        match = _ABSOLUTE.fullmatch(self.base)
        assert match is not None, "descriptors hold checked URLs"
        self.origin = f"{match[1].lower()}://{match[2]}{match[3]}"
        self.path = match[4]
        self.host = match[2].lower()
        self._hosts = {self.host, *(alias.lower().partition(":")[0] for alias in aliases)}
        self._prefix = f"{self.base}/"

    @classmethod
    def of(cls, descriptor: Descriptor) -> Address:
        return cls(descriptor.bases.patient, descriptor.page_link.hosts)

    def suffix(self, url: str) -> str | None:
        """What follows the base (`Patient/1`, `?page=2`), or None when the URL is not one of this platform's."""
        if url.startswith(self._prefix):
            return url[len(self._prefix) :]
        match = _ABSOLUTE.fullmatch(url.strip())
        if match is None:
            return self._relative(url)
        path, query = match[4], match[5]
        if match[2].lower() not in self._hosts or not (path == self.path or path.startswith(f"{self.path}/")):
            return None
        rest = path[len(self.path) :].lstrip("/")
        return rest if query is None else f"{rest}?{query}"

    def _relative(self, url: str) -> str | None:
        if "://" in url or url.startswith(("//", "urn:", "#")):
            return None
        joined = urljoin(self._prefix, url)
        return joined[len(self._prefix) :] if joined.startswith(self._prefix) else None

    def url(self, suffix: str) -> str:
        """The address to request: always our configured origin and path, characters made legal."""
        clean = quote(suffix, safe=_SAFE)
        return f"{self.base}{clean}" if clean.startswith("?") else f"{self._prefix}{clean}"

    def owns(self, url: str) -> bool:
        """True for an absolute URL of this very platform: what a page cursor may hold."""
        return "://" in url and self.suffix(url) is not None


def ours(base_url: str, suffix: str) -> str:
    """The same thing under the gateway's base; a call without a base gets relative addresses."""
    base = base_url.rstrip("/")
    if not base:
        return suffix
    return f"{base}{suffix}" if suffix.startswith("?") else f"{base}/{suffix}"


def rewrite(address: Address, base_url: str, url: str) -> str | None:
    """An upstream address as ours; urn: and the like stay; None when it cannot be mapped."""
    if url.startswith(("urn:", "#")):
        return url
    suffix = address.suffix(url)
    return None if suffix is None or ".." in suffix.partition("?")[0].split("/") else ours(base_url, suffix)
