"""Puts the parts of sign-in together and says which procedure is whose."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from wardmesh_auth.accounts.log_ins import LogIns
from wardmesh_auth.break_glass import BreakGlass, CloseGlass, OpenGlass
from wardmesh_auth.client_key_ring import ClientKeyRing
from wardmesh_auth.database import Database
from wardmesh_auth.grant_store import GrantStore
from wardmesh_auth.journal import Journal
from wardmesh_auth.procedures import Procedure
from wardmesh_auth.sessions import Sessions
from wardmesh_auth.sign_in import arguments
from wardmesh_auth.sign_in.attempts import Attempts
from wardmesh_auth.sign_in.browsers import Browsers
from wardmesh_auth.sign_in.consents import Consents
from wardmesh_auth.sign_in.ending import Ending, RevokesToken
from wardmesh_auth.sign_in.finishing import Finishing, TellsGrant
from wardmesh_auth.sign_in.handles import AuthHandles
from wardmesh_auth.sign_in.pending import PendingSignIns
from wardmesh_auth.sign_in.people import People
from wardmesh_auth.sign_in.person import PersonSignIn
from wardmesh_auth.sign_in.results import answer
from wardmesh_auth.sign_in.starting import Starting
from wardmesh_auth.sign_in.watching import Waiters, Watching
from wardmesh_auth.smart.client import SmartClient
from wardmesh_common.contracts import Call, Outcome


class Parts(Struct, frozen=True, kw_only=True):
    """What sign-in is made of; the composition root fills it."""

    database: Database
    attempts: Attempts
    pending: PendingSignIns
    consents: Consents
    people: People
    sessions: Sessions
    handles: AuthHandles
    smart: SmartClient
    store: GrantStore
    journal: Journal
    waiters: Waiters
    client_keys: ClientKeyRing
    tell: TellsGrant
    revoke_token: RevokesToken
    log_ins: LogIns
    break_glass: BreakGlass
    public_url: str


def procedures(parts: Parts) -> dict[str, Procedure]:
    browsers = Browsers(parts.sessions, parts.journal)
    ending = _ending(parts)
    person = _person(parts, browsers, ending)
    starting = Starting(parts.attempts, parts.pending, browsers, parts.handles, person.first, parts.public_url)
    finishing = _finishing(parts, person)
    watching = Watching(parts.attempts, parts.consents, parts.store, parts.waiters)

    async def published_keys(_call: Call, _asked: arguments.Nothing) -> Outcome:
        return answer(parts.client_keys().jwks())

    return {
        "start_auth": _plain(arguments.Start, starting.start),
        "open_auth": _plain(arguments.Open, starting.open),
        "finish_auth": _plain(arguments.Finish, finishing.finish),
        "complete_auth": _plain(arguments.Complete, finishing.complete),
        "wait_for_auth": Procedure(arguments.Wait, watching.wait),
        "get_auth_status": _plain(arguments.OfPlatform, watching.status),
        "revoke_auth": _plain(arguments.OfPlatform, ending.revoke),
        "cancel_auth": _plain(arguments.OfPlatform, ending.cancel),
        "sign_in": _plain(arguments.SignIn, person.begin),
        "sign_out": _plain(arguments.SignOut, ending.sign_out),
        "issue_tokens": _plain(arguments.LogIn, parts.log_ins.issue),
        "refresh_tokens": _plain(arguments.Refresh, parts.log_ins.refresh),
        "open_break_glass": _plain(OpenGlass, parts.break_glass.open),
        "close_break_glass": _plain(CloseGlass, parts.break_glass.close),
        "published_keys": _plain(arguments.Nothing, published_keys),
    }


def _ending(parts: Parts) -> Ending:
    return Ending(
        parts.database,
        parts.attempts,
        parts.pending,
        parts.consents,
        parts.sessions,
        parts.store,
        parts.smart,
        parts.journal,
        parts.tell,
        parts.revoke_token,
        parts.log_ins,
    )


def _person(parts: Parts, browsers: Browsers, ending: Ending) -> PersonSignIn:
    return PersonSignIn(
        parts.database,
        parts.people,
        parts.pending,
        browsers,
        parts.smart,
        parts.store,
        parts.tell,
        ending.replaced,
        parts.log_ins,
    )


def _finishing(parts: Parts, person: PersonSignIn) -> Finishing:
    return Finishing(
        parts.attempts,
        parts.pending,
        parts.consents,
        parts.smart,
        parts.store,
        parts.journal,
        parts.tell,
        person.finish,
    )


def _plain(kind: type[Struct], carry_out: Any) -> Procedure:
    """A procedure that does not ask how much time is left."""

    async def carry(call: Call, asked: Any, _hop: Any) -> Outcome:
        return await carry_out(call, asked)

    return Procedure(kind, carry)
