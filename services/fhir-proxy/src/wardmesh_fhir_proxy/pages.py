"""Bundles on their way out: screened, rewritten, bounded, with page links that are sealed cursors (PX-2, PX-13)."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_plus

from msgspec import UNSET

from wardmesh_common.contracts import Call, Outcome
from wardmesh_common.errors import BadUpstream, Denied, TooLarge
from wardmesh_common.vocabulary import Interaction, Obligations
from wardmesh_fhir_proxy import batches, bundles, cursors, envelope, headers, links, model_view
from wardmesh_fhir_proxy.cursors import Cursors
from wardmesh_fhir_proxy.envelope import Bundle, Entry
from wardmesh_fhir_proxy.links import Address
from wardmesh_fhir_proxy.request import checked_path
from wardmesh_fhir_proxy.upstream import UpstreamAnswer

Pair = tuple[int, Entry, Any]
RESPONSES = frozenset({"batch-response", "transaction-response"})


class Pages:
    """The Bundle side of one call: where the answer starts and how the next one is addressed."""

    def __init__(
        self,
        call: Call,
        keys: Cursors,
        address: Address,
        url: str,
        start: int,
        *,
        required: tuple[str, str] | None,
        narrowed: bool,
        continued: bool = False,
    ) -> None:
        self._call = call
        self._keys = keys
        self._address = address
        self._url = url  # the upstream address of this page, as a GET
        self._start = start
        self._required = required  # the filter of policy that the self link must show; None = it need not
        self._continued = continued  # opened by a cursor: only a cursor can name this page again
        self._narrowed = narrowed  # the platform counts only what this caller may see

    def link(self, upstream_url: str, offset: int = 0) -> str:
        """Our address for an upstream page, usable by this caller alone."""
        token = self._keys.issue(self._call, upstream_url, offset)
        return links.ours(self._call.base_url, f"{self._public_path()}?{cursors.PARAMETER}={token}")

    def _public_path(self) -> str:
        return checked_path(self._call).removesuffix("/_search")

    async def outcome(self, journey: Any, answer: UpstreamAnswer, bundle: Bundle) -> Outcome:
        call, screen = self._call, journey.screen
        self._require_filter(bundle)
        response = bundle.type in RESPONSES
        sent = batches.sent(call, journey.denied) if response else ()
        keep_empty = response or not journey.limited
        pairs = await bundles.screen(bundle, screen, start=self._start, keep_empty=keep_empty, sent=sent)
        bundles.rewrite_entries(pairs, self._address, call.base_url)
        remarks = [] if response else bundles.mark_suppressed(bundle, screen)
        if journey.limited and not self._narrowed and not response:
            bundle.total = UNSET  # counted over what this caller may not see
        following, lost = bundles.rewrite_links(bundle, self._address, call.base_url, self.link)
        if self._continued:
            self._set_self(bundle)
        extra = [*remarks, *lost] if not response else []
        if response:
            pairs = batches.with_refusals(pairs, journey.denied)
        body, truncated = self._encode(bundle, pairs, extra, following)
        return Outcome(
            status=answer.status,
            body=body,
            headers=self._headers(answer, bool(screen.tally.masked or screen.tally.withheld or truncated)),
            touched=screen.tally.touched(),
            masked=screen.tally.masked,
            withheld=screen.tally.withheld + len(journey.denied),
            truncated=truncated,
            entries=batches.statuses(pairs) if response else (),
        )

    def _headers(self, answer: UpstreamAnswer, changed: bool) -> dict[str, str]:
        """A page changed by us, or whose links are ours alone, has no ETag that another caller could use."""
        passed = headers.to_caller(answer.headers)
        for name in ("Location", "Content-Location", "ETag"):
            passed.pop(name, None)
        if changed:
            passed.pop("Last-Modified", None)
        return passed

    def _require_filter(self, bundle: Bundle) -> None:
        """Fail closed when the platform's self link lacks the filter that policy added (PX-13)."""
        if self._required is None or bundle.type != "searchset":
            return
        name, value = self._required
        applied = [link.url for link in envelope.links_of(bundle) if link.relation == "self"]
        for url in applied:
            for pair in (url.partition("?")[2] if isinstance(url, str) else "").split("&"):
                key, _, given = pair.partition("=")
                same = unquote_plus(given).rpartition("/")[2] == value.rpartition("/")[2]
                if unquote_plus(key).partition(":")[0] == name and same:
                    return
        raise BadUpstream("The platform did not apply the search filter that policy requires.")

    def _encode(self, bundle: Bundle, pairs: list[Pair], extra: list[Entry], following: str) -> tuple[bytes, bool]:
        call = self._call
        obligations = call.decision.obligations if call.decision else Obligations()
        next_page = next((str(link.url) for link in envelope.links_of(bundle) if link.relation == "next"), "")
        del following
        caps = [cap for cap in (obligations.max_bytes, call.view.max_bytes if call.view.model else 0) if cap]
        max_bytes = min(caps, default=0)
        if call.view.model:
            return model_view.bundle(
                bundle, pairs, extra, max_bytes, obligations.max_entries, next_page, self._continue
            )
        return self._full(bundle, pairs, extra, max_bytes, obligations.max_entries)

    def _continue(self, index: int) -> str:
        return self.link(self._url, index)

    def _full(
        self, bundle: Bundle, pairs: list[Pair], extra: list[Entry], max_bytes: int, max_entries: int
    ) -> tuple[bytes, bool]:
        """Everything, unless policy caps it; then the rest waits behind a cursor of its own."""
        kept = pairs[:max_entries] if max_entries else pairs
        while True:
            bundle.entry = [*(entry for _, entry, _ in kept), *extra] or UNSET
            if len(kept) < len(pairs):
                self._set_next(bundle, self._continue(pairs[len(kept)][0]))
            body = envelope.encode(bundle)
            if not max_bytes or len(body) <= max_bytes:
                return body, len(kept) < len(pairs)
            if len(kept) <= 1:
                raise TooLarge("The answer is larger than policy allows for this caller.")
            kept = kept[: max(1, min(len(kept) - 1, len(kept) * max_bytes // len(body)))]

    def _set_self(self, bundle: Bundle) -> None:
        for link in envelope.links_of(bundle):
            if link.relation == "self":
                link.url = self.link(self._url, self._start)

    def _set_next(self, bundle: Bundle, url: str) -> None:
        others = [link for link in envelope.links_of(bundle) if link.relation != "next"]
        bundle.link = [*others, envelope.Link(relation="next", url=url)]


def open_page(call: Call, keys: Cursors, address: Address, token: str) -> cursors.Page:
    """The page a caller's cursor stands for; its inner address must still be this platform's."""
    if call.interaction not in (Interaction.SEARCH, Interaction.HISTORY, Interaction.OPERATION):
        raise Denied("Only searches, histories and operations have pages.")
    page = keys.open(call, token)
    if not address.owns(page.url):
        raise Denied("The page lies outside the platform.")
    return page
