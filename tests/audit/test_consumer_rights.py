"""A consumer with the rights that the page gives it: it reads the stream and can do nothing else on the bus."""

from __future__ import annotations

import asyncio
import os
import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import nats as plain
import nkeys
import pytest

from audit_world import SEED, leaves_of
from engines import free_port, nats
from wardmesh_audit.client import AuditConsumer
from wardmesh_audit.merkle import CompactRange, leaf_hash
from wardmesh_audit.note import Checkpoint, Signer

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
USERS = sorted(set(re.findall(r"\$WARDMESH_NKEY_(\w+)", (ROOT / "deploy/nats/nats.conf").read_text())))
VKEY = Signer("test/audit/0", SEED).verifier.vkey()


def key_pair() -> tuple[bytes, str]:
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return seed, nkeys.from_seed(seed).public_key.decode()


def configuration() -> str:
    """The deployment's file with the block of the page, and one user who may do everything, to fill the streams."""
    page = (ROOT / "docs" / "audit-stream.md").read_text()
    block = re.findall(r"```conf\n(.*?)```", page, flags=re.DOTALL)[0]
    text = (ROOT / "deploy/nats/nats.conf").read_text()
    place = text.index("      {\n", text.index("users: ["))
    return text[:place] + block + "      { user: test, password: test }\n" + text[place:]


async def test_a_consumer_of_its_own_reads_and_can_do_nothing_else(tmp_path: Path) -> None:
    keys = {user: key_pair() for user in (*USERS, "SIEM")}
    environ = {f"WARDMESH_NKEY_{user}": public for user, (_, public) in keys.items()}
    environ |= {"WARDMESH_NATS_HOST": "127.0.0.1", "WARDMESH_NATS_MONITOR": f"127.0.0.1:{free_port()}"}
    seed_file = tmp_path / "siem.seed"
    seed_file.write_bytes(keys["SIEM"][0])
    with nats(configuration(), environ) as broker:
        nc = await plain.connect(broker.url, user="test", password="test")
        js = nc.jetstream()
        await publish(js)
        errors: list[str] = []

        async def failed(error: Exception) -> None:
            errors.append(str(error))

        siem = await plain.connect(
            broker.url, nkeys_seed=str(seed_file), inbox_prefix="_INBOX_siem", error_cb=failed, allow_reconnect=False
        )
        consumer = AuditConsumer(siem, "siem", cursor_file=tmp_path / "cursor", log_keys=[VKEY], verified_only=True)
        async with asyncio.timeout(60):
            async for batch in consumer.batches():
                consumer.commit(batch)
                if batch[-1].index == 49:
                    break
        assert errors == []
        for subject in (
            "call.identify",
            "audit.in.0",
            "audit.v1.0.access.R.TREAT",
            "audit.checkpoint.0",
            "$JS.API.STREAM.DELETE.AUDIT",
            "$JS.API.STREAM.PURGE.AUDIT",
            "$JS.API.STREAM.MSG.DELETE.AUDIT",
            "$JS.API.CONSUMER.DELETE.AUDIT.other",
            "$JS.API.CONSUMER.CREATE.AUDIT_IN.siem",
            "ask.audit.key.lend",
        ):
            errors.clear()
            await siem.publish(subject, b"x")
            await siem.flush()
            async with asyncio.timeout(60):
                while not errors:
                    await asyncio.sleep(0.01)
            assert "permissions violation" in errors[0].lower(), subject
        await siem.close()
        await nc.close()


async def publish(js: Any) -> None:
    """Fifty events and their checkpoint, as the publisher would."""
    await js.add_stream(name="AUDIT", subjects=["audit.v1.0.>"])
    await js.add_stream(name="AUDIT_CHECKPOINT", subjects=["audit.checkpoint.*"])
    tree = CompactRange()
    for index, leaf in enumerate(leaves_of(50)):
        hashed = leaf_hash(leaf)
        headers = {"Audit-Log-Index": str(index), "Audit-Leaf-Hash": b64encode(hashed).decode()}
        await js.publish("audit.v1.0.audit_status.audit_status._", leaf, headers=headers)
        tree.append(hashed)
    note = Signer("test/audit/0", SEED).sign(Checkpoint("test/audit/0", tree.size, tree.root()).text())
    await js.publish("audit.checkpoint.0", note.encode())
