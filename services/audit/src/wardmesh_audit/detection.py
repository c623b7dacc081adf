"""The part of the detect role that follows the stream: puts the rules to every event, raises and keeps alerts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from wardmesh_audit.derived import publish, status
from wardmesh_audit.detect import Alert, Detector, overdue
from wardmesh_audit.detect_directory import Directory
from wardmesh_audit.detect_event import Seen, seen
from wardmesh_audit.detect_people import BadDirectory
from wardmesh_audit.detect_state import BadState, State, decode
from wardmesh_audit.detect_store import Handles, Store
from wardmesh_audit.jetstream import api
from wardmesh_audit.ledger import Connection
from wardmesh_audit.puller import Pulled
from wardmesh_audit.rule_folder import RuleFolder
from wardmesh_audit.rules import BadRules
from wardmesh_audit.streams import audit_stream
from wardmesh_audit.tail import Hole, batches
from wardmesh_audit.writer import TRANSIENT
from wardmesh_common.lean import LeanClient

_SAVE_SECONDS = 5.0
_OVERDUE_SECONDS = 60.0
_STANDBY_SECONDS = 2.0
_PAUSE_SECONDS = 1.0
_LOOK_SECONDS = 2.0

_log = logging.getLogger("wardmesh.audit")


class Detection:
    """Any number may run; one works and the others wait for its lock. What it raises does not depend on which."""

    def __init__(
        self,
        nc: LeanClient,
        connect: Callable[[], Awaitable[Connection]],
        rules: RuleFolder,
        directory: Directory,
        handles: Handles | None = None,
        logs: Sequence[int] = (0,),
        *,
        save_seconds: float = _SAVE_SECONDS,
    ) -> None:
        self._nc = nc
        self._connect = connect
        self._rules = rules
        self._directory = directory
        self._handles = handles
        self._logs = logs
        self._save_seconds = save_seconds

    async def run(self) -> None:
        """Until cancelled; a database or broker that is away is tried again."""
        try:
            while True:
                try:
                    await self._session()
                except* TRANSIENT as group:
                    _log.warning("audit detection: %s, trying again", type(group.exceptions[0]).__name__)
                    await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            if self._handles is not None:
                self._handles.close()

    async def _session(self) -> None:
        conn = await self._connect()
        try:
            store = Store(conn, self._logs)
            while not await store.lock():  # noqa: ASYNC110 - another process holds it
                await asyncio.sleep(_STANDBY_SECONDS)
            places, raw = await store.load()
            try:
                state = decode(raw)
            except BadState as error:
                _log.error("audit detection: %s; it begins anew", error)
                state = State()
            # They were good once; `watch` says that they are not any more.
            with contextlib.suppress(BadDirectory):
                await asyncio.to_thread(self._directory.load)
            with contextlib.suppress(BadRules):
                await asyncio.to_thread(self._rules.load)
            detector = Detector(self._rules.reading.rules, self._directory.reading.people, state)
            turn = _Turn(self._nc, store, detector, self._handles, places)
            turn.save_seconds = self._save_seconds
            async with asyncio.TaskGroup() as group:
                group.create_task(turn.watch(self._directory, self._rules))
                for log_id in self._logs:
                    group.create_task(turn.follow(log_id))
        finally:
            conn.terminate()


class _Turn:
    """One connection's work. The logs are followed side by side and judged one batch at a time."""

    save_seconds = _SAVE_SECONDS

    def __init__(
        self, nc: LeanClient, store: Store, detector: Detector, handles: Handles | None, places: dict[int, int]
    ) -> None:
        self._nc = nc
        self._store = store
        self._detector = detector
        self._handles = handles
        self._places = places
        self._one = asyncio.Lock()
        self._saved_at = self._looked_at = -_OVERDUE_SECONDS
        self._changed = False

    async def watch(self, directory: Directory, rules: RuleFolder) -> None:
        """For ever. Another feed, or other rules, are said in the ledger before the next event is judged by them."""
        told = ""  # what is wrong at every look, a directory that is gone, is said once
        while directory.watched or rules.watched:
            try:
                async with self._one:
                    await self._look_at(directory, rules)
                told = ""
            except (BadDirectory, BadRules) as error:
                if str(error) != told:
                    told = str(error)
                    digest = (directory if isinstance(error, BadDirectory) else rules).reading.facts.get("digest", "")
                    what = "directory" if isinstance(error, BadDirectory) else "rules"
                    _log.error("audit detection: changed files are not used (%s): %s", what, error)
                    await self._say(f"{what}_refused", {"digest": digest})
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look_at(self, directory: Directory, rules: RuleFolder) -> None:
        state = self._detector.state
        if rules.watched:
            await asyncio.to_thread(rules.look)
            if state.rules != rules.reading.digest:
                await self._say("rules_changed" if state.rules else "rules_loaded", rules.reading.facts)
                self._detector.use(rules.reading.rules)
                state.rules, self._changed = rules.reading.digest, True
        if directory.watched:
            await asyncio.to_thread(directory.look)
            if state.directory != directory.reading.digest:
                await self._say("directory_changed" if state.directory else "directory_loaded", directory.reading.facts)
                self._detector.people, state.directory = directory.reading.people, directory.reading.digest
                self._changed = True

    async def _say(self, reason: str, facts: dict[str, Any]) -> None:
        now = datetime.now(UTC)
        key = f"{reason}\x1f{facts.get('digest', '')}\x1f{now.isoformat()}"
        await publish(self._nc, 0, status(key, now, reason, facts))

    async def follow(self, log_id: int) -> None:
        """For ever. A hole is reported and read past: events behind it must not go unwatched."""
        if log_id not in self._places:
            info = await api(self._nc, f"STREAM.INFO.{audit_stream(log_id)}")
            self._places[log_id] = max(0, int(info["state"]["first_seq"]) - 1)
        while True:
            try:
                async for messages in batches(self._nc, log_id, self._places[log_id]):
                    async with self._one:
                        await self._judge(log_id, messages)
                        await self._look_back()
            except Hole as hole:
                _log.critical("audit detection: indices %d to %d are missing", hole.index, hole.found - 1)
                facts = {"log": log_id, "first": hole.index, "last": hole.found - 1}
                key = f"detection_gap\x1f{log_id}\x1f{hole.index}\x1f{hole.found}"
                await publish(self._nc, log_id, status(key, datetime.now(UTC), "detection_gap", facts))
                self._places[log_id] = hole.found

    async def _judge(self, log_id: int, messages: list[Pulled]) -> None:
        events = [seen(log_id, each.stream_seq - 1, each.body, each.received) for each in messages]
        events = [event for event in events if event is not None]
        if self._handles is not None and self._detector.people.patients:
            await self._handles.fill(events)
        for event in events:
            for alert in self._detector.see(event):
                await self._raise(alert)
        if messages:
            self._places[log_id] = messages[-1].stream_seq
            self._changed = True

    async def _raise(self, alert: Alert) -> None:
        """First into the stream, then into the table: what is in the table is in the stream for certain."""
        if await self._store.knows(alert):
            return
        await publish(self._nc, alert.about.log, alert.event)
        await self._store.add(alert)

    async def _look_back(self) -> None:
        """What time brings: reviews that are overdue, and the place to go on from after a restart."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_at >= _OVERDUE_SECONDS:
            self._looked_at = now
            await self._overdue()
        if self._changed and now - self._saved_at >= self.save_seconds:
            await self._store.save(self._places, self._detector.state, self._detector.touched.values())
            self._detector.touched.clear()
            self._saved_at, self._changed = now, False

    async def _overdue(self) -> None:
        now = datetime.now(UTC)
        for rule in self._detector.follow_ups:
            uses: list[Seen] = await self._store.open_uses(rule.name, now - timedelta(hours=rule.hours))
            for alert in overdue(rule, uses, now):
                await self._raise(alert)
