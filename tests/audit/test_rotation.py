"""New signing keys: both sign for a while, old and new checkpoints verify, unknown lines are nobody's business."""

from __future__ import annotations

from base64 import b64encode

import pytest

from audit_world import SEED, leaves_of, world
from engines import Nats, Postgres
from wardmesh_audit.findings import CANNOT_VERIFY, VERIFIED
from wardmesh_audit.note import BadSignature, Signer, UnknownKey, open_note, split_note
from wardmesh_audit.settings import AuditSettings
from wardmesh_audit.verify import Verification
from wardmesh_common.settings import load

pytestmark = pytest.mark.anyio

OLD = Signer("test/audit/0", SEED)
BOTH = Signer("test/audit/0", bytes(32), SEED)
NEW = Signer("test/audit/0", bytes(32))


@pytest.mark.requirement("AU-408")
async def test_checkpoints_of_both_keys_verify_after_a_rotation_under_load(broker: Nats, server: Postgres) -> None:
    async with world(broker, server) as w, w.writing():
        size = 0
        for signer in (OLD, BOTH, NEW):
            w.signer = signer
            # What was published last carries a key that the next publisher knows: old public keys stay configured.
            w.verifiers = [OLD.verifier, NEW.verifier]
            async with w.publishing():
                for _ in range(5):
                    await w.send(*leaves_of(40))
                    size += 40
                await w.wait_signed(size)
        notes = await w.query("select note from checkpoint order by size")
        keys = [[key for _, key, _ in split_note(row["note"])[1]] for row in notes]
        old, new = OLD.verifier.key_id, NEW.verifier.key_id
        assert keys[0] == [old] and [new, old] in keys and keys[-1] == [new]
        changes = [facts for reason, facts in w.statuses if reason == "signing_key_changed"]
        assert [(change["before"], change["keys"]) for change in changes] == [
            ([old.hex()], [new.hex(), old.hex()]),
            ([new.hex(), old.hex()], [new.hex()]),
        ]
        conn = await w.connect("audit_reader")
        try:
            for verifiers, code in (
                ([OLD.verifier, NEW.verifier], VERIFIED),
                ([NEW.verifier, OLD.verifier], VERIFIED),
                ([NEW.verifier], CANNOT_VERIFY),  # an old note without its key
            ):
                assert (await Verification(conn, verifiers).run()).exit_code == code
        finally:
            await conn.close()


@pytest.mark.requirement("AU-408")
def test_unknown_signature_lines_are_ignored_and_wrong_known_ones_are_not() -> None:
    text = "test/audit/0\n3\n" + b64encode(bytes(32)).decode() + "\n"
    note = BOTH.sign(text)
    foreign = Signer("test/audit/0", b"\x07" * 32).sign(text).split("\n\n")[1]
    for verifier in (OLD.verifier, NEW.verifier):
        assert open_note(note + foreign, [verifier]) == text
        assert open_note(note, [verifier]) == text
    with pytest.raises(UnknownKey):
        open_note(OLD.sign(text), [NEW.verifier])
    body, _, lines = note.partition("\n\n")
    swapped = f"{body.replace('3', '4')}\n\n{lines}"
    with pytest.raises(BadSignature):
        open_note(swapped, [OLD.verifier])


@pytest.mark.requirement("AU-408")
def test_the_policy_of_keys_holds_old_ones_with_comments() -> None:
    policy = f"# since 2024\n{OLD.verifier.vkey()}  # retired\n\n{NEW.verifier.vkey()}\n"
    settings = load(AuditSettings, {"WARDMESH_AUDIT_PUBLIC_KEY": policy, "WARDMESH_DEPLOYMENT": "test"})
    assert settings.verifiers() == [OLD.verifier, NEW.verifier]
    assert [key.name for key in settings.verifiers(0)] == ["test/audit/0"] * 2
