"""Ships the audit stream to a SIEM as OCSF API Activity: one JSON object per line to stdout, or batches by HTTP.

    python to_siem.py --nats nats://nats.example:4222 --key "$KEY" --cursor siem.cursor
    python to_siem.py ... --url https://siem.example/ingest

At least once: the cursor moves after the SIEM has taken a batch. Deduplicate on metadata.uid.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import urllib.request
from typing import Any

import nats

from wardmesh_audit.client import AuditConsumer, Event
from wardmesh_audit.ocsf import api_activity, malformed


def ocsf(event: Event, log: int) -> dict[str, Any]:
    if event.type == "malformed":
        return malformed(event.index, event.stored_ms, log=log, size=len(event.leaf))
    return api_activity(event.json(), log=log, index=event.index)


def send(lines: bytes, url: str) -> None:
    """Raises OSError when the SIEM did not take it: the program ends and begins there again."""
    if not url:
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()
        return
    request = urllib.request.Request(url, data=lines, headers={"Content-Type": "application/x-ndjson"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310 - the address is the operator's own
        pass


async def main() -> None:
    parser = argparse.ArgumentParser(description="audit stream to SIEM")
    parser.add_argument("--nats", required=True)
    parser.add_argument("--creds", help="credentials file of this consumer")
    parser.add_argument("--nkey", help="seed file of this consumer")
    parser.add_argument("--key", required=True, help="public key of the log")
    parser.add_argument("--cursor", required=True)
    parser.add_argument("--name", default="siem")
    parser.add_argument("--log", type=int, default=0)
    parser.add_argument("--url", default="", help="empty: stdout")
    args = parser.parse_args()
    nc = await nats.connect(
        args.nats, user_credentials=args.creds, nkeys_seed=args.nkey, inbox_prefix=f"_INBOX_{args.name}"
    )
    consumer = AuditConsumer(nc, args.name, cursor_file=args.cursor, log_keys=[args.key], log=args.log)
    async for batch in consumer.batches():
        lines = "".join(json.dumps(ocsf(event, args.log)) + "\n" for event in batch)
        await asyncio.to_thread(send, lines.encode(), args.url)
        consumer.commit(batch)


if __name__ == "__main__":
    asyncio.run(main())
