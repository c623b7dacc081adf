"""The parts of auth put together; nothing runs yet (see app.py)."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import aiohttp

from wardmesh_auth.accounts.log_ins import LogIns
from wardmesh_auth.accounts.passwords import Passwords
from wardmesh_auth.accounts.store import Accounts
from wardmesh_auth.agents import AgentRegister, Naming, host_of
from wardmesh_auth.bearers import Bearers
from wardmesh_auth.break_glass import BreakGlass, Passes
from wardmesh_auth.break_glass_limit import Openings
from wardmesh_auth.catalogue import Platforms
from wardmesh_auth.client_key_ring import ClientKeyRing
from wardmesh_auth.database import Database, engine_for
from wardmesh_auth.fetch import fetching
from wardmesh_auth.grant_store import GrantKey, GrantStore, principal_digest
from wardmesh_auth.grants import Grants
from wardmesh_auth.identify import Identifier, Roles
from wardmesh_auth.introspection import introspection_of
from wardmesh_auth.journal import Journal, Records
from wardmesh_auth.platform_tokens import PlatformTokens
from wardmesh_auth.procedures import Procedures
from wardmesh_auth.renewals import Renewals
from wardmesh_auth.revocations import Revocations
from wardmesh_auth.sessions import Sessions, session_principal
from wardmesh_auth.settings import AuthSettings, PlatformClients, has_master_key, master_ring
from wardmesh_auth.sign_in.attempts import Attempts
from wardmesh_auth.sign_in.consents import Consents
from wardmesh_auth.sign_in.desk import Parts, procedures
from wardmesh_auth.sign_in.handles import AuthHandles
from wardmesh_auth.sign_in.owners import HandleOwners
from wardmesh_auth.sign_in.pending import PendingSignIns
from wardmesh_auth.sign_in.people import People
from wardmesh_auth.sign_in.watching import Waiters
from wardmesh_auth.smart.client import SmartClient
from wardmesh_auth.smart.discovery import Discovery
from wardmesh_auth.smart.wire import Wire
from wardmesh_auth.vault import Vault
from wardmesh_common.bus import Bus
from wardmesh_common.contracts import EVENT_GRANT_CHANGED, EVENT_SESSION_REVOKED
from wardmesh_common.errors import Unauthenticated, WardmeshError
from wardmesh_common.issuer_keys import IssuerKeys
from wardmesh_common.local_tokens import LocalTokens
from wardmesh_common.questions import (
    Ask,
    GrantChanged,
    RenewalAnswer,
    RenewalQuestion,
    SessionRevoked,
    TokenAnswer,
    TokenQuestion,
)
from wardmesh_common.token_seal import parse_key
from wardmesh_common.tokens import KEPT_CLAIMS, TokenVerifier
from wardmesh_common.vocabulary import Principal

_SESSION_GRACE_SECONDS = 300.0  # clocks of replicas and database may differ by less
DEPLOYMENT_ACTOR = "wardmesh"  # who stands in the record of what the deployment does for itself

log = logging.getLogger("wardmesh.auth")


def _vault(settings: AuthSettings) -> Vault:
    if not has_master_key(settings):
        log.warning("no master key is set: what is stored is sealed with a key of this deployment only")
    return Vault(master_ring(settings))


class App:
    """The parts of a running auth that others (sign-in, operations, tests) use."""

    def __init__(
        self,
        settings: AuthSettings,
        bus: Bus,
        http: aiohttp.ClientSession,
        environ: Mapping[str, str],
        records: Records,
    ) -> None:
        self._bus = bus
        self.database = Database(engine_for(settings.database_url))
        self.revocations = Revocations(self.database, session_seconds=settings.session_max_age + _SESSION_GRACE_SECONDS)
        self.sessions = self._sessions(settings)
        vault = _vault(settings)
        self.store = GrantStore(self.database, vault)
        self.wire = Wire()
        self.client_keys = ClientKeyRing(self.database, vault)
        self.smart = SmartClient(Discovery(self.wire), self.wire, self.client_keys)
        self.tokens = PlatformTokens(Renewals(self.store, self.smart, self.renewed))
        self.platforms = Platforms(bus)
        self.keys = IssuerKeys(settings.issuer, fetching(http), jwks_uri=settings.jwks_uri)
        roles = Roles(settings.role_claims, settings.role_map)
        self.verifier = self._verifier(settings, roles)
        self.local_tokens = LocalTokens(settings.secret_key, settings.all_audiences[0]) if settings.secret_key else None
        self.bearers = Bearers(self.verifier, self.local_tokens, introspection_of(settings, http, self.verifier))
        clients = PlatformClients(environ, settings)
        self.journal = Journal(records)
        self.pending, self.consents = PendingSignIns(self.database, vault), Consents(self.database)
        self.waiters = Waiters()
        self.accounts = Accounts(self.database)
        self.log_ins = LogIns(self.accounts, Passwords(), self.local_tokens)
        seal_key = parse_key(settings.token_seal_key)
        handles = AuthHandles(seal_key)
        self.passes = Passes(seal_key, self.revocations.session_revoked)
        self.openings = Openings(
            self.database,
            self.revocations.session_revoked,
            at_once=settings.break_glass_at_once,
            per_day=settings.break_glass_per_day,
        )
        self.procedures = self._procedures(settings, clients, handles, roles)
        self.grants = Grants(
            self.platforms,
            self.tokens,
            clients.at,
            seal_key,
            anonymous_open=settings.anonymous_open_platforms,
        )
        self.identifier = self._identifier(settings, handles, roles)

    def _sessions(self, settings: AuthSettings) -> Sessions:
        return Sessions(
            self.database,
            self.revocations,
            self.tell_revoked,
            max_age_seconds=settings.session_max_age,
            idle_seconds=settings.session_idle_seconds,
        )

    def _identifier(self, settings: AuthSettings, handles: AuthHandles, roles: Roles) -> Identifier:
        return Identifier(
            self.bearers,
            self.sessions,
            self.revocations,
            self.grants,
            HandleOwners(handles, self.consents, self.platforms),
            self.passes,
            roles,
            settings.client_agents,
            Naming(
                host=host_of(settings.agents_host, settings.public_url),
                organisation=settings.agent_organisation,
                developer_did=settings.developer_did,
            ),
            AgentRegister(self.database, self.journal),
        )

    def _verifier(self, settings: AuthSettings, roles: Roles) -> TokenVerifier:
        return TokenVerifier(
            self.keys,
            issuer=settings.issuer,
            audiences=settings.all_audiences,
            token_types=settings.token_types,
            kept_claims=tuple({*KEPT_CLAIMS, *roles.claims}),
            skew_seconds=settings.clock_skew_seconds,
        )

    async def renewal(self, question: RenewalQuestion, _ask: Ask) -> RenewalAnswer:
        return await self.grants.renewed(question)

    async def checked(self, question: TokenQuestion, _ask: Ask) -> TokenAnswer:
        """The gateway cannot judge every token itself: an opaque one, or one that only we may verify."""
        token = await self.bearers.verify(question.token)
        if self.revocations.token_revoked(token):
            raise Unauthenticated("the access token has been revoked")
        return TokenAnswer(
            issuer=token.issuer,
            subject=token.subject,
            principal_id=token.principal_id,
            client_id=token.client_id,
            scopes=token.scopes,
            roles=self.identifier.roles_of(token),
            expires_at=token.expires_at,
        )

    def _procedures(
        self, settings: AuthSettings, clients: PlatformClients, handles: AuthHandles, roles: Roles
    ) -> Procedures:
        attempts = Attempts(
            self.database,
            self.pending,
            self.consents,
            self.platforms,
            clients.at,
            self.smart,
            settings.redirect_uri,
        )
        parts = Parts(
            database=self.database,
            attempts=attempts,
            pending=self.pending,
            consents=self.consents,
            people=People(settings, self.platforms, self.verifier, roles),
            sessions=self.sessions,
            handles=handles,
            smart=self.smart,
            store=self.store,
            journal=self.journal,
            waiters=self.waiters,
            client_keys=self.client_keys,
            tell=self.tell_grant,
            revoke_token=self.revoke_token,
            log_ins=self.log_ins,
            break_glass=BreakGlass(self.passes, self.openings.admit, self.close_pass),
            public_url=settings.public_url,
        )
        return Procedures(procedures(parts))

    async def renewed(self, key: GrantKey, failure: WardmeshError | None) -> None:
        """One record per renewal, however many calls waited for it."""
        await self.tell_grant(key)
        event = "token.refresh_failure" if failure else "token.refresh"
        owner = Principal(id=key.principal_id or DEPLOYMENT_ACTOR, tenant=key.tenant)
        await self.journal.on_its_own(event, owner, key.platform, failure.problem if failure else None)

    async def tell_grant(self, key: GrantKey) -> None:
        """A grant came, changed or went: this replica knows at once, the others by the event."""
        event = GrantChanged(principal=principal_digest(key), platform=key.platform)
        await self.heard_grant(event)
        await self._bus.tell(EVENT_GRANT_CHANGED, event)

    async def heard_grant(self, event: GrantChanged) -> None:
        self.tokens.changed(event)
        self.waiters.heard(event)

    async def tell_revoked(self, event: SessionRevoked) -> None:
        await self._bus.tell(EVENT_SESSION_REVOKED, event)

    async def revoke_token(self, digest: str) -> None:
        """Refuse one access token from now on, on every replica."""
        async with self.database.transaction() as connection:
            event = await self.revocations.write(connection, SessionRevoked(token_digest=digest))
        await self.heard_revoked(event)
        await self.tell_revoked(event)

    async def close_pass(self, emergency_id: str) -> None:
        """An emergency access ends before its time, on every replica; it is revoked like a session."""
        async with self.database.transaction() as connection:
            event = await self.revocations.write(connection, SessionRevoked(session=emergency_id))
        await self.heard_revoked(event)
        await self.tell_revoked(event)

    async def heard_revoked(self, event: SessionRevoked) -> None:
        self.revocations.heard(event)
        self.sessions.heard(event)
        self.bearers.forget(digest=event.token_digest, subject=event.principal)
        # A session in which nobody signed in is a principal of its own: what it was granted ends with it.
        gone = event.principal or (session_principal(event.session) if event.session else "")
        if gone:
            self.tokens.forget(gone)
            self.consents.heard(gone)

    async def sweep(self) -> None:
        gone = await self.sessions.sweep()
        await self.revocations.sweep()
        await self.pending.sweep()
        await self.consents.sweep()
        await self.store.sweep()
        await self.accounts.sweep()
        await self.openings.sweep()
        if gone:
            log.info("removed %d sessions that were over", gone)
            await self.journal.status("session.cleanup", {"removed": gone})

    async def close(self) -> None:
        await self.tokens.close()
        await self.platforms.stop()
        await self.keys.close()
        await self.bearers.close()
        await self.smart.close()
        await self.wire.close()
        await self.database.close()
