"""Sends the audit stream as BALP AuditEvents to a FHIR R4 server: batches of PUT, safe to send again.

python to_fhir.py --nats nats://nats.example:4222 --key "$KEY" --cursor fhir.cursor --url https://fhir.example/r4
"""

from __future__ import annotations

import argparse
import asyncio
import json
import urllib.request
from typing import Any

import nats

from wardmesh_audit.balp import audit_event, bundle
from wardmesh_audit.client import AuditConsumer


class Refused(Exception):
    """The FHIR server did not take every event of a batch."""


def send(batch: dict[str, Any], url: str) -> None:
    """Raises OSError or Refused: the program ends, and the same batch is sent again at the next start."""
    body = json.dumps(batch).encode()
    headers = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json"}
    request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310 - the operator's own address
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        entries = json.load(answer).get("entry", [])
    if len(entries) != len(batch["entry"]) or any(each["response"]["status"][:1] != "2" for each in entries):
        raise Refused("not every AuditEvent was taken")


async def main() -> None:
    parser = argparse.ArgumentParser(description="audit stream to a FHIR server")
    parser.add_argument("--nats", required=True)
    parser.add_argument("--creds", help="credentials file of this consumer")
    parser.add_argument("--nkey", help="seed file of this consumer")
    parser.add_argument("--key", required=True)
    parser.add_argument("--cursor", required=True)
    parser.add_argument("--name", default="fhir")
    parser.add_argument("--log", type=int, default=0)
    parser.add_argument("--url", required=True)
    args = parser.parse_args()
    nc = await nats.connect(
        args.nats, user_credentials=args.creds, nkeys_seed=args.nkey, inbox_prefix=f"_INBOX_{args.name}"
    )
    consumer = AuditConsumer(nc, args.name, cursor_file=args.cursor, log_keys=[args.key], log=args.log)
    async for batch in consumer.batches():
        events = [audit_event(event.json()) for event in batch if event.type != "malformed"]
        if events:
            await asyncio.to_thread(send, bundle(events), args.url)
        consumer.commit(batch)


if __name__ == "__main__":
    asyncio.run(main())
