"""Subject keys: lent sealed, stable per subject, and what they seal opens only where it belongs."""

from __future__ import annotations

import json
import os

import asyncpg
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from audit_world import make_call, make_outcome
from engines import Postgres
from wardmesh_audit.migrate import migrate
from wardmesh_audit.subject_keys import KeyBook
from wardmesh_common.errors import BadRequest
from wardmesh_common.leaf import draft_events
from wardmesh_common.questions import KeyQuestion
from wardmesh_common.record_seal import receive, unseal
from wardmesh_common.stamp import Stamp

pytestmark = pytest.mark.anyio

KEK, HANDLE = bytes(32), bytes(range(32))


@pytest.fixture
async def keys(server: Postgres):
    database = f"keys_{os.urandom(4).hex()}"
    await migrate(server.url(f"audit_{database}"), server.url(database))
    pool = await asyncpg.create_pool(server.url(database, "key_user"), min_size=1, max_size=2)
    yield KeyBook(pool, KEK, HANDLE), pool
    await pool.close()


def question(ours: X25519PrivateKey, *patients: str) -> KeyQuestion:
    return KeyQuestion(public_key=ours.public_key().public_bytes_raw(), tenant="t", patients=patients)


@pytest.mark.requirement("AU-701")
async def test_a_sealed_part_opens_only_with_its_key_and_only_in_its_event(keys: tuple[KeyBook, asyncpg.Pool]) -> None:
    book, _ = keys
    ours = X25519PrivateKey.generate()
    lent = receive(ours, await book.lend(question(ours, "store/Patient/a", "store/Patient/b")))
    opened = dict(zip(("store/Patient/a", "store/Patient/b"), lent, strict=True))
    outcome = make_outcome("a", "b")
    stamp = Stamp("fhir-proxy", "fhir-proxy-1")
    drafts = draft_events(make_call(patient="a"), outcome, outcome.touched, stamp.now())
    first, second = (json.loads(stamp.leaf(draft, opened)[0]) for draft in drafts)
    stored = await book.keys("t", ["store/Patient/a", "store/Patient/b"])
    plain = unseal(stored[0].data_key, first["id"], first["data"]["enc"])
    assert plain["patient"] == "store/Patient/a"
    assert plain["resources"] == ["Patient/a"]
    with pytest.raises(InvalidTag):
        unseal(stored[1].data_key, first["id"], first["data"]["enc"])
    with pytest.raises(InvalidTag):  # the two `enc` blocks swapped
        unseal(stored[1].data_key, first["id"], second["data"]["enc"])


async def test_a_subject_keeps_its_key_and_tenants_do_not_share(keys: tuple[KeyBook, asyncpg.Pool]) -> None:
    book, _ = keys
    (first,) = await book.keys("t", ["p"])
    assert await book.keys("t", ["q", "p", "p"]) == [*(await book.keys("t", ["q"])), first, first]
    (other,) = await book.keys("u", ["p"])
    assert other.kid != first.kid
    assert other.pseudonym != first.pseudonym


async def test_the_table_holds_no_patient_and_the_user_changes_nothing(keys: tuple[KeyBook, asyncpg.Pool]) -> None:
    book, pool = keys
    (key,) = await book.keys("t", ["store/Patient/secret-id"])
    row = await pool.fetchrow("select * from subject_key where kid = $1", key.kid)
    assert row is not None
    assert b"secret-id" not in b"".join(value for value in row.values() if isinstance(value, bytes))
    assert key.data_key not in row["wrapped"]
    for statement in ("update subject_key set wrapped = null", "delete from subject_key", "truncate subject_key"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pool.execute(statement)


async def test_only_the_asker_can_open_the_answer(keys: tuple[KeyBook, asyncpg.Pool]) -> None:
    book, _ = keys
    ours = X25519PrivateKey.generate()
    answer = await book.lend(question(ours, "p"))
    with pytest.raises(InvalidTag):
        receive(X25519PrivateKey.generate(), answer)


async def test_senseless_questions_are_refused(keys: tuple[KeyBook, asyncpg.Pool]) -> None:
    book, _ = keys
    with pytest.raises(BadRequest):
        await book.lend(KeyQuestion(public_key=b"short", tenant="t", patients=("p",)))
    with pytest.raises(BadRequest):
        await book.lend(KeyQuestion(public_key=bytes(32), tenant="t", patients=()))
