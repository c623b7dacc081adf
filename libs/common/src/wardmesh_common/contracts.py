"""Every message and every subject of the mesh: reading this file is reading the mesh.

Messages are msgspec Structs in MessagePack (bodies are bytes and stay untouched). Unknown fields are ignored,
new fields have defaults: two versions work side by side during a rolling restart.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from msgspec import Struct

from wardmesh_common.errors import Problem
from wardmesh_common.streamed import Streamed
from wardmesh_common.vocabulary import Agent, Decision, Emergency, Face, Grant, Interaction, Principal, Resource

# --- Subjects ------------------------------------------------------------------------------------------------

IDENTIFY = "call.identify"
DECIDE = "call.decide"
PERFORM = "call.perform"  # + .<performer>, and + .<performer>.<instance> for one chosen replica (NB-10)
CANCEL = "mesh.cancel"  # the gateway tells every station that a caller hung up
SEEK = "mesh.seek"  # the gateway asks every station: who holds this call?
LOAD = "mesh.load"  # + .<service>.<instance>: a performer's load, several times a second
RECORD = "audit.in"  # + .<log>: JetStream AUDIT_IN
GW_REPLY = "gw.reply"  # + .<replica>: an MCP client's answer, forwarded to the replica that waits for it
GW_CANCEL = "gw.cancel"
GW_EVENTS = "gw.events"
GW_RATE = "gw.rate"
GW_WAIT = "gw.wait"  # who waits for a sign-in, so that one caller does not wait twice

ASK_CATALOGUE = "ask.fhir.catalogue.get"
ASK_DIRECTORY = "ask.fhir.directory.search"
ASK_ORGANISATION = "ask.fhir.organisation.get"
ASK_KINDS = "ask.policy.kinds.check"
ASK_TOOLS = "ask.policy.tools.check"
ASK_KEY = "ask.audit.key.lend"
ASK_TOKEN = "ask.auth.token.check"  # noqa: S105 - a subject
ASK_RENEWAL = "ask.auth.token.renew"

EVENT_CATALOGUE_CHANGED = "event.fhir.catalogue.changed"
EVENT_POLICY_CHANGED = "event.policy.bundle.changed"
EVENT_SESSION_REVOKED = "event.auth.session.revoked"
EVENT_GRANT_CHANGED = "event.auth.grant.changed"
EVENT_VERSION_COMMITTED = "event.store.version.committed"  # + .<datastore>.<type>: JetStream STORE

# Who carries a call out, by the name in `Call.performer`. What is not FHIR is a *procedure*: an operation of ours,
# named by the tool, with a JSON object of arguments as body; policy judges it as a kind of its own.
PERFORMERS = {"fhir": "fhir-proxy", "auth": "auth", "audit": "audit"}
PROCEDURE_KINDS = {"auth": "SignIn", "audit": "Audit"}


class SubjectRule(Struct, frozen=True):
    """Who may publish a subject and who may subscribe to it, and in which queue group."""

    subject: str
    publishers: tuple[str, ...]
    subscribers: tuple[str, ...]
    queue: bool  # True: only inside the queue group named like the service


STATIONS = ("auth", "policy", "fhir-proxy", "audit")
SERVICES = ("gateway", *STATIONS)
STORE = "fhir-store"  # no station: all it does on the bus is to say what changed (ST-73)
USERS = (*SERVICES, STORE, "operations")  # of the broker

# The table that deploy/nats/nats.conf is compared with (AR-2). Inboxes: see `inbox_of`.
SUBJECTS: tuple[SubjectRule, ...] = (
    SubjectRule(IDENTIFY, ("gateway",), ("auth",), True),
    SubjectRule(DECIDE, ("auth",), ("policy",), True),
    *(SubjectRule(f"{PERFORM}.{name}", ("policy",), (service,), True) for name, service in PERFORMERS.items()),
    *(SubjectRule(f"{PERFORM}.{name}.*", ("policy",), (service,), False) for name, service in PERFORMERS.items()),
    SubjectRule(CANCEL, ("gateway",), STATIONS, False),
    SubjectRule(SEEK, ("gateway",), STATIONS, False),
    *(SubjectRule(f"{LOAD}.{service}.*", (service,), ("policy",), False) for service in PERFORMERS.values()),
    SubjectRule(f"{RECORD}.*", SERVICES, (), False),
    SubjectRule(f"{GW_REPLY}.*", ("gateway",), ("gateway",), False),
    SubjectRule(GW_CANCEL, ("gateway",), ("gateway",), False),
    SubjectRule(GW_EVENTS, ("gateway",), ("gateway",), False),
    SubjectRule(GW_RATE, ("gateway",), ("gateway",), False),
    SubjectRule(GW_WAIT, ("gateway",), ("gateway",), False),
    SubjectRule(ASK_CATALOGUE, ("gateway", "auth", "policy"), ("fhir-proxy",), True),
    SubjectRule(ASK_DIRECTORY, ("gateway",), ("fhir-proxy",), True),
    SubjectRule(ASK_ORGANISATION, ("gateway", "auth"), ("fhir-proxy",), True),
    SubjectRule(ASK_KINDS, ("fhir-proxy",), ("policy",), True),
    SubjectRule(ASK_TOOLS, ("gateway",), ("policy",), True),
    SubjectRule(ASK_KEY, ("gateway", *STATIONS), ("audit",), True),
    SubjectRule(ASK_TOKEN, ("gateway",), ("auth",), True),
    SubjectRule(ASK_RENEWAL, ("fhir-proxy",), ("auth",), True),
    SubjectRule(EVENT_CATALOGUE_CHANGED, ("fhir-proxy",), ("gateway", "auth", "policy"), False),
    SubjectRule(EVENT_POLICY_CHANGED, ("policy",), ("gateway", "policy"), False),
    SubjectRule(EVENT_SESSION_REVOKED, ("auth",), ("gateway", "auth"), False),
    SubjectRule(EVENT_GRANT_CHANGED, ("auth",), ("auth",), False),
    SubjectRule(f"{EVENT_VERSION_COMMITTED}.*.*", (STORE,), (), False),
)


def perform_subject(performer: str, instance: str = "") -> str:
    """`call.perform.fhir`, or `call.perform.fhir.<instance>` for one replica."""
    return f"{PERFORM}.{performer}.{instance}" if instance else f"{PERFORM}.{performer}"


def inbox_of(service: str, instance: str) -> str:
    """Prefix of a replica's private inbox: `_INBOX_<service>.<instance>`."""
    return f"_INBOX_{service}.{instance}"


