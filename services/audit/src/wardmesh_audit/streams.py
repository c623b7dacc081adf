"""The streams and the writers' consumers: settings, provisioning, and the assertion that they are so."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from wardmesh_audit.jetstream import Requester, StreamMissing, api

AUDIT_IN = "AUDIT_IN"
AUDIT = "AUDIT"
AUDIT_CHECKPOINT = "AUDIT_CHECKPOINT"
MAX_LOGS = 4  # as many as deploy/nats/nats.conf names
# What a killed writer held comes back after this time; a living one says that it is still at work (docs/adr/0023).
ACK_WAIT_SECONDS = 5
_ACK_WAIT_BEFORE = 30
_SECOND = 1_000_000_000
_DAY = 86_400 * _SECOND

GiB = 1024**3


class StreamSettings(Struct, frozen=True):
    """What an operator may choose; everything else is fixed by the design."""

    replicas: int = 1
    logs: int = 1
    in_max_bytes: int = 4 * GiB
    out_max_bytes: int = -1
    out_max_age_days: int = 90


class WrongStream(Exception):
    """A stream or consumer is missing or differs; names the setting."""


def audit_stream(log_id: int) -> str:
    """The stream of one log for consumers: AUDIT, then AUDIT_1 and so on."""
    return f"{AUDIT}_{log_id}" if log_id else AUDIT


def consumer_of(log_id: int) -> str:
    return f"audit-writer-{log_id}"


def stream_configs(settings: StreamSettings) -> dict[str, dict[str, Any]]:
    """What section 6 of the audit guide says about each stream."""
    incoming: dict[str, Any] = {
        "subjects": ["audit.in.>"],
        "max_age": 14 * _DAY,
        "max_bytes": settings.in_max_bytes,
        "max_msg_size": 1024 * 1024,
    }
    outgoing: dict[str, Any] = {
        "max_age": settings.out_max_age_days * _DAY,
        "max_bytes": settings.out_max_bytes,
        "max_msg_size": 64 * 1024,
        "allow_atomic": True,
    }
    checkpoints: dict[str, Any] = {
        "subjects": ["audit.checkpoint.*"],
        "max_age": 0,
        "max_bytes": -1,
        "max_msg_size": 16 * 1024,
    }
    configs = {AUDIT_IN: incoming}
    for log_id in range(settings.logs):
        configs[audit_stream(log_id)] = outgoing | {"subjects": [f"audit.v1.{log_id}.>"]}
    configs[AUDIT_CHECKPOINT] = checkpoints
    return {name: {"name": name, **config, **_shared(settings)} for name, config in configs.items()}


def _shared(settings: StreamSettings) -> dict[str, Any]:
    return {
        "storage": "file",
        "retention": "limits",
        "num_replicas": settings.replicas,
        "discard": "new",
        "duplicate_window": 600 * _SECOND,
        "deny_delete": True,
        "deny_purge": True,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_consumers": -1,
        "allow_rollup_hdrs": False,
    }


def consumer_config(log_id: int = 0, logs: int = 1) -> dict[str, Any]:
    """The only log takes everything that arrives; of several, each takes its own subject."""
    return {
        "durable_name": consumer_of(log_id),
        "ack_policy": "explicit",
        "ack_wait": ACK_WAIT_SECONDS * _SECOND,
        "deliver_policy": "all",
        "replay_policy": "instant",
        "max_deliver": -1,
        "max_ack_pending": 1000,
        "filter_subject": f"audit.in.{log_id}" if logs > 1 else "",
    }


async def provision(nc: Requester, settings: StreamSettings) -> list[str]:
    """Makes what is missing and says what it made; what is there and differs is an error, never changed silently."""
    made: list[str] = []
    for name, config in stream_configs(settings).items():
        try:
            await api(nc, f"STREAM.INFO.{name}")
        except StreamMissing:
            await api(nc, f"STREAM.CREATE.{name}", config)
            made.append(name)
    logs = settings.logs
    made += [consumer_of(log_id) for log_id in range(logs) if await _make_consumer(nc, log_id, logs)]
    await assert_streams(nc, settings)
    return made


async def _make_consumer(nc: Requester, log_id: int, logs: int) -> bool:
    name = consumer_of(log_id)
    try:
        info = await api(nc, f"CONSUMER.INFO.{AUDIT_IN}.{name}")
        if not _outgrown(info["config"], logs):
            return False
    except StreamMissing:
        pass
    body = {"stream_name": AUDIT_IN, "config": consumer_config(log_id, logs)}
    await api(nc, f"CONSUMER.DURABLE.CREATE.{AUDIT_IN}.{name}", body)
    return True


def _outgrown(found: dict[str, Any], logs: int) -> bool:
    """A consumer is changed in two cases: from one log to several it narrows, and earlier releases waited longer."""
    narrows = logs > 1 and not found.get("filter_subject")
    return narrows or found.get("ack_wait") == _ACK_WAIT_BEFORE * _SECOND


async def assert_streams(nc: Requester, settings: StreamSettings) -> None:
    """Raises WrongStream naming the first setting that differs from the design (AU-201)."""
    for name, wanted in stream_configs(settings).items():
        try:
            info = await api(nc, f"STREAM.INFO.{name}")
        except StreamMissing:
            raise WrongStream(f"stream {name} is missing: run `wardmesh-audit provision`") from None
        _compare(f"stream {name}", wanted, info["config"])
        if info["config"].get("persist_mode", "default") not in ("", "default"):
            raise WrongStream(f"stream {name}: persist_mode is not the default")
    for log_id in range(settings.logs):
        name = consumer_of(log_id)
        try:
            info = await api(nc, f"CONSUMER.INFO.{AUDIT_IN}.{name}")
        except StreamMissing:
            raise WrongStream(f"consumer {name} is missing: run `wardmesh-audit provision`") from None
        _compare(f"consumer {name}", consumer_config(log_id, settings.logs), info["config"])


def _compare(what: str, wanted: dict[str, Any], found: dict[str, Any]) -> None:
    for setting, value in wanted.items():
        # The server leaves out what is false or zero.
        if found.get(setting, type(value)()) != value:
            raise WrongStream(f"{what}: {setting} is not as designed")
