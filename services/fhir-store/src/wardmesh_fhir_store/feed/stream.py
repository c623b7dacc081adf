"""The stream STORE and the connections to the broker that hold it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from nats.errors import Error as NatsError

from wardmesh_common.contracts import EVENT_VERSION_COMMITTED, inbox_of
from wardmesh_common.lean import LeanClient

_LOG = logging.getLogger("wardmesh.fhir-store")
STREAM = "STORE"
CONNECT_SECONDS = 10.0
_SECOND = 1_000_000_000
_NO_STREAM = 10059
GiB = 1024**3


class StreamRefused(Exception):
    """The broker has another stream of that name, or does not let us make it."""


def stream_config() -> dict[str, Any]:
    """A feed, no record: what nobody fetched in a week, or beyond a gibibyte, makes room for newer events."""
    return {
        "name": STREAM,
        "subjects": [f"{EVENT_VERSION_COMMITTED}.*.*"],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_age": 7 * 86_400 * _SECOND,
        "max_bytes": GiB,
        "max_msg_size": 4 * 1024,
        "duplicate_window": 600 * _SECOND,
        "allow_atomic": True,
        "deny_delete": True,
        "deny_purge": True,
    }


async def _quiet(error: Exception) -> None:
    """nats-py would print a stack trace."""
    _LOG.debug("broker: %s", type(error).__name__)


@contextlib.asynccontextmanager
async def connection(user: str, url: str, seed: str, *, patient: bool) -> AsyncGenerator[LeanClient]:
    """`patient` waits for the broker as long as it takes and comes back when it does; a command gives up.

    Raises what nats-py raises when it cannot be had.
    """
    nc = LeanClient()
    nc.inbox = inbox_of(user, f"{user}-{secrets.token_hex(4)}")
    attempts: dict[str, Any] = {"max_reconnect_attempts": -1} if patient else {"allow_reconnect": False}
    async with asyncio.timeout(None if patient else CONNECT_SECONDS):
        await nc.connect(
            url.split(","),
            name=nc.inbox.removeprefix("_INBOX_"),
            nkeys_seed_str=seed or None,
            inbox_prefix=nc.inbox,
            pending_size=0,
            reconnect_time_wait=0.1,  # type: ignore[arg-type]
            connect_timeout=2,
            ping_interval=1,
            max_outstanding_pings=2,
            error_cb=_quiet,
            skip_subject_validation=True,
            **attempts,
        )
    try:
        yield nc
    finally:
        await nc.close()


async def _api(nc: LeanClient, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    payload = b"" if body is None else msgspec.json.encode(body)
    answer = await nc.request(f"$JS.API.{verb}.{STREAM}", payload, timeout=CONNECT_SECONDS)
    return msgspec.json.decode(answer.data, type=dict[str, Any])


async def provision(url: str, seed: str) -> bool:
    """Whether the stream was made; one that is there and differs is an error. Raises StreamRefused."""
    try:
        async with connection("operations", url, seed, patient=False) as nc:
            wanted = stream_config()
            found = await _api(nc, "STREAM.INFO")
            missing = found.get("error", {}).get("err_code") == _NO_STREAM
            if missing:
                found = await _api(nc, "STREAM.CREATE", wanted)
    except (NatsError, OSError, TimeoutError) as error:
        raise StreamRefused(f"the broker cannot be reached: {type(error).__name__}") from None
    if "error" in found:
        raise StreamRefused(f"the broker refused the stream {STREAM}: {found['error'].get('description', '')}")
    for setting, value in wanted.items():
        if found["config"].get(setting, type(value)()) != value:
            raise StreamRefused(f"stream {STREAM}: {setting} is not as designed")
    return missing
