"""Answers for models: projected entries up to a byte budget, the rest behind a cursor that continues exactly there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Raw

from wardmesh_fhir_proxy import envelope, json_exact
from wardmesh_fhir_proxy.envelope import Bundle, Entry
from wardmesh_fhir_proxy.projection import LeftOut, project, shrink, told

MIN_ENTRY_BYTES = 400
OMITTED_NAMED = 20

Pair = tuple[int, Entry, Any]
Continue = Callable[[int], str]  # upstream index -> address that continues there


class Cut:
    """What one answer holds of a page."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.omitted: list[str] = []
        self.next_index = -1  # upstream index of the first entry that did not fit; -1 = all fitted


def single(body: bytes | Raw, max_bytes: int) -> tuple[bytes, bool]:
    """One resource within the budget; `truncated` and `omitted` appear only when something was left out."""
    document = project(json_exact.decode(body))
    encoded = json_exact.encode(document)
    if not max_bytes or len(encoded) <= max_bytes:
        return encoded, False
    room = max(MIN_ENTRY_BYTES, max_bytes) - 100
    left_out: LeftOut = {}
    marked = encoded
    for _ in range(4):
        shrink(document, room, left_out)
        marked = json_exact.encode({**document, **_truncation(told(left_out))})
        if len(marked) <= max_bytes:
            break
        room -= len(marked) - max_bytes
    return marked, True


def _truncation(left_out: list[str]) -> dict[str, Any]:
    named = left_out[:OMITTED_NAMED]
    if len(left_out) > OMITTED_NAMED:
        named.append(f"and {len(left_out) - OMITTED_NAMED} further elements")
    return {"truncated": True, "omitted": named}


def bundle(
    whole: Bundle,
    pairs: list[Pair],
    extra: list[Entry],
    max_bytes: int,
    max_entries: int,
    next_page: str,
    go_on: Continue,
) -> tuple[bytes, bool]:
    """The page as far as it fits. `next_page` is our link to the upstream's next page, "" at the end."""
    # The frame is measured with the longest link it may carry, so that adding one never breaks the budget.
    longest = max(go_on(pairs[-1][0]) if pairs else "", next_page, key=len)
    frame = len(_frame(whole, extra, [], longest, ["x" * 80, "x" * 40]))
    cut = _fill(pairs, max_bytes - frame if max_bytes else 0, max_entries)
    truncated = cut.next_index >= 0 or bool(cut.omitted)
    following = go_on(cut.next_index) if cut.next_index >= 0 else next_page
    omitted = list(cut.omitted)
    if cut.next_index >= 0:
        left = sum(1 for index, _, _ in pairs if index >= cut.next_index)
        omitted.append(f"{left} entries of this page: follow next")
    return _frame(whole, extra, cut.entries, following, omitted if truncated else []), truncated


def _fill(pairs: list[Pair], room: int, max_entries: int) -> Cut:
    cut = Cut()
    used = 0
    for position, (index, entry, _) in enumerate(pairs):
        document, encoded = _project_entry(entry)
        full = bool(room) and used + len(encoded) + 1 > room
        if position and (full or (max_entries and position >= max_entries)):
            cut.next_index = index
            break
        if full:
            # Not even the first entry fits: shorten it, so that every answer moves on.
            left_out: LeftOut = {}
            shrink(document, max(MIN_ENTRY_BYTES, room - 300), left_out)
            cut.omitted = _truncation(told(left_out))["omitted"]
            encoded = json_exact.encode(document)
        cut.entries.append(encoded)
        used += len(encoded) + 1
    return cut


def _project_entry(entry: Entry) -> tuple[dict[str, Any], bytes]:
    document = json_exact.decode(envelope.encode_plain(entry))
    resource = document.get("resource")
    if isinstance(resource, dict):
        project(resource)
    return document, json_exact.encode(document)


def _frame(whole: Bundle, extra: list[Entry], entries: list[bytes], following: str, omitted: list[str]) -> bytes:
    members: dict[str, Any] = {"resourceType": "Bundle", "type": whole.type}
    if isinstance(whole.total, Raw):
        members["total"] = whole.total
    kept = [link for link in envelope.links_of(whole) if link.relation == "self"]
    links = [{"relation": link.relation, "url": link.url} for link in kept]
    if following:
        links.append({"relation": "next", "url": following})
    if links:
        members["link"] = links
    parts = [*(Raw(entry) for entry in entries), *extra]
    if parts:
        members["entry"] = parts
    if omitted:
        members["truncated"] = True
        members["omitted"] = omitted
    if following:
        members["next"] = following
    return envelope.encode_plain(members)
