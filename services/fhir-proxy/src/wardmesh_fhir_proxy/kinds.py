"""Ask policy about kinds that came along in an answer or that a query reaches into, once per answer (PX-11)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import msgspec

from wardmesh_common.contracts import Call
from wardmesh_common.errors import Denied
from wardmesh_common.questions import KindsAnswer, KindsQuestion
from wardmesh_common.vocabulary import SYSTEM, Decision, Interaction

AskKinds = Callable[[KindsQuestion], Awaitable[KindsAnswer]]

# An OperationOutcome speaks about the request; Parameters only wrap resources that are checked one by one.
FREE = frozenset({"OperationOutcome", "Parameters", "Bundle"})


class KindChecks:
    """Verdicts for one call; anything unanswered is refused."""

    def __init__(self, ask: AskKinds, call: Call) -> None:
        self._ask = ask
        self._call = call
        self._known: dict[tuple[str, Interaction], Decision | None] = {}
        own = call.interaction is not Interaction.BATCH and call.interaction is not Interaction.TRANSACTION
        self._own = (
            call.resource.type if own and not (call.interaction is Interaction.SEARCH and call.resource.id) else ""
        )

    def own(self, kind: str) -> bool:
        """True for the kind that the call's own Decision is about."""
        return kind == self._own or kind in FREE

    async def learn(self, kinds: Iterable[str], interaction: Interaction = Interaction.READ) -> bool:
        """Have a verdict for each of these kinds; False when there was nothing new to ask."""
        wanted = tuple(sorted({k for k in kinds if k and not self.own(k) and (k, interaction) not in self._known}))
        if not wanted:
            return False
        await self.learn_all(wanted, interaction)
        return True

    async def learn_all(self, wanted: tuple[str, ...], interaction: Interaction) -> None:
        assert self._call.principal is not None, "the pair assertion comes first"
        grant = self._call.grant
        question = KindsQuestion(
            principal=self._call.principal,
            platform=self._call.platform,
            interaction=interaction,
            kinds=wanted,
            grant=msgspec.structs.replace(grant, sealed_token=b"") if grant else None,
        )
        answer = await self._ask(question)
        found = {verdict.kind: verdict.decision for verdict in answer.verdicts}
        for kind in wanted:
            self._known[kind, interaction] = found.get(kind)

    async def learn_export(self) -> None:
        """Have a verdict on who may copy everything out."""
        if (SYSTEM, Interaction.OPERATION) not in self._known:
            await self.learn_all((SYSTEM,), Interaction.OPERATION)

    @property
    def may_export(self) -> bool:
        return self.decision(SYSTEM, Interaction.OPERATION) is not None

    def decision(self, kind: str, interaction: Interaction = Interaction.READ) -> Decision | None:
        """The call's own Decision, the verdict, or None when refused."""
        if self.own(kind) and interaction is Interaction.READ:
            return self._call.decision
        verdict = self._known.get((kind, interaction))
        return verdict if verdict is not None and verdict.allowed else None

    async def require(self, kinds: Iterable[str], interaction: Interaction, reason: str) -> None:
        """Raise Denied unless every kind is allowed."""
        wanted = tuple(sorted(set(kinds)))
        if not wanted:
            return
        await self.learn_all(wanted, interaction)
        for kind in wanted:
            verdict = self._known.get((kind, interaction))
            if verdict is None or not verdict.allowed:
                raise Denied(reason)

    def masks_known(self) -> Iterable[Decision]:
        return (verdict for verdict in self._known.values() if verdict is not None and verdict.allowed)
