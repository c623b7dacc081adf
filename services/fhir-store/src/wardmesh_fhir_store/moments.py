"""FHIR dates as half-open ranges of time, and ranges of numbers by their significant digits."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
MOMENT = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|[+\- ]\d\d:\d\d)?)?)?)?", re.ASCII
)
Span = tuple[datetime, datetime]


def span_of(text: str) -> Span | None:
    """`2024-05` → [2024-05-01, 2024-06-01); None when it is not a FHIR date. No zone means UTC."""
    match = MOMENT.fullmatch(text)
    if not match:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        low = datetime(int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), tzinfo=UTC)
        if second:
            low = low.replace(second=min(int(second), 59))
        if fraction:
            low = low.replace(microsecond=int(f"{fraction[:6]:0<6}"))
        low = _shift(low, zone)
    except ValueError:
        return None
    return low, _end(low, month, day, hour, second, fraction)


def _shift(moment: datetime, zone: str | None) -> datetime:
    if not zone or zone == "Z":
        return moment
    sign = -1 if zone[0] == "-" else 1  # a blank is a plus that lost its escaping in a URL
    offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))
    try:
        return moment.replace(tzinfo=timezone(sign * offset)).astimezone(UTC)
    except OverflowError:
        return EARLIEST if moment.year == 1 else LATEST


def _end(
    low: datetime, month: str | None, day: str | None, hour: str | None, second: str | None, fraction: str | None
) -> datetime:
    try:
        if not month:
            return low.replace(year=low.year + 1)
        if not day:
            return low.replace(year=low.year + low.month // 12, month=low.month % 12 + 1)
        if not hour:
            return low + timedelta(days=1)
        if not second:
            return low + timedelta(minutes=1)
        digits = min(len(fraction or ""), 6)
        return low + timedelta(microseconds=10 ** (6 - digits))
    except (OverflowError, ValueError):
        return LATEST


def instant(moment: datetime) -> str:
    """`2026-01-02T03:04:05.678Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def http_date(moment: datetime) -> str:
    """IMF-fixdate, as Last-Modified wants it."""
    return moment.astimezone(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")


def period_span(node: Any) -> Span | None:
    """An open end reaches to the end of time."""
    if not isinstance(node, dict):
        return None
    start, end = node.get("start"), node.get("end")
    low = span_of(start) if isinstance(start, str) else None
    high = span_of(end) if isinstance(end, str) else None
    if low is None and high is None:
        return None
    return (low[0] if low else EARLIEST), (high[1] if high else LATEST)


def timing_span(node: Any) -> Span | None:
    """From the first to the last moment that the Timing names."""
    if not isinstance(node, dict):
        return None
    events = node.get("event")
    spans = [s for e in (events if isinstance(events, list) else []) if isinstance(e, str) and (s := span_of(e))]
    repeat = node.get("repeat")
    bounds = period_span(repeat.get("boundsPeriod")) if isinstance(repeat, dict) else None
    if bounds:
        spans.append(bounds)
    if not spans:
        return None
    return min(low for low, _ in spans), max(high for _, high in spans)


LARGEST_EXPONENT = 1000  # beyond it a number is stored but not indexed: no search could mean it


def number_of(value: Any) -> Decimal | None:
    """A JSON number that can be indexed."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    number = Decimal(value)
    return number if number.is_finite() and abs(number.adjusted()) <= LARGEST_EXPONENT else None


def implied_range(text: str) -> tuple[Decimal, Decimal]:
    """`100` → [99.5, 100.5): half a unit of the last digit written; `1e2` → [95, 105), as R4 §3.1.1 has it."""
    number = Decimal(text)
    bare_exponent = "e" in text.lower() and "." not in text
    half = Decimal(5).scaleb(int(number.as_tuple().exponent) - (2 if bare_exponent else 1))
    return number - half, number + half
