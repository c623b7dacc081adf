"""The arguments of audit queries: what may be asked, checked here, with errors that never repeat what was sent."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import TypeVar

import msgspec
from msgspec import Struct, field

from wardmesh_common.errors import BadRequest

T = TypeVar("T", bound=Struct)

MOST_EVENTS = 1000
_place = re.compile(r"at `\$\.([a-z_]+)")
_cursor = re.compile(r"([0-9]{1,4}):([0-9]{1,18})").fullmatch
_pseudonym = re.compile(r"[0-9a-f]{32}").fullmatch


class Cursor(Struct, frozen=True):
    """The last event that was seen: `<log>:<index>`, valid for ever."""

    log: int
    index: int

    def __str__(self) -> str:
        return f"{self.log}:{self.index}"


class Filters(Struct, kw_only=True, forbid_unknown_fields=True):
    """What an event must match; an empty one matches all."""

    log: int = 0
    actor: str = ""
    patient: str = ""  # `<platform>/Patient/<id>`
    pseudonym: str = ""  # 32 hex characters, as events show it
    type: str = ""
    action: str = ""
    outcome: str = ""
    phase: str = ""
    purpose: str = ""
    resource: str = ""
    request: str = ""
    break_glass: bool | None = None
    since: str = field(default="", name="from")
    until: str = field(default="", name="to")


class EventsArgs(Filters, kw_only=True, forbid_unknown_fields=True):
    """One page. `sort` by an element works inside a bounded period only: it has to look at every event there."""

    cursor: str = ""
    limit: int = 100
    newest_first: bool = False
    sort: str = ""


class FollowArgs(Filters, kw_only=True, forbid_unknown_fields=True):
    cursor: str = ""  # "" = from now on
    limit: int = 100
    wait_seconds: float = 10.0


class EventArgs(Struct, kw_only=True, forbid_unknown_fields=True):
    id: str


class ReportArgs(Struct, kw_only=True, forbid_unknown_fields=True):
    """`patient` or `actor`, by kind of report."""

    patient: str = ""
    actor: str = ""
    format: str = "json"
    cursor: str = ""
    limit: int = 0  # 0: as many as the format may hold
    since: str = field(default="", name="from")
    until: str = field(default="", name="to")


class LogArgs(Struct, kw_only=True, forbid_unknown_fields=True):
    """A file of a log as the C2SP formats name it: `tile/0/x001/234.p/8`, `tile/entries/000`."""

    log: int = 0
    path: str = ""


class ListArgs(Struct, kw_only=True, forbid_unknown_fields=True):
    day: date | None = None  # None: the newest


class Nothing(Struct, kw_only=True, forbid_unknown_fields=True):
    pass


def arguments(body: bytes, kind: type[T]) -> T:
    """Raises BadRequest naming the argument, never its value."""
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        found = _place.search(str(error))
        name = f" '{found[1]}'" if found else ""
        raise BadRequest(f"The argument{name} of this query is not valid.") from None


def cursor_of(text: str) -> Cursor:
    found = _cursor(text)
    if not found:
        raise BadRequest("Invalid cursor: it has the form <log>:<index>.")
    return Cursor(int(found[1]), int(found[2]))


def limit_of(limit: int, most: int = MOST_EVENTS) -> int:
    if not 1 <= limit <= most:
        raise BadRequest(f"Invalid limit: 1 to {most}.")
    return limit


def pseudonym_of(text: str) -> bytes:
    if not _pseudonym(text):
        raise BadRequest("Invalid pseudonym: 32 hexadecimal characters.")
    return bytes.fromhex(text)


def moment(text: str, name: str) -> datetime | None:
    """A date or an instant; a date is its first moment in UTC."""
    if not text:
        return None
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest(f"Invalid {name}: a date or an instant such as 2026-01-31T08:00:00Z.") from None
    if not 1970 < value.year < 9998:
        raise BadRequest(f"Invalid {name}: out of range.")
    return value if value.tzinfo else value.replace(tzinfo=UTC)
