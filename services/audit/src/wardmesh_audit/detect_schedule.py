"""Working hours as a directory states them: `mon-fri 07:00-19:00; sat 08:00-12:00`, in a time zone."""

from __future__ import annotations

import re
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_PART = re.compile(r"([a-z]{3})(?:-([a-z]{3}))? (\d{2}):(\d{2})-(\d{2}):(\d{2})")
_DAY_MINUTES = 24 * 60
_WEEK_MINUTES = 7 * _DAY_MINUTES


class BadSchedule(ValueError):
    """The text is no schedule."""


class Schedule(Struct, frozen=True):
    """Spans of minutes of the week, from and until; a night shift that begins on Sunday ends beyond the week."""

    spans: tuple[tuple[int, int], ...]
    zone: ZoneInfo

    def minutes_off(self, at: datetime) -> int:
        """How many minutes outside the nearest span; 0 inside."""
        local = at.astimezone(self.zone)
        minute = local.weekday() * _DAY_MINUTES + local.hour * 60 + local.minute
        return min(_distance(minute + turn, span) for span in self.spans for turn in (0, _WEEK_MINUTES, -_WEEK_MINUTES))


def _distance(minute: int, span: tuple[int, int]) -> int:
    return max(span[0] - minute, minute - span[1], 0)


def parse_schedule(text: str, zone: str) -> Schedule:
    """Raises BadSchedule."""
    try:
        place = ZoneInfo(zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadSchedule("unknown time zone") from None
    spans: list[tuple[int, int]] = []
    for part in text.lower().split(";"):
        found = _PART.fullmatch(part.strip())
        if found is None or not {found[1], found[2] or found[1]} <= set(_DAYS):
            raise BadSchedule("hours are written like `mon-fri 07:00-19:00`")
        start, end = (int(found[n]) * 60 + int(found[n + 1]) for n in (3, 5))
        if not (start < _DAY_MINUTES and end <= _DAY_MINUTES):
            raise BadSchedule("a time is later than 24:00")
        first, last = _DAYS.index(found[1]), _DAYS.index(found[2] or found[1])
        length = (end - start) % _DAY_MINUTES or _DAY_MINUTES
        for day in range(first, first + (last - first) % 7 + 1):
            begin = day % 7 * _DAY_MINUTES + start
            spans.append((begin, begin + length))
    return Schedule(tuple(spans), place)
