"""A token of a platform while auth holds it, with the launch context that came with it."""

from __future__ import annotations

from msgspec import Struct


class FhirContext(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item of `fhirContext`: what else was open in the record when the person launched us."""

    reference: str = ""
    role: str = ""
    type: str = ""
    canonical: str = ""


class PlatformToken(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one token endpoint gave. Its text form shows nothing: it must not end up in a log by accident."""

    access_token: str
    scopes: tuple[str, ...] = ()
    patient: str = ""
    issued_at: float = 0.0
    expires_at: float = 0.0
    refresh_token: str = ""
    grant_until: float = 0.0  # when the person's consent ends and no refresh helps; 0 = not said
    encounter: str = ""
    fhir_context: tuple[FhirContext, ...] = ()
    need_patient_banner: bool | None = None
    intent: str = ""
    fhir_user: str = ""  # from the verified identity token only, as are subject and issuer
    subject: str = ""
    issuer: str = ""

    def __repr__(self) -> str:
        return "PlatformToken(...)"

    @property
    def margin(self) -> float:
        """Seconds before the end at which the token is not used any more: 60, less for short-lived ones (FG-15)."""
        return min(60.0, (self.expires_at - self.issued_at) / 4)
