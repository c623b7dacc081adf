"""Rules on a real stream: alerts are events, once, soon, and each opens a review."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from audit_world import World, cancel, until, world
from engines import Nats, Postgres
from wardmesh_audit.app import connector
from wardmesh_audit.derived import derive
from wardmesh_audit.detect_directory import Directory
from wardmesh_audit.detect_store import Handles
from wardmesh_audit.detection import Detection
from wardmesh_audit.migrate import migrate
from wardmesh_audit.rule_folder import RuleFolder, reading_of
from wardmesh_audit.rules import SHIPPED, load_rules
from wardmesh_audit.subject_keys import KeyBook, SubjectKey

pytestmark = pytest.mark.anyio

KEY, KEK, HANDLE_KEY = b"d" * 32, b"e" * 32, b"h" * 32
NOBODY = Directory(None, KEY, HANDLE_KEY)


class Only(RuleFolder):
    """Some of the rules that ship."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self._names = names

    def load(self) -> None:
        self.reading = reading_of([rule for rule in load_rules() if rule.name in self._names])


def leaf(number: int, kind: str = "access", *, at: datetime | None = None, **data: Any) -> bytes:
    """One event of a person at work; what it says beside that is `data`."""
    shared: dict[str, Any] = {
        "action": "R",
        "actor": {"id": data.pop("actor", "i|nurse"), "type": "practitioner"},
        "outcome": {"code": data.pop("code", "success"), "reason": ""},
        "phase": "outcome",
        "purpose_of_use": "TREAT",
        "relationship": "treating",
    }
    return derive(kind, f"{kind}{number}", at or datetime.now(UTC), {**shared, **data}).leaf


def denials(count: int, **data: Any) -> list[bytes]:
    return [leaf(n, code="denied", **data) for n in range(count)]


@contextlib.asynccontextmanager
async def detecting(w: World, *options: Any, count: int = 1, rules: RuleFolder | None = None) -> AsyncGenerator[None]:
    """So many replicas of it, with a directory and handles when they are given."""
    directory, handles = options or (NOBODY, None)
    connect = connector(w.url("audit_detect"))
    rules = rules or RuleFolder()
    found = [Detection(w.nc, connect, rules, directory, handles, save_seconds=0) for _ in range(count)]
    tasks = [asyncio.create_task(one.run()) for one in found]
    try:
        yield
    finally:
        await cancel(*tasks)


async def alerts(w: World, least: int) -> list[dict[str, Any]]:
    """The alert events in the ledger, when there are so many."""

    async def there() -> list[dict[str, Any]]:
        rows = await w.query("select leaf from event where event_type = 'alert' order by seq")
        return [json.loads(row["leaf"]) for row in rows] if len(rows) >= least else []

    return await until(there)


async def caught_up(w: World) -> None:
    """Detection has read everything that is in the ledger, its own alerts included."""

    async def reached() -> bool:
        rows = await w.query(
            "select (select next_index from consumer_state where name = 'detection') = (select size from tree_state)"
            " and (select count(*) from alert) = (select count(*) from event where event_type = 'alert') as done"
        )
        return bool(rows[0]["done"])

    await until(reached)


@contextlib.asynccontextmanager
async def ledger(broker: Nats, server: Postgres) -> AsyncGenerator[World]:
    async with world(broker, server) as w, w.writing(), w.publishing():
        yield w


