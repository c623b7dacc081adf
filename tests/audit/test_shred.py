"""Shredding: one key is destroyed, one person's sealed fields are unreadable, everything else stays as it was."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from audit_world import World, make_call, make_outcome, world
from engines import Nats, Postgres
from wardmesh_audit import holds
from wardmesh_audit.deeds import Deeds
from wardmesh_audit.findings import VERIFIED
from wardmesh_audit.migrate import migrate
from wardmesh_audit.shred import Shredder
from wardmesh_audit.subject_keys import KeyBook
from wardmesh_common.bus import Bus
from wardmesh_common.errors import Conflict, NotFound
from wardmesh_common.questions import KeyAnswer, KeyQuestion
from wardmesh_common.record_keys import KeyRing
from wardmesh_common.record_nats import BusPublisher
from wardmesh_common.record_seal import receive
from wardmesh_common.recorder import Recorder

pytestmark = pytest.mark.anyio

TENANT, ANNA, BERT = "default", "store/Patient/anna", "store/Patient/bert"


class Stage:
    """A ledger, a key database, and events about two patients."""

    def __init__(self, w: World, book: KeyBook, keys: asyncpg.Connection, officer: asyncpg.Connection) -> None:
        self.w = w
        self.book = book
        self.keys = keys
        self.officer = officer
        self.shredder = Shredder(keys, officer, Deeds(w.nc, officer), cache_seconds=0)

    async def record(self, *patients: str) -> None:
        async def lend(question: KeyQuestion) -> KeyAnswer:
            return await self.book.lend(question)

        bus = await Bus.connect("fhir-proxy", self.w.nats.url, "")
        recorder = Recorder(BusPublisher(bus), KeyRing(lend), service="fhir-proxy", instance=bus.instance)
        before = await self.w.size()
        try:
            await recorder.outcome(make_call(), make_outcome(*patients))
        finally:
            await recorder.close()
            await bus.close()
        await self.w.wait_signed(before + len(patients) + 2)

    async def readable(self, patient: str) -> list[bool]:
        """Which of the sealed events about a patient the keys role could still open."""
        ours = X25519PrivateKey.generate()
        public = ours.public_key().public_bytes_raw()
        (key,) = receive(ours, await self.book.lend(KeyQuestion(public_key=public, tenant=TENANT, patients=(patient,))))
        found: list[bool] = []
        for row in await self.w.query("select leaf from event where patient_ref is not null order by seq"):
            event = json.loads(row["leaf"])
            enc = event["data"].get("enc")
            if enc is not None and enc["kid"] == key.kid:
                found.append(unseal_with(key.cipher, event["id"], enc) == patient)
        return found


def unseal_with(cipher: object, event_id: str, enc: dict[str, str]) -> str:
    from base64 import b64decode

    plain = cipher.decrypt(b64decode(enc["n"]), b64decode(enc["ct"]), event_id.encode())  # type: ignore[attr-defined]
    return json.loads(plain)["patient"]


@pytest.fixture
async def stage(broker: Nats, server: Postgres) -> AsyncIterator[Stage]:
    async with world(broker, server) as w, w.writing(), w.publishing():
        keys_db = f"{w.database}_keys"
        await migrate(server.url(w.database), server.url(keys_db))
        pool = await asyncpg.create_pool(server.url(keys_db, "key_user"), min_size=1, max_size=2)
        keys = await asyncpg.connect(server.url(keys_db, "key_shredder"))
        officer = await w.connect("audit_officer")
        try:
            yield Stage(w, KeyBook(pool, os.urandom(32), os.urandom(32)), keys, officer)  # type: ignore[arg-type]
        finally:
            await officer.close()
            await keys.close()
            await pool.close()


@pytest.mark.requirement("AU-702")
async def test_after_shredding_the_root_holds_one_person_is_unreadable_and_nothing_leads_to_them(stage: Stage) -> None:
    await stage.record("anna", "bert")
    await stage.record("anna")
    handle = stage.book.handle(TENANT, ANNA)
    assert await stage.readable(ANNA) == [True, True] and await stage.readable(BERT) == [True]
    row = await stage.keys.fetchrow("select kid, pseudonym, wrapped from subject_key where handle = $1", handle)
    before = await stage.w.query("select size, root, note from checkpoint order by size")

    plan = await stage.shredder.plan(handle)
    assert (plan.events, plan.obstacle) == (2, "the duty to retain overrides erasure")
    with pytest.raises(Conflict, match="retain"):
        await stage.shredder.shred(handle, "officer")
    assert await stage.readable(ANNA) == [True, True]
    await stage.shredder.shred(handle, "officer", basis="art17-1d")

    assert await stage.readable(ANNA) == [], "a new key knows nothing of the old events"
    assert await stage.readable(BERT) == [True]
    left = await stage.keys.fetchrow("select * from subject_key where kid = $1", row["kid"])
    assert left["wrapped"] is None and left["destroyed_at"] is not None and left["pseudonym"] == row["pseudonym"]
    assert left["handle"] not in (handle, row["pseudonym"]), "nothing leads from the person to the pseudonym"
    with pytest.raises(NotFound):
        await stage.shredder.shred(stage.book.handle(TENANT, "store/Patient/nobody"), "officer")
    report = await stage.w.verify()
    assert report.exit_code == VERIFIED, report.as_text()
    after = {row["size"]: row for row in await stage.w.query("select size, root, note from checkpoint")}
    assert all(after[row["size"]] == row for row in before)
    deeds = await stage.w.query("select phase, outcome, leaf from event where event_type = 'key' order by seq")
    assert [(deed["phase"], deed["outcome"]) for deed in deeds] == [("intent", "success"), ("outcome", "success")]
    assert all(b"anna" not in deed["leaf"] for deed in deeds)


@pytest.mark.requirement("AU-702")
async def test_a_hold_forbids_shredding_even_with_a_legal_ground(stage: Stage) -> None:
    await stage.record("anna")
    handle = stage.book.handle(TENANT, ANNA)
    hold = await holds.place(stage.officer, holds.Scope(actor="issuer|doctor"), "litigation", "ann", uuid.uuid4())
    with pytest.raises(Conflict, match="hold"):
        await stage.shredder.shred(handle, "officer", basis="art17-1d")
    assert await stage.readable(ANNA) == [True]
    await holds.release(stage.officer, hold.id, "ann")
    await holds.release(stage.officer, hold.id, "bob")
    await stage.shredder.shred(handle, "officer", basis="art17-1d")
    assert await stage.readable(ANNA) == []


@pytest.mark.requirement("AU-702")
async def test_only_the_shredder_destroys_and_it_reads_no_key(stage: Stage) -> None:
    await stage.record("anna")
    user = await asyncpg.connect(stage.w.pg.url(f"{stage.w.database}_keys", "key_user"))
    try:
        for statement in ("update subject_key set wrapped = null", "delete from subject_key"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await user.execute(statement)
    finally:
        await user.close()
    for statement in ("delete from subject_key", "update subject_key set pseudonym = kid"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await stage.keys.execute(statement)
