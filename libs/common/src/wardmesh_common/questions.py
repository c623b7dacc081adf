"""Messages that are asked or told beside the path of a call: catalogue, kinds, tools, keys, load, events."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from wardmesh_common.errors import Problem
from wardmesh_common.sign_in_facts import SignInFacts
from wardmesh_common.vocabulary import Decision, Grant, Interaction, Principal


class Ask(Struct, kw_only=True, omit_defaults=True):
    """Envelope of request/reply on `ask.>`: identity and deadline as in a Call, `body` is MessagePack."""

    id: str
    sent_at: float
    remaining_ms: int
    body: msgspec.Raw = msgspec.Raw()
    principal: Principal | None = None
    traceparent: str = ""


class Answer(Struct, kw_only=True, omit_defaults=True):
    body: msgspec.Raw = msgspec.Raw()
    problem: Problem | None = None


class PlatformFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the other services may know of a platform; the descriptor itself stays in fhir-proxy."""

    id: str
    name: str
    type: str
    fhir_base_url: str = ""
    sandbox_url: str = ""
    developer_portal: str = ""
    support_email: str = ""
    fhir_version: str = ""
    capabilities: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    name_patterns: tuple[str, ...] = ()
    payer_ids: tuple[str, ...] = ()
    has_oauth: bool = False
    authorize_url: str = ""
    token_url: str = ""
    scopes: str = ""
    auth_method: str = "none"  # none | client_credentials | authorization_code
    token_auth: str = "client_secret_basic"  # noqa: S105
    verification_status: str = "template"
    verified_on: str = ""
    live: bool = False  # upstream_status head-live: wins among shared aliases
    open: bool = False  # anonymous reads are allowed (FG-39)
    writes: bool = False  # mutating interactions are allowed at all (B-17)
    rate_limited: bool = False  # it publishes a rate: one replica of the performer makes all calls and counts (B-16)
    served_by: str = ""  # another platform id that answers while this one has no base (FG-27)
    sign_in: SignInFacts = SignInFacts()
    organisations: int = 0  # how many organisations with addresses of their own are listed behind this vendor
    vendor: str = ""  # for one of those organisations: whose descriptor, client and rules it shares
    datastore_region: str = ""  # datastores can be created behind it, in this region unless another is named

    @property
    def callable(self) -> bool:
        """It has an address; that of an organisation or datastore is known where it is needed, not here."""
        return bool(self.fhir_base_url or self.vendor or self.datastore_region)


class CatalogueQuestion(Struct, frozen=True, kw_only=True):
    """Nothing to say: the whole catalogue is wanted."""


class Catalogue(Struct, frozen=True, kw_only=True):
    version: str
    platforms: tuple[PlatformFacts, ...]


class DirectoryQuestion(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Organisations and platforms by name, city or state. `vendor` narrows to the lists of one vendor."""

    text: str
    state: str = ""
    vendor: str = ""
    limit: int = 10


class Candidate(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One place that fits; `listed_on` and `source` say whose list it stands in and how old that is."""

    platform: str
    name: str
    vendor: str = ""
    city: str = ""
    state: str = ""
    fhir_base_url: str = ""
    verification_status: str = "unverified"
    verified_on: str = ""
    source: str = ""
    listed_on: str = ""
    score: float = 0.0


class DirectoryAnswer(Struct, frozen=True, kw_only=True):
    candidates: tuple[Candidate, ...]
    total: int


class OrganisationQuestion(Struct, frozen=True, kw_only=True):
    """The facts of one organisation, address included. Refused with `platform_not_found` when nobody lists it."""

    platform: str


class KindsQuestion(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """May this principal read these kinds? Asked by fhir-proxy for types that came along in an answer (PX-11)."""

    principal: Principal
    platform: str
    interaction: Interaction
    kinds: tuple[str, ...]
    grant: Grant | None = None  # of the call, without its token: some people's only right is their own sign-in


class KindVerdict(Struct, frozen=True, kw_only=True):
    kind: str
    decision: Decision


class KindsAnswer(Struct, frozen=True, kw_only=True):
    verdicts: tuple[KindVerdict, ...]


class ToolsQuestion(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which of these tools may this caller use at all? `tools` maps tool name to its interaction, `procedures`
    the name of an operation of ours to its performer, `operations` a tool to the one operation that it runs."""

    principal: Principal
    tools: dict[str, Interaction]
    procedures: dict[str, str] = {}
    operations: dict[str, str] = {}


class ToolsAnswer(Struct, frozen=True, kw_only=True):
    allowed: tuple[str, ...]


class TokenQuestion(Struct, frozen=True, kw_only=True):
    """An access token that is no JWT: auth has the issuer introspect it (OA-4)."""

    token: str

    def __repr__(self) -> str:
        return "TokenQuestion()"


class TokenAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the issuer says of an active token; for any other one the answer is Unauthenticated."""

    issuer: str
    subject: str
    principal_id: str
    client_id: str = ""
    scopes: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    expires_at: float = 0.0


class RenewalQuestion(Struct, frozen=True, kw_only=True):
    """A platform answered 401 to the token of this call. Showing it proves that the asker was lent it (PX-9)."""

    call_id: str
    platform: str
    tenant: str
    principal_id: str
    sealed_token: bytes


class RenewalAnswer(Struct, frozen=True, kw_only=True):
    sealed_token: bytes  # a new one, for the same call


class KeyQuestion(Struct, frozen=True, kw_only=True):
    """A station asks for the data keys of patients it is about to record; answers are sealed to its X25519 key."""

    public_key: bytes
    tenant: str
    patients: tuple[str, ...]  # `<platform>/Patient/<id>`; "" = the tenant key


class LentKey(Struct, frozen=True, kw_only=True):
    kid: str  # 32 hex characters
    pseudonym: str  # 32 hex characters
    sealed_key: bytes  # nonce || AES-256-GCM ciphertext under the shared secret


class KeyAnswer(Struct, frozen=True, kw_only=True):
    public_key: bytes
    keys: tuple[LentKey, ...]


class Load(Struct, frozen=True, kw_only=True):
    """A performer's load; receivers forget it after a second."""

    instance: str
    in_flight: int
    latency_ms: float


class SessionRevoked(Struct, frozen=True, kw_only=True, omit_defaults=True):
    session: str = ""
    principal: str = ""
    token_digest: str = ""
    at: float = 0.0  # by the database's clock; everything issued to `principal` up to then is void


class GrantChanged(Struct, frozen=True, kw_only=True):
    """A sign-in at a platform ended or a grant went: who waits for it looks again. `principal` is a digest."""

    principal: str
    platform: str


class VersionCommitted(Struct, frozen=True, kw_only=True):
    """The embedded store committed a version (ST-73): which one, never what is in it. Told at least once, each
    resource's versions in their order; `datastore`, `type`, `id` and `version` together name an event."""

    datastore: str
    type: str
    id: str
    version: int
    method: str  # POST, PUT, PATCH, DELETE
    at: float  # unix seconds, `meta.lastUpdated`


class RateReport(Struct, frozen=True, kw_only=True):
    """What one gateway replica admitted since its last report: keyed digest of the caller -> requests."""

    replica: str
    counts: dict[bytes, int]


class WaitReport(Struct, frozen=True, kw_only=True):
    """Somebody waits for a sign-in at this gateway replica, or has stopped to; `digest` is keyed."""

    replica: str
    digest: bytes
    waiting: bool


class Changed(Struct, frozen=True, kw_only=True):
    """A catalogue or policy bundle changed; receivers fetch or flush."""

    version: str