@pytest.mark.requirement("AU-705")
async def test_a_replay_by_several_replicas_gives_the_same_alerts_once(broker: Nats, server: Postgres) -> None:
    """Wiping the place and what was remembered is a replay of the stream from its beginning."""
    bulk = [leaf(n, patient={"pseudonym": f"{n:032x}"}, actor="i|clerk") for n in range(60)]
    async with ledger(broker, server) as w:
        async with detecting(w, count=2):
            await w.send(*denials(25), *bulk)
            await alerts(w, 2)
            await caught_up(w)
        first = await w.query("select * from alert order by id")
        assert sorted((row["rule"], row["actor_id"]) for row in first) == [
            ("bulk_reading", "i|clerk"),
            ("denied_burst", "i|nurse"),
        ]
        before = await w.size()
        await w.query("update consumer_state set next_index = 0, state = '' where name = 'detection'")
        async with detecting(w, count=2):
            await caught_up(w)
        assert await w.query("select * from alert order by id") == first
        # Even where nobody knows of them any more, what is published again are the same bytes.
        await w.query("delete from review")
        await w.query("delete from alert")
        await w.query("update consumer_state set next_index = 0, state = '' where name = 'detection'")
        async with detecting(w, count=2):
            await caught_up(w)
        again = await w.query("select id, facts, seq from alert order by id")
        assert again == [tuple(row[name] for name in ("id", "facts", "seq")) for row in first]
        assert await w.size() == before
        assert not [reason for reason, _ in w.statuses if reason == "id_conflict"]
        (hour,) = await w.query(
            "select sum(events) as n, sum(patients) as p from actor_hour where actor_id = 'i|clerk'"
        )
        assert (hour["n"], hour["p"]) == (60, 60)


async def test_an_alert_leaves_within_a_second_and_opens_a_review(broker: Nats, server: Postgres) -> None:
    """B-14: from the record of emergency access to the alert in the ledger's own stream."""
    async with ledger(broker, server) as w, detecting(w):
        await w.send(leaf(0, patient={"pseudonym": "ab" * 16}))
        await w.wait_size(1)
        await caught_up(w)
        took: list[float] = []
        for number in range(1, 11):  # a machine may be busy with something else
            begun = time.monotonic()
            used = {"used": True, "reason_code": "emergency"}
            await w.send(
                leaf(number, "break_glass", break_glass=used, patient={"pseudonym": f"{number:032x}"}),
            )
            await alerts(w, number)
            took.append(time.monotonic() - begun)
            if len(took) >= 3 and min(took) < 1.0:
                break
        assert min(took) < 1.0, took
        print(f"alert after {sorted(took)[1] * 1e3:.0f} ms")
        found = await alerts(w, len(took))
        said = {(a["data"]["facts"]["rule"], a["data"]["facts"]["title"]) for a in found}
        assert said == {("break_glass", "Emergency access was used")}
        assert [a["data"]["patient"]["pseudonym"] for a in found] == [f"{n:032x}" for n in range(1, len(took) + 1)]
        await caught_up(w)
        rows = await w.query(
            "select r.kind, r.status, e.event_type from review r join event e on e.event_id = r.event_id"
            " join alert a on a.id = r.alert_id and a.seq = e.seq"
        )
        assert [tuple(row) for row in rows] == [("break_glass", "open", "break_glass")] * 3


async def test_emergency_access_without_a_review_is_said_after_three_days(broker: Nats, server: Postgres) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=80)
    async with ledger(broker, server) as w:
        async with detecting(w, rules=Only("break_glass")):
            for number, at in enumerate((long_ago, long_ago + timedelta(minutes=5), long_ago + timedelta(hours=20))):
                patient = {"pseudonym": f"{number:032x}"}
                await w.send(leaf(number, "break_glass", at=at, patient=patient, purpose_of_use="BTG"))
            await alerts(w, 3)
            await caught_up(w)
        closed = (
            "update review set status = 'closed', outcome = 'appropriate', evidence = 'seen', reviewer = 'x',"
            " closed_at = now() where event_id = (select event_id from event where seq = 1)"
        )
        await w.query(closed)
        for _ in range(2):  # a second look says nothing new
            async with detecting(w, rules=Only("break_glass", "break_glass_without_follow_up")):
                await alerts(w, 4)
                await caught_up(w)
        found = await alerts(w, 4)
        overdue = [a["data"]["facts"] for a in found if a["data"]["facts"]["rule"] == "break_glass_without_follow_up"]
        assert [facts["about_index"] for facts in overdue] == ["0:0"]
        assert len(found) == 4


