"""Verification of a large log: constant memory, and the same answer by images of rows as by their columns."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from audit_world import SEED, world
from engines import Nats, Postgres
from wardmesh_audit.envelope import rows_of
from wardmesh_audit.merkle import CompactRange
from wardmesh_audit.note import Checkpoint, Signer
from wardmesh_audit.projection import COLUMNS, PROJECTED, BadLeaf, project
from wardmesh_audit.row_image import HEAD, TAIL, Images, differing, microseconds

GOLDEN = Path(__file__).parent / "golden" / "events" / "access.json"
EVENT: dict[str, Any] = json.loads(GOLDEN.read_text())
EVENTS, FEW, BATCH = 200_000, 20_000, 4000

CHILD = """
import asyncio, sys, time
import asyncpg
from wardmesh_audit.note import parse_vkey
from wardmesh_audit.verify import Verification

async def main():
    conn = await asyncpg.connect(sys.argv[1])
    before = time.process_time()
    report = await Verification(conn, [parse_vkey(sys.argv[2])]).run()
    spent = time.process_time() - before
    # Not ru_maxrss: a child starts with that of its parent.
    lines = open("/proc/self/status").read().splitlines()
    memory = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
    print(report.exit_code, report.rows, memory, spent)

asyncio.run(main())
"""


def event_leaf(number: int) -> bytes:
    """An access of about 1.4 kB as a station records it."""
    at = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(milliseconds=number)
    millis = int(at.timestamp() * 1000)
    data = EVENT["data"] | {
        "patient": {"pseudonym": f"{number % 5000:032x}"},
        "producer": EVENT["data"]["producer"] | {"seq": number},
        "request": EVENT["data"]["request"] | {"id": f"req-{number:012d}"},
    }
    made = EVENT | {
        "data": data,
        "id": f"{millis >> 16:08x}-{millis & 0xFFFF:04x}-7000-8000-{number:012x}",
        "time": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    return msgspec.json.encode(made, order="sorted")


async def fill(conn: Any, start: int, end: int, signer: Signer) -> None:
    """As the writer leaves rows behind, without the way there: 200,000 through the stream would take too long here."""
    state = await conn.fetchrow("select size, frontier from tree_state where log_id = 0")
    tree = CompactRange(state["size"], state["frontier"])
    for first in range(start, end, BATCH):
        rows = [
            row for n in range(first, first + BATCH) for row in rows_of("AUDIT_IN", n, datetime.now(UTC), event_leaf(n))
        ]
        records = [(0, first + i, *row.projected, first, row.leaf, row.leaf_hash) for i, row in enumerate(rows)]
        await conn.copy_records_to_table("event", records=records, columns=COLUMNS)
        tree.extend(row.leaf_hash for row in rows)
        note = signer.sign(Checkpoint("test/audit/0", tree.size, tree.root()).text())
        await conn.execute("insert into checkpoint values (0, $1, $2, $3)", tree.size, tree.root(), note)
    await conn.execute(
        "update tree_state set size = $1, root = $2, frontier = $3", tree.size, tree.root(), tree.frontier()
    )


async def verified(url: str, key: str) -> tuple[int, int, int, float]:
    """Exit code, rows, largest memory in kB and CPU seconds of a process that does nothing else."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    line = [sys.executable, "-c", CHILD, url, key]
    run: Any = subprocess.run
    done = await asyncio.to_thread(run, line, env=environ, capture_output=True, text=True, timeout=120, check=True)
    code, rows, memory, spent = done.stdout.split()
    return int(code), int(rows), int(memory), float(spent)


@pytest.mark.anyio
@pytest.mark.timeout(240)
@pytest.mark.requirement("AU-507")
async def test_ten_times_the_log_takes_no_more_memory_and_ten_million_rows_take_minutes(
    broker: Nats, server: Postgres, record_property: Any
) -> None:
    signer = Signer("test/audit/0", SEED)
    async with world(broker, server) as w:
        conn = await w.connect()
        try:
            await fill(conn, 0, FEW, signer)
            few = await verified(w.url("audit_reader"), signer.verifier.vkey())
            await fill(conn, FEW, EVENTS, signer)
        finally:
            await conn.close()
        many = await verified(w.url("audit_reader"), signer.verifier.vkey())
    assert few[:2] == (0, FEW) and many[:2] == (0, EVENTS)
    assert many[2] < few[2] + 16 * 1024, f"{few[2]} kB for {FEW} rows, {many[2]} kB for {EVENTS}"
    each = (many[3] - few[3]) / (EVENTS - FEW)
    record_property("microseconds_per_event", round(each * 1e6, 2))
    print(f"verify: {each * 1e6:.2f} us of CPU per event, {many[2]} kB")
    assert each * 10_000_000 < 600, "ten million rows would take more than ten minutes of CPU"


