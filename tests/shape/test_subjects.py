"""The table of subjects in contracts.py and the permissions in deploy/nats/nats.conf say the same (AR-2)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wardmesh_common.contracts import SERVICES, STATIONS, STORE, SUBJECTS, USERS

CONF = Path(__file__).resolve().parents[2] / "deploy" / "nats" / "nats.conf"
# Subjects that are not part of the table: private inboxes, discovery, and the JetStream of the audit service.
OWN = ("_INBOX_", "$SRV.", "$JS.", "audit.v1.", "audit.checkpoint.")


def permissions() -> dict[str, tuple[set[str], set[str]]]:
    """Service -> (publish, subscribe) as the file lists them."""
    text = re.sub(r"#.*", "", CONF.read_text())
    found: dict[str, tuple[set[str], set[str]]] = {}
    for block in text.split("nkey: $WARDMESH_NKEY_")[1:]:
        name = block.split()[0].lower().replace("_", "-")
        lists = [set(re.findall(r'"([^"]+)"', part)) for part in re.findall(r"allow: \[(.*?)\]", block, re.DOTALL)]
        assert len(lists) == 2, name
        found[name] = (lists[0], lists[1])
    return found


@pytest.mark.requirement("AR-2")
def test_the_permissions_file_and_the_table_of_subjects_agree() -> None:
    allowed = permissions()
    assert set(allowed) == set(USERS)
    for service in (*SERVICES, STORE):
        publish, subscribe = allowed[service]
        expected_publish = {rule.subject for rule in SUBJECTS if service in rule.publishers}
        expected_subscribe = {
            f"{rule.subject} {service}" if rule.queue else rule.subject
            for rule in SUBJECTS
            if service in rule.subscribers
        }
        assert {s for s in publish if not s.startswith(OWN)} == expected_publish, service
        assert {s for s in subscribe if not s.startswith(OWN)} == expected_subscribe, service


@pytest.mark.requirement("AR-2")
def test_inboxes_are_private_and_only_stations_and_answers_reach_the_gateways() -> None:
    allowed = permissions()
    for service in (*SERVICES, STORE):
        _, subscribe = allowed[service]
        assert {s for s in subscribe if s.startswith("_INBOX_")} == {f"_INBOX_{service}.>"}
    writers = {service for service in SERVICES if "_INBOX_gateway.>" in allowed[service][0]}
    assert writers == set(STATIONS)


@pytest.mark.requirement("AR-2", "X-45")
def test_only_operations_and_audit_may_use_the_jetstream_api_and_nobody_deletes() -> None:
    for service, (publish, _) in permissions().items():
        api = {subject for subject in publish if subject.startswith("$JS.")}
        assert bool(api) == (service in ("audit", "operations")), service
        assert not [s for s in api if "STREAM.DELETE" in s or "PURGE" in s or "MSG.DELETE" in s or s.endswith("API.>")]
    audit_api = {s for s in permissions()["audit"][0] if "STREAM.CREATE" in s or "STREAM.UPDATE" in s}
    assert not audit_api
