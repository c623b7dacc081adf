"""What may differ between datastores; kept in the registry, told by the CapabilityStatement."""

from __future__ import annotations

from msgspec import Struct


class Options(Struct, frozen=True, kw_only=True):
    """Everything is off in a new datastore."""

    referential_integrity: bool = False  # unknown targets are refused, referenced resources stay (ST-10)
    versioned_update: bool = False  # an update must say with If-Match what it changes (ST-11)
    read_only: bool = False  # every change is refused (ST-72)
