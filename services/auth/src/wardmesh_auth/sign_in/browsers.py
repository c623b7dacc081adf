"""The browser that stands behind a procedure: its session, or a new one for a browser that has none yet."""

from __future__ import annotations

from msgspec import Struct

from wardmesh_auth.journal import Journal
from wardmesh_auth.sessions import Sessions, is_session
from wardmesh_auth.sign_in.results import Cookie
from wardmesh_common.contracts import Call
from wardmesh_common.vocabulary import Principal


class Browser(Struct, frozen=True):
    principal: Principal
    cookie: Cookie  # empty for a browser that we know

    @property
    def nobody(self) -> bool:
        """Nobody has signed in here with this browser."""
        return is_session(self.principal.id)


class Browsers:
    def __init__(self, sessions: Sessions, journal: Journal) -> None:
        self._sessions, self._journal = sessions, journal

    async def known_or_new(self, call: Call) -> Browser:
        principal = caller(call)
        if principal.session:
            return Browser(principal, Cookie())
        return await self.new(call, None)

    async def new(self, call: Call, principal: Principal | None) -> Browser:
        """`None`: a session in which nobody signed in, a principal of its own."""
        made = await self._sessions.create(principal)
        await self._journal.beside(call, "session.create", made.principal)
        return Browser(made.principal, Cookie(session=made.secret, max_age=self._sessions.max_age))


def caller(call: Call) -> Principal:
    assert call.principal is not None, "the pair assertion comes first"
    return call.principal