def feed(folder: Path, *entries: dict[str, Any]) -> None:
    """Put in place at once, as a good feed is; a file that grows is not taken over until it rests."""
    draft = folder / "people.draft"
    draft.write_text(json.dumps(entries))
    draft.rename(folder / "people.json")


async def keyed(w: World, server: Postgres) -> tuple[Handles, SubjectKey, SubjectKey]:
    """Where the key database lies, and what it holds of p1 and p2."""
    await migrate(w.url("postgres"), server.url(f"{w.database}_keys"))
    pool = await asyncpg.create_pool(server.url(f"{w.database}_keys", "key_user"), min_size=1, max_size=1)
    known, stranger = await KeyBook(pool, KEK, HANDLE_KEY).keys("default", ["store/Patient/p1", "store/Patient/p2"])
    await pool.close()
    return Handles(connector(server.url(f"{w.database}_keys", "key_user"))), known, stranger


def directory_of(folder: Path) -> Directory:
    directory = Directory(folder, KEY, HANDLE_KEY)
    directory.load()
    return directory


async def said(w: World, reason: str, least: int = 1) -> list[dict[str, Any]]:
    """The facts of the events that the ledger has about the directory."""

    async def there() -> list[dict[str, Any]]:
        rows = await w.query("select leaf from event where event_type = 'audit_status' order by seq")
        found = [json.loads(row["leaf"])["data"] for row in rows]
        facts = [data["facts"] for data in found if data["outcome"]["reason"] == reason]
        return facts if len(facts) >= least else []

    return await until(there)


async def test_people_are_compared_by_hashes_through_the_key_database(
    broker: Nats, server: Postgres, tmp_path: Path
) -> None:
    feed(
        tmp_path,
        {"actor": "i|nurse", "surname": "Example", "employer": "North Clinic"},
        {"patients": ["store/Patient/p1"], "surname": "EXAMPLE", "lists": ["vip"]},
    )
    async with ledger(broker, server) as w:
        handles, known, stranger = await keyed(w, server)
        async with detecting(w, directory_of(tmp_path), handles):
            await w.send(*(leaf(n, patient={"pseudonym": k.pseudonym.hex()}) for n, k in enumerate((stranger, known))))
            found = await alerts(w, 2)
            await caught_up(w)
        said = {a["data"]["facts"]["rule"]: a["data"] for a in found}
        assert set(said) == {"vip", "same_surname_or_address"}
        assert said["vip"]["patient"]["pseudonym"] == known.pseudonym.hex()
        assert "xample" not in json.dumps(found).lower()


class Looked(Directory):
    """A directory that counts how often somebody looked."""

    looks = 0

    def look(self) -> None:
        self.looks += 1
        super().look()

    async def looked_again(self, times: int) -> None:
        """When that many further looks have ended."""
        wanted = self.looks + times + 1

        async def there() -> bool:
            return self.looks >= wanted

        await until(there)


