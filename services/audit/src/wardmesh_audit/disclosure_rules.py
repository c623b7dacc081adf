"""What an accounting of disclosures holds: look-back, exclusions, Part 2, suspension (45 CFR 164.528, 42 CFR 2.25)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

# Look-backs in days: six years, and three for disclosures of Part 2 records made with consent.
HIPAA_DAYS: Final = 6 * 365 + 2
PART2_DAYS: Final = 3 * 365 + 1

CARE: Final = frozenset({"treatment", "payment", "operations"})
# Legal bases that need no accounting, besides care.
EXCLUDED: Final = CARE | {
    "individual",
    "incidental",
    "authorization",
    "facility_directory",
    "national_security",
    "custodial",
    "limited_data_set",
}
# The right to an account of these may be suspended by the authority that received the data.
SUSPENDABLE: Final = frozenset({"law_enforcement", "health_oversight"})


class Disclosed(Struct, frozen=True, kw_only=True):
    """The open part of one disclosure, as far as the rules look at it."""

    at: datetime
    legal_basis: str
    part2: bool = False
    with_consent: bool = False
    through_ehr: bool = False


def accountable(item: Disclosed, now: datetime) -> bool:
    """Whether the patient is owed an account of this one."""
    if item.part2 and item.with_consent and (item.legal_basis not in CARE or item.through_ehr):
        return item.at >= now - timedelta(days=PART2_DAYS) or _ordinary(item, now)
    return _ordinary(item, now)


def _ordinary(item: Disclosed, now: datetime) -> bool:
    return item.legal_basis not in EXCLUDED and item.at >= now - timedelta(days=HIPAA_DAYS)


def withheld_now(item: Disclosed, suspended: bool) -> bool:
    return suspended and item.legal_basis in SUSPENDABLE
