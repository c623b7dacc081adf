"""The three streams and the writer's consumer: settings, provisioning, and the assertion that they are so."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from wardmesh_audit.jetstream import Requester, StreamMissing, api

AUDIT_IN = "AUDIT_IN"
AUDIT = "AUDIT"
AUDIT_CHECKPOINT = "AUDIT_CHECKPOINT"
CONSUMER = "audit-writer-0"
_SECOND = 1_000_000_000
_DAY = 86_400 * _SECOND

GiB = 1024**3


class StreamSettings(Struct, frozen=True):
    """What an operator may choose; everything else is fixed by the design."""

    replicas: int = 1
    in_max_bytes: int = 4 * GiB
    out_max_bytes: int = -1
    out_max_age_days: int = 90


class WrongStream(Exception):
    """A stream or consumer is missing or differs; names the setting."""


def stream_configs(settings: StreamSettings) -> dict[str, dict[str, Any]]:
    shared = {
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
    return {
        AUDIT_IN: {
            "name": AUDIT_IN,
            "subjects": ["audit.in.>"],
            "max_age": 14 * _DAY,
            "max_bytes": settings.in_max_bytes,
            "max_msg_size": 1024 * 1024,
            **shared,
        },
        AUDIT: {
            "name": AUDIT,
            "subjects": ["audit.v1.0.>"],
            "max_age": settings.out_max_age_days * _DAY,
            "max_bytes": settings.out_max_bytes,
            "max_msg_size": 64 * 1024,
            "allow_atomic": True,
            **shared,
        },
        AUDIT_CHECKPOINT: {
            "name": AUDIT_CHECKPOINT,
            "subjects": ["audit.checkpoint.*"],
            "max_age": 0,
            "max_bytes": -1,
            "max_msg_size": 16 * 1024,
            **shared,
        },
    }


def consumer_config() -> dict[str, Any]:
    return {
        "durable_name": CONSUMER,
        "ack_policy": "explicit",
        "ack_wait": 30 * _SECOND,
        "deliver_policy": "all",
        "replay_policy": "instant",
        "max_deliver": -1,
        "max_ack_pending": 1000,
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
    try:
        await api(nc, f"CONSUMER.INFO.{AUDIT_IN}.{CONSUMER}")
    except StreamMissing:
        body = {"stream_name": AUDIT_IN, "config": consumer_config()}
        await api(nc, f"CONSUMER.DURABLE.CREATE.{AUDIT_IN}.{CONSUMER}", body)
        made.append(CONSUMER)
    await assert_streams(nc, settings)
    return made


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
    try:
        info = await api(nc, f"CONSUMER.INFO.{AUDIT_IN}.{CONSUMER}")
    except StreamMissing:
        raise WrongStream(f"consumer {CONSUMER} is missing: run `wardmesh-audit provision`") from None
    _compare(f"consumer {CONSUMER}", consumer_config(), info["config"])


def _compare(what: str, wanted: dict[str, Any], found: dict[str, Any]) -> None:
    for setting, value in wanted.items():
        # The server leaves out what is false or zero.
        if found.get(setting, type(value)()) != value:
            raise WrongStream(f"{what}: {setting} is not as designed")