@pytest.mark.parametrize("good", [True, False], ids=["another feed", "a broken feed"])
async def test_a_feed_that_changes_is_used_from_then_on_and_the_ledger_says_so(
    broker: Nats, server: Postgres, tmp_path: Path, good: bool
) -> None:
    """The change is recorded before anything is judged by it; a file that is not valid changes nothing."""
    feed(tmp_path, {"actor": "i|nurse"}, {"patients": ["store/Patient/p1"], "care_team": ["i|nurse"]})
    async with ledger(broker, server) as w:
        handles, known, _ = await keyed(w, server)
        patient = {"pseudonym": known.pseudonym.hex()}
        directory = Looked(tmp_path, KEY, HANDLE_KEY)
        async with detecting(w, directory, handles):
            (loaded,) = await said(w, "directory_loaded")
            assert (loaded["actors"], loaded["patients"], loaded["listed"]) == (1, 1, 0)
            await w.send(leaf(0, patient=patient, relationship=""))
            await w.wait_size(2)
            await caught_up(w)
            assert not await w.query("select 1 from alert"), "she is in the care team"
            if not good:
                (tmp_path / "more.csv").write_text("actor,nonsense\nsecret,1\n")
                (refused,) = await said(w, "directory_refused")
                assert refused == {"digest": loaded["digest"]}
                await w.send(leaf(1, patient=patient, relationship=""))
                await w.wait_size(4)
                await caught_up(w)
                assert not await w.query("select 1 from alert"), "what was known stays known"
                shutil.rmtree(tmp_path)
                await said(w, "directory_refused", 2)
                await directory.looked_again(2)
                assert len(await said(w, "directory_refused")) == 2, "what stays wrong is said once"
                return
            feed(
                tmp_path,
                {"actor": "i|nurse", "status": "terminated"},
                {"patients": ["store/Patient/p1"], "care_team": []},
            )
            (changed,) = await said(w, "directory_changed")
            assert changed["digest"] != loaded["digest"] and changed["inactive"] == 1
            await w.send(leaf(1, patient=patient, relationship=""))
            found = await alerts(w, 2)
            await caught_up(w)
        assert {a["data"]["facts"]["rule"] for a in found} == {"no_relationship", "inactive_user"}
        async with detecting(w, directory_of(tmp_path), handles):
            await w.send(leaf(2, patient=patient, relationship=""))
            await w.wait_size(7)
            await caught_up(w)
        assert len(await said(w, "directory_loaded")) == len(await said(w, "directory_changed")) == 1


def threshold(folder: Path, number: int, text: str = "") -> None:
    """A rule of the deployment's own, put in place at once."""
    rule = json.loads((SHIPPED / "denied_burst.json").read_text()) | {"threshold": number}
    draft = folder / "denied_burst.draft"
    draft.write_text(text or json.dumps(rule))
    draft.rename(folder / "denied_burst.json")


async def test_rules_that_change_are_used_from_then_on_and_bad_ones_are_not(
    broker: Nats, server: Postgres, tmp_path: Path
) -> None:
    """Nothing is started again; the ledger says which rules it was from when on."""
    threshold(tmp_path, 20)
    async with ledger(broker, server) as w:
        rules = RuleFolder(tmp_path)
        rules.load()
        async with detecting(w, rules=rules):
            (loaded,) = await said(w, "rules_loaded")
            assert loaded["rules"] == loaded["enabled"] == len(load_rules())
            await w.send(*denials(5))
            await w.wait_size(6)
            await caught_up(w)
            assert not await w.query("select 1 from alert"), "five are no burst"
            threshold(tmp_path, 0, '{"name": "denied_burst", "threshold": "few"}')
            (refused,) = await said(w, "rules_refused")
            assert refused == {"digest": loaded["digest"]}
            await w.send(*denials(5, actor="i|clerk"))
            await w.wait_size(12)
            await caught_up(w)
            assert not await w.query("select 1 from alert"), "the earlier rules are in force"
            threshold(tmp_path, 3)
            (changed,) = await said(w, "rules_changed")
            assert changed["digest"] != loaded["digest"]
            await w.send(*denials(3, actor="i|porter"))
            (alert,) = await alerts(w, 1)
            assert alert["data"]["facts"]["about_actor"] == "i|porter"
            await caught_up(w)
        # The next process knows which rules were said, and says nothing twice.
        async with detecting(w, rules=RuleFolder(tmp_path)):
            await w.send(*denials(3, actor="i|guard"))
            await alerts(w, 2)
            await caught_up(w)
        for reason in ("rules_loaded", "rules_changed", "rules_refused"):
            assert len(await said(w, reason)) == 1