_odd = st.one_of(st.none(), st.text(max_size=8), st.sampled_from(["\x00", "a" * 1025, "é" * 513, "TREAT"]))
_ids = st.sampled_from([EVENT["id"], EVENT["id"].upper(), EVENT["id"].replace("-", ""), "x", ""])
_times = st.sampled_from(
    [EVENT["time"], "2026-05-04T10:15:30+02:00", "2026-05-04T10:15:30", "9999-01-01T00:00:00Z", ""]
)
_traces = st.sampled_from([EVENT["traceparent"], "00-short-x-01", "00--" + "a" * 32 + "-01", "a-b-c", None])
_pseudonyms = st.sampled_from(
    ["0f" * 16, "0F" * 16, "0f" * 15, " " + "0f" * 16, "0f" * 16 + "\n", "0f " * 16, "zz", ""]
)
_GOOD = (EVENT["id"], EVENT["time"], EVENT["traceparent"])


@pytest.mark.parametrize(
    "pseudonym", [" " + "0f" * 16, "0f" * 16 + "\n", "0f " * 16, "0F" * 16, "0f" * 15, "\u0660f" * 16]
)
def test_only_32_hex_digits_in_lower_case_are_a_pseudonym(pseudonym: str) -> None:
    """Written as text in one way only; every other way is a malformed leaf, for the columns as for their image."""
    seq, known = EVENT["data"]["producer"]["seq"], EVENT["id"].encode()
    leaf = msgspec.json.encode(EVENT | {"data": EVENT["data"] | {"patient": {"pseudonym": pseudonym}}})
    with pytest.raises(BadLeaf):
        project(leaf)
    assert Images().tail(leaf, written(EVENT["time"]), seq, known) is None
    (row,) = rows_of("AUDIT_IN", 1, datetime.now(UTC), leaf)
    assert dict(zip(PROJECTED, row.projected, strict=True))["event_type"] == "malformed"


@example(*_GOOD, " " + "0f" * 16, None, None, 0, False)
@given(_ids, _times, _traces, _pseudonyms, _odd, _odd, st.integers(-1, 2**63), st.booleans())
def test_the_image_of_a_leaf_is_that_of_its_columns(
    identifier: str, time: str, trace: str | None, pseudonym: str, actor: str | None, request: str | None,
    seq: int, glass: bool,
) -> None:  # fmt: skip
    data = EVENT["data"] | {
        "actor": {"id": actor},
        "break_glass": {"used": glass},
        "patient": {"pseudonym": pseudonym},
        "producer": EVENT["data"]["producer"] | {"seq": seq},
        "request": {"id": request},
    }
    leaf = msgspec.json.encode(EVENT | {"id": identifier, "time": time, "traceparent": trace, "data": data})
    known = identifier.encode()
    try:
        columns = dict(zip(PROJECTED, project(leaf), strict=True))
    except BadLeaf:
        # An id that is no canonical UUID is no row's id; everything else has no image.
        if (read := uuid_or_none(identifier)) is not None and str(read) == identifier:
            # No column holds a NUL, so nothing needs to look for one.
            assert "\x00" in f"{request}{actor}" or Images().tail(leaf, written(time), seq, known) is None
        return
    occurred = written(time)
    tail = Images().tail(leaf, occurred, seq, known)
    assert tail is not None
    head = dict(zip(HEAD, (occurred.to_bytes(8, "big", signed=True), seq.to_bytes(8, "big"), known), strict=True))
    stored = head | cut(tail)
    assert differing(leaf, stored) == []
    assert stored["actor_id"] == (actor.encode() if actor is not None else None)
    assert stored["event_id"] == str(columns["event_id"]).encode()
    for name in (*HEAD, *TAIL):
        assert differing(leaf, stored | {name: b"other"}) == [name]
    for other in ((occurred + 1, seq, known), (occurred, seq + 1, known), (occurred, seq, known[::-1])):
        assert Images().tail(leaf, *other) is None


def test_of_a_far_year_only_the_columns_decide() -> None:
    """There the microseconds of an instant are no longer told apart as fractions of its seconds."""
    seq, known = EVENT["data"]["producer"]["seq"], EVENT["id"].encode()
    columns = cut(Images().tail(msgspec.json.encode(EVENT), written(EVENT["time"]), seq, known) or b"")
    columns |= {"event_id": known, "producer_seq": seq.to_bytes(8, "big")}
    for year, made in (("1970", True), ("2199", True), ("2200", False), ("9998", False)):
        leaf = msgspec.json.encode(EVENT | {"time": f"{year}-12-31T23:59:59.999999Z"})
        occurred = written(f"{year}-12-31T23:59:59.999999Z")
        assert (Images().tail(leaf, occurred, seq, known) is not None) == made
        assert differing(leaf, columns | {"occurred_at": occurred.to_bytes(8, "big", signed=True)}) == []
        for other in (occurred - 1, occurred + 1):
            assert Images().tail(leaf, other, seq, known) is None


def written(time: str) -> int:
    """As the column would hold it; of what is no instant, some other one."""
    try:
        at = datetime.fromisoformat(time)
    except ValueError:
        return 0
    return microseconds(at if at.tzinfo else at.replace(tzinfo=UTC))


def uuid_or_none(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def cut(image: bytes) -> dict[str, Any]:
    """The columns of an image."""
    at, columns = 0, dict[str, Any]()
    for name in TAIL:
        length = int.from_bytes(image[at : at + 4], "big", signed=True)
        columns[name] = image[at + 4 : at + 4 + length] if length >= 0 else None
        at += 4 + max(length, 0)
    assert at == len(image)
    return columns
