"""A consumer as a process: writes each event to a file, syncs it, then commits; to be killed anywhere."""

from __future__ import annotations

import asyncio
import os
import sys

import nats

from wardmesh_audit.client import AuditConsumer


async def main(url: str, vkey: str, cursor: str, out: str) -> None:
    nc = await nats.connect(url)
    consumer = AuditConsumer(nc, "killed", cursor_file=cursor, log_keys=[vkey], batch=64)
    with open(out, "r+", encoding="utf-8") as sink:  # noqa: PTH123
        # A process that was killed while it wrote left part of a line, which no commit covers.
        sink.seek(sink.truncate(sink.read().rfind("\n") + 1))
        async for batch in consumer.batches():
            sink.write("".join(f"{event.index} {event.leaf.hex()}\n" for event in batch))
            sink.flush()
            os.fsync(sink.fileno())
            consumer.commit(batch)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
