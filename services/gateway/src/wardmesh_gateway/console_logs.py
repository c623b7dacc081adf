"""Several logs as one: pages of a search and the place of a stream over all of them, newest first."""

from __future__ import annotations

import asyncio
import heapq
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from wardmesh_common.errors import BadRequest

Line = Mapping[str, Any]
Ask = Callable[[dict[str, str]], Awaitable[Mapping[str, Any]]]
_cursor = re.compile(r"([0-9]{1,4}):([0-9]{1,18})").fullmatch


class Found(Struct, frozen=True):
    """`next` is one cursor for each log, joined with commas; "" at the end of all."""

    events: list[Line]
    next: str


def split(cursor: str) -> dict[int, str]:
    """`0:17,1:4` by log. Raises BadRequest."""
    found: dict[int, str] = {}
    for part in filter(None, cursor.split(",")):
        match = _cursor(part)
        if not match or int(match[1]) in found:
            raise BadRequest("Invalid cursor: it has the form <log>:<index>, once for each log.")
        found[int(match[1])] = part
    return found


async def search(ask: Ask, given: Mapping[str, str], logs: Sequence[int], limit: int) -> Found:
    """One page over these logs. Each is asked for a whole page, and what is not shown is asked for again."""
    cursors = split(given.get("cursor", "")) if len(logs) > 1 else {}
    newest = given.get("order", "newest") == "newest"

    async def one(log: int) -> Mapping[str, Any]:
        asked = {**given, "log": str(log), "limit": str(limit)}
        if len(logs) > 1:
            asked.pop("cursor", None)
            asked |= {"cursor": cursors[log]} if log in cursors else {}
        return await ask(asked)

    answers = await asyncio.gather(*(one(log) for log in logs))
    if len(logs) == 1:
        return Found(list(answers[0]["events"]), answers[0]["next"])
    merged = list(heapq.merge(*(answer["events"] for answer in answers), key=_recorded, reverse=newest))
    shown = merged[:limit]
    for line in shown:
        cursors[int(line["log"])] = line["cursor"]
    more = len(merged) > limit or any(answer["next"] for answer in answers)
    return Found(shown, ",".join(cursors[log] for log in sorted(cursors)) if more else "")


def start_of(states: Sequence[Mapping[str, Any]], events: Sequence[Line]) -> str:
    """Where a stream goes on that continues these events: behind what the logs held, or what is shown."""
    places = {int(state["log"]): int(state["size"]) - 1 for state in states}
    for line in events:
        places[int(line["log"])] = max(places.get(int(line["log"]), -1), int(line["index"]))
    return ",".join(f"{log}:{index}" for log, index in sorted(places.items()) if index >= 0)


def _recorded(line: Line) -> str:
    """Within a log this only grows, as its indices do; producers' clocks need not."""
    return str(line["recorded_at"])
