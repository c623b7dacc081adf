"""The words of the mesh: plain data without I/O that every service shares (docs/glossary.md)."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Interaction(StrEnum):
    """What is done to a resource: the FHIR RESTful interactions, R4 §3.1."""

    READ = "read"
    VREAD = "vread"
    SEARCH = "search"
    CREATE = "create"
    UPDATE = "update"
    PATCH = "patch"
    DELETE = "delete"
    HISTORY = "history"
    OPERATION = "operation"
    CAPABILITIES = "capabilities"
    BATCH = "batch"
    TRANSACTION = "transaction"


class Face(StrEnum):
    """The public surface a call came in through; it decides how an error is rendered, nothing else."""

    MCP = "mcp"
    REST = "rest"
    FHIR = "fhir"


WRITES = frozenset(
    {
        Interaction.CREATE,
        Interaction.UPDATE,
        Interaction.PATCH,
        Interaction.DELETE,
        Interaction.BATCH,
        Interaction.TRANSACTION,
    }
)

READS = frozenset({Interaction.READ, Interaction.VREAD})

# What policy calls the whole of a platform, for what concerns no type of resource.
SYSTEM = "System"

# What is done to datastores, their jobs and tags: our own words, carried out by fhir-proxy at a control plane.
DATASTORE_CHANGES = (
    "$create-datastore",
    "$delete-datastore",
    "$start-import-job",
    "$start-export-job",
    "$stop-import-job",
    "$stop-export-job",
    "$tag-datastore",
    "$untag-datastore",
)
DATASTORE_READS = (
    "$describe-datastore",
    "$list-datastores",
    "$describe-import-job",
    "$describe-export-job",
    "$list-import-jobs",
    "$list-export-jobs",
    "$list-tags",
)
DATASTORE_OPERATIONS = (*DATASTORE_CHANGES, *DATASTORE_READS)

# Operations that may change state on the platform; every other allowed operation only reads.
STATEFUL_OPERATIONS = frozenset({"$process-message", "$submit-data", "$closure", *DATASTORE_CHANGES})

# Data leaves in bulk: announced in the ledger before it is asked for, like a write.
EXPORT = "$export"
# Our own words for what follows a kick-off: asking how far it is, and reading one of its files.
EXPORT_STATUS = "$export-status"
EXPORT_FILE = "$export-file"
EXPORTS = frozenset({EXPORT, EXPORT_FILE})
EXPORT_STEPS = frozenset({*EXPORTS, EXPORT_STATUS})

# What we ask of a payer for a Coverage (FG-10): our own words, carried out by fhir-proxy and never sent on.
CHECK_PRIOR_AUTH = "$check-prior-auth"
QUESTIONNAIRE_PACKAGE = "$questionnaire-package"
COVERAGE_RULES = "$coverage-rules"
COVERAGE_OPERATIONS = (CHECK_PRIOR_AUTH, QUESTIONNAIRE_PACKAGE, COVERAGE_RULES)


def is_write(interaction: Interaction, operation: str = "") -> bool:
    """True when the interaction may change something upstream: it then records an intent and is never retried."""
    if interaction is Interaction.OPERATION:
        return operation in STATEFUL_OPERATIONS
    return interaction in WRITES


def criteria_of(condition: str) -> str:
    """The search behind If-None-Exist: `identifier=x`, or with the address in front, `Patient?identifier=x`.

    A question mark inside a value is no separator: what stands before it would then escape every check.
    """
    address, mark, rest = condition.partition("?")
    return rest if mark and not set("=&;%") & set(address) else condition


class Resource(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is asked for: a FHIR type, and when known its logical id and version."""

    type: str = ""  # FHIR resource type; "" = the whole system
    id: str = ""
    version: str = ""


class Agent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The software that asks, as it names itself: evidence for the record, never a ground to allow more."""

    id: str = "unknown-agent"  # e.g. cursor-agent-v1.0.0
    name: str = ""
    version: str = ""
    source: str = ""  # meta | session | initialize | user-agent | ""
    capabilities: tuple[str, ...] = ()  # declared with a value that is not null
    did: str = ""  # of this agent, and of who made it: named by auth (IB-7)
    developer_did: str = ""


class Principal(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who asks, as the auth station established it."""

    id: str  # opaque: issuer tag and token subject; "anonymous" when nobody signed in
    roles: tuple[str, ...] = ()
    patient: str = ""  # Patient id that "own record" means, from a verified claim
    practitioner: str = ""
    scopes: tuple[str, ...] = ()
    client_id: str = ""
    session: str = ""  # opaque session id, "" for a bearer token
    agent: Agent = Agent()
    agent_mismatch: bool = False  # the agent calls itself other than its registered client is known to
    tenant: str = "default"

    @property
    def anonymous(self) -> bool:
        return self.id == "anonymous"


class Emergency(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Break-glass (B-14): one person reads one patient's record for a short time, and says why."""

    id: str  # stands in every record that is made under it
    platform: str
    patient: str  # id of the one patient
    reason_code: str
    reason: str  # in the person's own words; sealed in records
    expires: float  # unix seconds


class Grant(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one platform allows this principal; the token inside is sealed for fhir-proxy only (AR-6)."""

    platform: str
    sealed_token: bytes = b""  # AES-256-GCM, bound to call id, platform and principal; b"" = none needed
    scopes: tuple[str, ...] = ()
    patient: str = ""
    everywhere: bool = False  # `user/` scopes alone cover this call: no single patient bounds it


class Mask(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One element to hide in resources of one type, wherever such a resource stands: top level, `contained`, nested.

    `type` "*" = every type. `path` is a dotted element path below the resource (`name.given`, `identifier`).
    `where` narrows a repeating element by a child: `system=http://hl7.org/fhir/sid/us-ssn`, or `system!=…`, which also
    holds for an item without that child. The child is looked up in the items of the last element when these are
    objects, else in the object that holds it: `identifier.value` with `system=…` changes the value of matching items.
    `action`: `remove` drops the element, `redact` replaces every string in it, `replace` sets `value` (in a list: one
    item), `year` cuts a date to its year, `keep` keeps only the elements listed in `value` (comma separated) of the
    resource (path "") or of each item at `path`. Masks hold in their order; an absent element stays absent.
    A resource changed by any mask leaves without its narrative (`text`).
    """

    type: str
    path: str
    action: str = "remove"
    where: str = ""
    value: str = ""


class Obligations(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What policy demands of the answer; carried out by the performer, never by a face."""

    masks: tuple[Mask, ...] = ()
    # Patient id: only resources in this patient's compartment may leave. For an update, patch or delete the copy
    # that is stored must lie in it as well: the performer reads it before it writes.
    compartment: str = ""
    max_entries: int = 0  # 0 = no cap
    max_bytes: int = 0
    spool: bool = False  # the record may wait on the local disk while the stream is away (break-glass reads)
    denied_entries: tuple[int, ...] = ()  # positions in a batch that are answered 403 and never sent (PX-10)


class Decision(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer of policy; `covers` is the digest of exactly the call it was made for (AR-5)."""

    id: str
    allowed: bool
    reason: str  # readable, names the rule, holds nothing about a person
    policy_version: str
    covers: str
    expires: float  # unix seconds
    obligations: Obligations = Obligations()
    rule: str = ""
    # HL7 v3 ActReason of the rule's answer, of a refusal what it was asked for; "" when the caller's roles name none
    purpose: str = ""
    known_as: str = ""  # `Practitioner/<id>`: how this platform's records name the caller; "" when they do not
