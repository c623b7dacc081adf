"""Settings of the audit service and its commands, from WARDMESH_* variables."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from binascii import Error as Base64Error

from wardmesh_audit.note import BadNote, Signer, Verifier, parse_vkey
from wardmesh_audit.streams import StreamSettings
from wardmesh_common.settings import BadSettings, BusSettings

ROLES = ("writer", "publisher", "keys")


class AuditSettings(BusSettings, kw_only=True):
    """Every URL is that of one database role; a process needs only those of the roles it runs."""

    audit_owner_url: str = ""
    audit_writer_url: str = ""
    audit_signer_url: str = ""
    audit_reader_url: str = ""
    audit_keys_owner_url: str = ""
    audit_keys_url: str = ""
    audit_signing_key: str = ""  # Ed25519 seed, base64url
    audit_public_key: str = ""  # verifier key: name+id+base64
    audit_pin_file: str = ""  # newest checkpoint this machine has verified
    audit_kek: str = ""  # 32 bytes, base64url
    audit_handle_key: str = ""
    audit_roles: tuple[str, ...] = ROLES
    audit_replicas: int = 1  # of the streams
    audit_in_max_bytes: int = StreamSettings().in_max_bytes
    audit_out_max_bytes: int = StreamSettings().out_max_bytes
    audit_out_max_age_days: int = StreamSettings().out_max_age_days
    operations_seed: str = ""  # nkey of the operations user, for `provision`

    @property
    def origin(self) -> str:
        """The name of log 0: first line of its checkpoints and name of its key."""
        return f"{self.deployment}/audit/0"

    @property
    def streams(self) -> StreamSettings:
        return StreamSettings(
            replicas=self.audit_replicas,
            in_max_bytes=self.audit_in_max_bytes,
            out_max_bytes=self.audit_out_max_bytes,
            out_max_age_days=self.audit_out_max_age_days,
        )

    def signer(self) -> Signer:
        seed = secret("WARDMESH_AUDIT_SIGNING_KEY", self.audit_signing_key)
        try:
            return Signer(self.origin, seed)
        except BadNote:
            raise BadSettings("WARDMESH_DEPLOYMENT must not be empty or hold spaces or plus signs") from None

    def verifiers(self) -> list[Verifier]:
        """The public keys we trust: configured, else that of our own signing key, else none."""
        try:
            if self.audit_public_key:
                return [parse_vkey(part) for part in self.audit_public_key.split()]
        except BadNote:
            raise BadSettings("WARDMESH_AUDIT_PUBLIC_KEY is not a verifier key (name+id+base64)") from None
        return [self.signer().verifier] if self.audit_signing_key else []


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
