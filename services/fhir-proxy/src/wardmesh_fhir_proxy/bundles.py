"""Answers that are Bundles: screen every entry, rewrite the envelope, leave resources as they are (PX-1, PX-7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import UNSET, Raw

from wardmesh_fhir_proxy import envelope, faults, json_exact, links
from wardmesh_fhir_proxy.envelope import Bundle, Entry, Link
from wardmesh_fhir_proxy.links import Address
from wardmesh_fhir_proxy.screening import CONTAINERS, Screen, look, nested_kinds

PAGES = frozenset({"next", "previous", "prev", "first", "last"})
LinkMaker = Callable[[str], str]
Sent = Sequence[tuple[int, str]]  # position and method of each entry that the platform was given


async def screen(
    bundle: Bundle, screen_: Screen, *, start: int = 0, keep_empty: bool, sent: Sent = ()
) -> list[tuple[int, Entry, Any]]:
    """(upstream index, entry, peek) of entries that may leave, changed where policy says so.

    `start` entries were delivered before; `keep_empty`: entries without a resource may stay; `sent`: the entries of
    the batch or transaction that this answers, each of which keeps its place.
    """
    entries = envelope.entries_of(bundle)[start:]
    looked = [(e, look(e.resource) if isinstance(e.resource, Raw) else None) for e in entries]
    containers = [e.resource for e, seen in looked if seen is not None and seen.resourceType in CONTAINERS]
    await screen_.learn([seen for _, seen in looked if seen is not None], nested_kinds(containers))
    passed: list[tuple[int, Entry, Any]] = []
    for index, (entry, seen) in enumerate(looked, start):
        position, method = sent[index] if index < len(sent) else (0, "")
        screen_.tally.entry = position
        if seen is None:
            if keep_empty:
                passed.append((index, entry, None))
            else:
                screen_.tally.withheld += 1
            continue
        assert isinstance(entry.resource, Raw)
        resource = screen_.pass_on(seen, entry.resource)
        if resource is not None:
            entry.resource = resource if isinstance(resource, Raw) else Raw(resource)
            passed.append((index, entry, seen))
        elif method:
            passed.append((index, _emptied(entry, method), None))
    return passed


def _emptied(entry: Entry, method: str) -> Entry:
    """An answer without what may not be seen: a read finds nothing, of a change stays how it ended."""
    if method not in ("GET", "HEAD"):
        return Entry(response=entry.response)
    outcome = Raw(envelope.operation_outcome("error", "not-found", "Resource not found"))
    return Entry(response=envelope.Response(status="404 Not Found", outcome=outcome))


def mark_suppressed(bundle: Bundle, screen_: Screen) -> list[Entry]:
    """Total and remarks after something was withheld or masked."""
    if not (screen_.tally.withheld or screen_.tally.masked):
        return []
    bundle.total = UNSET
    bundle.total_ = UNSET
    text = "Some content is not shown: it was withheld or masked by policy."
    return [envelope.outcome_entry("information", "suppressed", text)]


def rewrite_links(bundle: Bundle, address: Address, base_url: str, page_link: LinkMaker) -> tuple[str, list[Entry]]:
    """Page links become cursors, the self link ours; what cannot be mapped goes, with a remark."""
    kept: list[Link] = []
    lost = False
    next_url = ""
    for link in envelope.links_of(bundle):
        suffix = address.suffix(link.url) if isinstance(link.url, str) else None
        if suffix is None:
            lost = True
            continue
        if link.relation in PAGES:
            upstream = address.url(suffix)
            if link.relation == "next":
                next_url = upstream
            link.url = page_link(upstream)
        else:
            link.url = links.ours(base_url, suffix)
        kept.append(link)
    bundle.link = kept or UNSET
    text = "A link of the platform could not be mapped and was left out."
    return next_url, [envelope.outcome_entry("information", "incomplete", text)] if lost else []


def rewrite_entries(entries: list[tuple[int, Entry, Any]], address: Address, base_url: str) -> None:
    for _, entry, seen in entries:
        if isinstance(entry.fullUrl, str):
            entry.fullUrl = _full_url(entry.fullUrl, seen, address, base_url) or UNSET
        if isinstance(entry.link, list):
            for link in entry.link:
                mapped = links.rewrite(address, base_url, link.url) if isinstance(link.url, str) else None
                link.url = mapped or UNSET
            entry.link = [link for link in entry.link if link.url is not UNSET] or UNSET
        if isinstance(entry.response, envelope.Response):
            _rewrite_response(entry.response, address, base_url)
        if isinstance(entry.request, Raw):
            _rewrite_request(entry, address, base_url)


def _full_url(url: str, seen: Any, address: Address, base_url: str) -> str | None:
    mapped = links.rewrite(address, base_url, url)
    if mapped is None and seen is not None and seen.resourceType and seen.id:
        return links.ours(base_url, f"{seen.resourceType}/{seen.id}")
    return mapped


def _rewrite_response(response: envelope.Response, address: Address, base_url: str) -> None:
    location = response.location
    if isinstance(location, str):
        # A relative location is the platform's own; it stays relative.
        absolute = "://" in location
        response.location = (links.rewrite(address, base_url, location) or UNSET) if absolute else location
    if isinstance(response.outcome, Raw):
        response.outcome = Raw(faults.clean_outcome(json_exact.decode(response.outcome), (address.host,)))


def _rewrite_request(entry: Entry, address: Address, base_url: str) -> None:
    url = envelope.request_of(entry).url
    if "://" in url:
        mapped = links.rewrite(address, base_url, url)
        method = envelope.request_of(entry).method
        entry.request = Raw(envelope.encode_plain({"method": method, "url": mapped or "unknown"}))