# --- The Call and its stamps ---------------------------------------------------------------------------------


class Caller(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the gateway saw of the caller. The credential goes to auth and is removed there (`without_credential`)."""

    bearer: str = ""
    cookie: str = ""
    handle: str = ""  # auth_handle: stands for the principal that called start_auth (FG-26)
    emergency: str = ""  # the pass of a break-glass access; auth opens it
    agent: Agent = Agent()
    ip: str = ""  # from proxy headers only when the peer is a trusted proxy
    user_agent: str = ""
    anonymous_listener: bool = False  # set only by the loopback conformance listener


class Parked(Struct, frozen=True, kw_only=True):
    """A request body too large for one message: it waits at the gateway until the performer fetches it."""

    subject: str
    size: int
    sha256: str


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry of a batch or transaction as policy sees it: the request it stands for (PX-10)."""

    method: str
    url: str
    if_none_exist: str = ""  # a conditional create also searches (PX-12)


class View(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much of the answer the face wants: everything, or a projection that a model can read."""

    model: bool = False
    max_bytes: int = 0  # 0 = no cap; the performer never cuts silently (B-1)


class Call(Struct, kw_only=True, omit_defaults=True):
    """One request on its way through the stations; each station adds its stamp and hands it on.

    `sent_at` is the wall clock of the last sender (unix seconds) and `remaining_ms` the budget left when it sent;
    `deadline` is absolute by the gateway's clock and goes into records. `query` is the raw query string: pairs,
    order and repetitions are kept (PX-5).
    """

    id: str
    reply_to: str
    face: Face
    tool: str
    interaction: Interaction
    platform: str
    deadline: float
    resource: Resource = Resource()
    performer: str = "fhir"
    operation: str = ""
    query: str = ""
    body: bytes = b""
    parked: Parked | None = None
    media_type: str = ""
    headers: dict[str, str] = {}  # PX-4 names only, lower case
    entries: tuple[Entry, ...] = ()
    view: View = View()
    base_url: str = ""  # public base of the face for this platform; links in the answer point there
    caller: Caller = Caller()
    received_at: float = 0.0
    traceparent: str = ""
    attempt: int = 0
    sent_at: float = 0.0
    remaining_ms: int = 0
    principal: Principal | None = None
    grant: Grant | None = None
    decision: Decision | None = None
    emergency: Emergency | None = None  # stamped by auth alone

    @property
    def procedure(self) -> bool:
        """True for an operation of our own: sign-in, audit queries. Anything else goes to a platform."""
        return self.performer in PROCEDURE_KINDS

    def digest(self) -> str:
        """SHA-256 over everything a Decision must cover: who, what, where, with which arguments (AR-5)."""
        body = self.parked.sha256 if self.parked else hashlib.sha256(self.body).hexdigest() if self.body else ""
        who = self.principal.id if self.principal else ""
        parts = (
            self.id,
            who,
            self.platform,
            self.tool,
            str(self.interaction),
            self.resource.type,
            self.resource.id,
            self.resource.version,
            self.operation,
            self.query,
            body,
            self.headers.get("if-none-exist", ""),
            *((self.emergency.id,) if self.emergency else ()),
        )
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


class Touched(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One patient whose data an answer holds, for the record: `patient` is `<platform>/Patient/<id>` or ""."""

    patient: str = ""
    type: str = ""
    ids: tuple[str, ...] = ()
    count: int = 0
    relationship: str = ""  # of the caller to this patient, where the answer itself shows one
    entry: int = 0  # position of the entry of a batch or transaction that it was about


class Outcome(Struct, kw_only=True, omit_defaults=True):
    """How a journey ended. `touched` is for the record only and never travels to the gateway."""

    status: int
    body: bytes = b""
    media_type: str = "application/fhir+json"
    headers: dict[str, str] = {}
    problem: Problem | None = None
    touched: tuple[Touched, ...] = ()
    masked: int = 0  # resources changed by a mask
    withheld: int = 0  # resources removed by policy
    truncated: bool = False
    expected: bool = True  # False: a bug of ours, log it
    event: str = ""  # what happened, in the words of FG-19, where the interaction does not say it
    facts: dict[str, Any] = {}  # numbers and codes for the record; they never travel
    sealed: dict[str, Any] = {}  # free text for the sealed part of the record
    stream: Streamed | None = None  # instead of `body`: content that nobody looks into, however large
    entries: tuple[int, ...] = ()  # how each entry of a batch or transaction ended; for the record only
    broken_after: int = -1  # bytes that had left when the answer broke off: what is recorded after its first record


class Reply(Struct, kw_only=True, omit_defaults=True):
    """What reaches the gateway's inbox. A body above the chunk limit follows as `Chunk`s (NB-11)."""

    call_id: str
    status: int
    body: bytes = b""
    media_type: str = ""
    headers: dict[str, str] = {}
    problem: Problem | None = None
    truncated: bool = False
    masked: int = 0
    withheld: int = 0
    chunked_bytes: int = 0  # > 0: size of the body that follows in chunks; UNKNOWN_SIZE: the last chunk tells
    credit_to: str = ""  # where the receiver sends its credits
    streamed: bool = False  # the body is still being received: it may outlive the deadline of the call
    decision_id: str = ""
    station: str = ""
    refused_id: str = ""  # whom policy refused, and with which roles: SM-6 has a text that names both
    refused_roles: tuple[str, ...] = ()


class Chunk(Struct, kw_only=True, array_like=True):
    call_id: str
    seq: int
    last: bool
    data: bytes


class Credit(Struct, kw_only=True, array_like=True):
    """The receiver has room: everything below `upto` may be sent. A negative value cancels the transfer."""

    call_id: str
    upto: int
    reply_to: str = ""


# --- Codec ---------------------------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()
_call_decoder = msgspec.msgpack.Decoder(Call)
_reply_decoder = msgspec.msgpack.Decoder(Reply)


def encode(message: Any) -> bytes:
    return _encoder.encode(message)


def decode_call(data: bytes) -> Call:
    """Raises msgspec.DecodeError on anything that is not a Call; the message text must not be shown to callers."""
    return _call_decoder.decode(data)


def decode_reply(data: bytes) -> Reply:
    return _reply_decoder.decode(data)
