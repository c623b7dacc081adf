"""Cross-site requests: where only a cookie says who it is, a page of ours must have sent what changes something."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from wardmesh_common.errors import Denied
from wardmesh_gateway.asgi import Request

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class CrossSite(Denied):
    """The browser was sent here by somebody else's page, or nothing shows that it was not."""

    code = "csrf_violation"


class SameSite:
    """Origin and Sec-Fetch-Site are the browser's own words; a page of another site cannot choose them."""

    def __init__(self, public_url: str, origins: Iterable[str]) -> None:
        parts = urlsplit(public_url)
        named = {origin.rstrip("/").lower() for origin in origins if origin != "*"}
        self._origins = frozenset({f"{parts.scheme}://{parts.netloc}".lower(), *named})

    def check(self, request: Request) -> None:
        """For what authenticates by cookie alone. Raises CrossSite."""
        if request.method in _SAFE:
            return
        self.own_page(request)
        require_header(request)

    def own_page(self, request: Request) -> None:
        """Raises CrossSite unless the browser says that the page is ours, or it is no browser."""
        site = request.header(b"sec-fetch-site").lower()
        origin = request.header(b"origin").lower()
        if site == "same-origin" or (origin and origin in self._origins):
            return
        if origin or site in ("cross-site", "same-site"):
            raise CrossSite("A page of another site may not do this.")


def require_header(request: Request) -> None:
    """A header that no form and no link can send. Raises CrossSite."""
    if not request.header(b"x-requested-with"):
        raise CrossSite("Missing required header: X-Requested-With")
