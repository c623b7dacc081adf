"""Agents by the name they give themselves: a DID for each, registered by itself at first contact (IB-7)."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Struct
from sqlalchemy.dialects.postgresql import insert

from wardmesh_auth.bounded import Bounded
from wardmesh_auth.database import Database
from wardmesh_auth.journal import Journal
from wardmesh_auth.tables import agent as row
from wardmesh_common.contracts import Call
from wardmesh_common.errors import AuditUnavailable, Unavailable
from wardmesh_common.vocabulary import Agent, Principal

UNKNOWN = Agent().id
EVENT = "agent.register"
_REMEMBERED_SECONDS = 3600.0
# While one call registers an agent, and after a failure, the others go on: none waits for a database that hangs.
_AGAIN_SECONDS = 30.0
# The name is the caller's own word: nobody may fill the register with made-up ones.
_PER_PRINCIPAL = 32

log = logging.getLogger("wardmesh.auth")


class Naming(Struct, frozen=True, kw_only=True):
    """What a deployment adds to the names of agents."""

    host: str  # where DIDs of agents live
    organisation: str = ""
    developer_did: str = ""

    def named(self, agent: Agent) -> Agent:
        """With the organisation in its id and with its DID; who does not say who it is gets neither."""
        if agent.id == UNKNOWN:
            return agent
        identity, did = _names(agent.id, self.host, self.organisation)
        return msgspec.structs.replace(agent, id=identity, did=did, developer_did=self.developer_did)


@lru_cache(maxsize=4096)
def _names(agent: str, host: str, organisation: str) -> tuple[str, str]:
    suffix = re.sub(r"[^a-z0-9.]+", "-", organisation.lower()).strip("-")
    identity = f"{agent}-{suffix}" if suffix else agent
    letters = re.sub(r"[^A-Za-z0-9]", "", identity)
    return identity, f"did:web:{quote(host, safe='.-')}:{letters}"


def host_of(agents_host: str, public_url: str) -> str:
    return agents_host or urlsplit(public_url).netloc


class AgentRegister:
    """One row per agent, whichever replica meets it first; the record stands before the row does."""

    def __init__(self, database: Database, journal: Journal) -> None:
        self._database, self._journal = database, journal
        self._known: Bounded[str, bool] = Bounded(10_000)
        self._newcomers: Bounded[str, int] = Bounded(10_000)

    async def meet(self, call: Call, principal: Principal) -> None:
        """Registers the agent of this principal once. Raises AuditUnavailable when that could not be recorded."""
        agent = principal.agent
        if agent.id == UNKNOWN or principal.anonymous or self._known.get(agent.id):
            return
        if (self._newcomers.get(principal.id) or 0) >= _PER_PRINCIPAL:
            return
        # Both are noted before anything is waited for: calls that come together must not all pass.
        self._known.put(agent.id, True, _AGAIN_SECONDS)
        self._count(principal, 1)
        added = False
        try:
            added = await self._add(call, principal)
            self._known.put(agent.id, True, _REMEMBERED_SECONDS)
        except AuditUnavailable:
            self._known.drop(agent.id)
            raise
        except Unavailable:
            log.warning("an agent was not registered: the database cannot be used")
        finally:
            if not added:
                self._count(principal, -1)

    def _count(self, principal: Principal, newcomers: int) -> None:
        met = (self._newcomers.get(principal.id) or 0) + newcomers
        self._newcomers.put(principal.id, max(0, met), _REMEMBERED_SECONDS)

    async def _add(self, call: Call, principal: Principal) -> bool:
        agent = principal.agent
        added = (
            insert(row)
            .values(id=agent.id, did=agent.did, developer_did=agent.developer_did, name=agent.name)
            .on_conflict_do_nothing()
            .returning(row.c.id)
        )
        async with self._database.transaction() as connection:
            new = (await connection.execute(added)).one_or_none() is not None
            if new:
                await self._journal.beside(call, EVENT, principal)
        return new
