"""Keeps the audit stream as Parquet files in a directory or on S3-compatible storage, each file written once.

    python to_parquet.py --nats nats://nats.example:4222 --key "$KEY" --cursor parquet.cursor --to /archive
    python to_parquet.py ... --to s3://bucket/prefix --endpoint https://s3.example

Only verified events are written. A file is named by its indices, so that writing it again changes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats
import pyarrow as pa
import pyarrow.parquet as pq

from wardmesh_audit.client import AuditConsumer, Event
from wardmesh_audit.parquet import SCHEMA, row_of

Put = Callable[[Path, str], object]


def storage(target: str, endpoint: str) -> Put:
    """Puts a local file under a name: into a directory, or with boto3 (`pip install boto3`) into a bucket."""
    parts = urlsplit(target)
    if parts.scheme == "s3":
        import boto3  # noqa: PLC0415 - only for s3

        client: Any = boto3.client("s3", endpoint_url=endpoint or None)
        prefix = parts.path.strip("/")

        def upload(path: Path, name: str) -> None:
            client.upload_file(str(path), parts.netloc, f"{prefix}/{name}".lstrip("/"))

        return upload
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    return lambda path, name: path.rename(folder / name)


def write(events: list[Event], log: int, put: Put, scratch: Path) -> None:
    stored = [datetime.fromtimestamp(event.stored_ms / 1000, UTC) for event in events]
    rows = [row_of(event.index, event.leaf, when) for event, when in zip(events, stored, strict=True)]
    name = f"log{log}-{events[0].index:012d}-{events[-1].index:012d}.parquet"
    path = scratch / name
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, compression="zstd")
    put(path, name)


async def main() -> None:
    parser = argparse.ArgumentParser(description="audit stream to Parquet")
    parser.add_argument("--nats", required=True)
    parser.add_argument("--creds", help="credentials file of this consumer")
    parser.add_argument("--nkey", help="seed file of this consumer")
    parser.add_argument("--key", required=True)
    parser.add_argument("--cursor", required=True)
    parser.add_argument("--name", default="parquet")
    parser.add_argument("--log", type=int, default=0)
    parser.add_argument("--to", required=True, help="directory, or s3://bucket/prefix")
    parser.add_argument("--endpoint", default="", help="of S3-compatible storage")
    parser.add_argument("--rows", type=int, default=50_000, help="per file")
    args = parser.parse_args()
    put = storage(args.to, args.endpoint)
    nc = await nats.connect(
        args.nats, user_credentials=args.creds, nkeys_seed=args.nkey, inbox_prefix=f"_INBOX_{args.name}"
    )
    consumer = AuditConsumer(
        nc, args.name, cursor_file=args.cursor, log_keys=[args.key], log=args.log, verified_only=True
    )
    waiting: list[Event] = []
    with tempfile.TemporaryDirectory(dir=None if args.to.startswith("s3:") else args.to) as scratch:
        async for batch in consumer.batches():
            waiting += batch
            while len(waiting) >= args.rows:
                part, waiting = waiting[: args.rows], waiting[args.rows :]
                await asyncio.to_thread(write, part, args.log, put, Path(scratch))
                consumer.commit(part)


if __name__ == "__main__":
    asyncio.run(main())
