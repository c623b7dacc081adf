"""Settings of the audit service and its commands, from WARDMESH_* variables."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error

from msgspec import Struct, field

from wardmesh_audit.cosignature import WitnessAddress, parse_witness_key
from wardmesh_audit.log_list import list_keys, origin_of
from wardmesh_audit.note import BadNote, Signer, Verifier, parse_vkey
from wardmesh_audit.streams import MAX_LOGS, StreamSettings
from wardmesh_common.settings import BadSettings, BusSettings

ROLES = ("writer", "publisher", "keys", "api", "detect", "retention", "log", "verify")


class WitnessSetting(Struct, frozen=True):
    """Where a witness listens, and its key (type 4)."""

    url: str
    vkey: str


class AuditSettings(BusSettings, kw_only=True):
    """Every URL is that of one database role; a process needs only those of the roles it runs."""

    audit_owner_url: str = ""
    audit_writer_url: str = ""
    audit_signer_url: str = ""
    audit_reader_url: str = ""
    audit_keys_owner_url: str = ""
    audit_report_url: str = ""
    audit_detect_url: str = ""
    audit_officer_url: str = ""  # holds, suspensions, reviews
    audit_retention_url: str = ""
    audit_keys_url: str = ""
    audit_shredder_url: str = ""  # the key database as key_shredder
    audit_signing_key: str = ""  # Ed25519 seed, base64url
    audit_overlap_key: str = ""  # a second seed that signs as well while keys change
    audit_public_key: str = ""  # verifier keys, also old ones: name+id+base64, one per line; # begins a comment
    audit_pin_file: str = ""  # newest checkpoint this machine has verified
    audit_witnesses: dict[str, WitnessSetting] = field(default_factory=dict[str, WitnessSetting])  # by name
    audit_kek: str = ""  # 32 bytes, base64url
    audit_handle_key: str = ""
    audit_roles: tuple[str, ...] = ("writer", "publisher", "keys", "api")
    audit_unterminated_seconds: float = 300.0  # an intent without an outcome ends as unterminated
    audit_verify_seconds: float = 3600.0  # from the end of one background verification to the next
    audit_verify_share: float = 0.1  # of one core that it may take
    audit_silent_seconds: float = 120.0  # a producer that neither records nor answers is lost
    audit_rules_dir: str = ""  # detection rules that replace shipped ones or are added to them
    audit_directory_dir: str = ""  # feed files of people, for rules that compare actor and patient
    audit_directory_key: str = ""  # hashes what they hold; 32 bytes, base64url
    audit_export_dir: str = ""  # where retention keeps what it drops
    audit_replicas: int = 1  # of the streams
    audit_in_max_bytes: int = StreamSettings().in_max_bytes
    audit_out_max_bytes: int = StreamSettings().out_max_bytes
    audit_out_max_age_days: int = StreamSettings().out_max_age_days
    operations_seed: str = ""  # nkey of the operations user, for `provision`

    @property
    def origin(self) -> str:
        return self.origin_of(0)

    def origin_of(self, log_id: int) -> str:
        """The name of a log: first line of its checkpoints and name of its key."""
        return f"{self.deployment}/audit/{log_id}"

    @property
    def logs(self) -> range:
        if not 1 <= self.audit_logs <= MAX_LOGS:
            raise BadSettings(f"WARDMESH_AUDIT_LOGS must be 1 to {MAX_LOGS}")
        return range(self.audit_logs)

    @property
    def streams(self) -> StreamSettings:
        return StreamSettings(
            logs=len(self.logs),
            replicas=self.audit_replicas,
            in_max_bytes=self.audit_in_max_bytes,
            out_max_bytes=self.audit_out_max_bytes,
            out_max_age_days=self.audit_out_max_age_days,
        )

    @property
    def digest(self) -> str:
        """Of what decides how the ledger works; a change of it is recorded. Secrets and addresses are no part of it."""
        facts = (self.deployment, self.streams, sorted(self.audit_public_key.split()), sorted(self.audit_witnesses))
        times = (self.audit_unterminated_seconds, self.audit_silent_seconds)
        return hashlib.sha256(repr((facts, times)).encode()).hexdigest()[:16]

    def signer(self, log_id: int = 0) -> Signer:
        try:
            return Signer(self.origin_of(log_id), *self._seeds())
        except BadNote:
            raise BadSettings("WARDMESH_DEPLOYMENT must not be empty or hold spaces or plus signs") from None

    def _seeds(self) -> list[bytes]:
        seeds = [secret("WARDMESH_AUDIT_SIGNING_KEY", self.audit_signing_key)]
        if self.audit_overlap_key:
            seeds.append(secret("WARDMESH_AUDIT_OVERLAP_KEY", self.audit_overlap_key))
        return seeds

    def verifiers(self, log_id: int = 0) -> list[Verifier]:
        """The public keys we trust for a log: configured, else those of our own signing keys, else none.

        The same key signs every log under the log's own name, so the key of one name is trusted for all of ours.
        """
        try:
            lines = [line.partition("#")[0] for line in self.audit_public_key.splitlines()]
            known = [parse_vkey(part) for line in lines for part in line.split()]
        except BadNote:
            raise BadSettings("WARDMESH_AUDIT_PUBLIC_KEY is not a verifier key (name+id+base64)") from None
        if not known:
            return self.signer(log_id).verifiers if self.audit_signing_key else []
        ours = {self.origin_of(log) for log in self.logs}
        own = [Verifier(self.origin_of(log_id), key.public) for key in known if key.name in ours]
        return list(dict.fromkeys([*own, *(key for key in known if key.name not in ours)]))

    def list_signer(self) -> Signer:
        """Signs the daily list of logs: the same key under the name of the list."""
        return Signer(origin_of(self.deployment), *self._seeds())

    def list_verifiers(self) -> list[Verifier]:
        return list_keys(self.deployment, (key for log in self.logs for key in self.verifiers(log)))

    def witnesses(self) -> list[WitnessAddress]:
        """Raises BadSettings when a key is no witness key."""
        try:
            return [
                WitnessAddress(name, setting.url, parse_witness_key(setting.vkey))
                for name, setting in self.audit_witnesses.items()
            ]
        except BadNote:
            raise BadSettings("WARDMESH_AUDIT_WITNESSES holds a key that is no witness key") from None


def secret(name: str, text: str) -> bytes:
    """A 32-byte secret in base64url, with or without padding; raises BadSettings naming the variable."""
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (Base64Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise BadSettings(f"{name} must be 32 bytes in base64url")
    return raw


def need(name: str, value: str) -> str:
    if not value:
        raise BadSettings(f"{name} is not set (and no {name}_FILE)")
    return value
