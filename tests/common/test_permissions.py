"""The permissions file on a real server: every pair of service and subject that the table does not list is refused."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import nkeys
import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError

from engines import Nats, nats
from wardmesh_common.contracts import SERVICES, STATIONS, STORE, SUBJECTS, USERS

pytestmark = pytest.mark.anyio

CONF = Path(__file__).resolve().parents[2] / "deploy" / "nats" / "nats.conf"


def new_key() -> tuple[str, str]:
    """Seed and public key of a fresh user."""
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    pair = nkeys.from_seed(seed)
    return seed.decode(), pair.public_key.decode()


class Guarded:
    def __init__(self, server: Nats, seeds: dict[str, str]) -> None:
        self.server = server
        self.seeds = seeds

    @asynccontextmanager
    async def client(self, user: str, inbox: str = "") -> AsyncIterator[tuple[Client, list[str]]]:
        """A connection as `user`, and the refusals that it hears."""
        refusals: list[str] = []

        async def on_error(error: Exception) -> None:
            refusals.append(str(error).lower())

        nc = Client()
        await nc.connect(
            self.server.url,
            nkeys_seed_str=self.seeds[user],
            error_cb=on_error,
            inbox_prefix=inbox or f"_INBOX_{user}.{user}-0",
            allow_reconnect=False,
            skip_subject_validation=True,
        )
        try:
            yield nc, refusals
        finally:
            await nc.close()


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    keys = {user: new_key() for user in USERS}
    environment = {f"WARDMESH_NKEY_{user.upper().replace('-', '_')}": public for user, (_, public) in keys.items()}
    environment |= {"WARDMESH_NATS_HOST": "127.0.0.1", "WARDMESH_NATS_MONITOR": "127.0.0.1:-1"}
    with nats(CONF.read_text(), environment) as server:
        yield Guarded(server, {user: seed for user, (seed, _) in keys.items()})


def concrete(subject: str) -> str:
    return subject.replace("*", "x").replace(">", "x.y")


async def settled(nc: Client) -> None:
    await asyncio.sleep(0)
    await nc.flush()
    await nc.flush()


@pytest.mark.requirement("AR-2", "NB-16")
@pytest.mark.parametrize("user", (*SERVICES, STORE))
async def test_a_service_may_publish_exactly_the_subjects_of_the_table(guarded: Guarded, user: str) -> None:
    async with guarded.client(user) as (nc, refusals):
        for rule in SUBJECTS:
            refusals.clear()
            await nc.publish(concrete(rule.subject), b"")
            await settled(nc)
            assert bool(refusals) != (user in rule.publishers), rule.subject


@pytest.mark.requirement("AR-2", "NB-16")
@pytest.mark.parametrize("user", (*SERVICES, STORE))
async def test_a_service_may_subscribe_exactly_the_subjects_of_the_table(guarded: Guarded, user: str) -> None:
    async with guarded.client(user) as (nc, refusals):
        for rule in SUBJECTS:
            refusals.clear()
            subscription = await nc.subscribe(rule.subject, queue=user if rule.queue else "")
            await settled(nc)
            assert bool(refusals) != (user in rule.subscribers), rule.subject
            if not refusals:
                await subscription.unsubscribe()


@pytest.mark.requirement("NB-16")
@pytest.mark.parametrize("rule", [rule for rule in SUBJECTS if rule.queue], ids=lambda rule: rule.subject)
async def test_even_the_owner_cannot_tap_its_subject_outside_its_queue_group(guarded: Guarded, rule: object) -> None:
    subject, owner = rule.subject, rule.subscribers[0]  # type: ignore[attr-defined]
    async with guarded.client(owner) as (nc, refusals):
        await nc.subscribe(subject)
        await nc.subscribe(subject, queue="spies")
        await settled(nc)
        assert len(refusals) == 2


EVERYTHING = (">", "call.>", "_INBOX_>", "_INBOX_gateway.>", "audit.>", "$JS.>", "ask.>")


@pytest.mark.requirement("AR-2", "NB-16")
@pytest.mark.parametrize(
    ("user", "subject"), [(user, s) for user in USERS for s in EVERYTHING if s != f"_INBOX_{user}.>"]
)
async def test_nobody_listens_to_everything_or_to_the_inbox_of_another(
    guarded: Guarded, user: str, subject: str
) -> None:
    async with guarded.client(user) as (nc, refusals):
        await nc.subscribe(subject)
        await settled(nc)
        assert refusals


@pytest.mark.requirement("NB-16")
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(
    "subject",
    [
        "$JS.API.STREAM.DELETE.AUDIT_IN",
        "$JS.API.STREAM.PURGE.AUDIT",
        "$JS.API.STREAM.MSG.DELETE.AUDIT_IN",
        "$JS.API.CONSUMER.DELETE.AUDIT_IN.audit-writer-0",
        "$SYS.REQ.SERVER.PING",
    ],
)
async def test_nobody_deletes_or_purges_streams(guarded: Guarded, user: str, subject: str) -> None:
    async with guarded.client(user) as (nc, refusals):
        await nc.publish(subject, b"{}")
        await settled(nc)
        assert refusals


@pytest.mark.requirement("NB-16")
async def test_operations_cannot_forge_a_record_or_a_call(guarded: Guarded) -> None:
    async with guarded.client("operations") as (nc, refusals):
        for subject in ("audit.in.0", "audit.v1.0.access.R.TREAT", "call.identify", "call.decide", "event.x.y.z"):
            refusals.clear()
            await nc.publish(subject, b"")
            await settled(nc)
            assert refusals, subject


@pytest.mark.requirement("AR-2")
async def test_a_reply_into_the_gateways_inbox_is_only_taken_from_a_station(guarded: Guarded) -> None:
    for user in USERS:
        async with guarded.client(user) as (nc, refusals):
            await nc.publish("_INBOX_gateway.gateway-1.w.c", b"")
            await settled(nc)
            assert bool(refusals) != (user in STATIONS), user


@pytest.mark.requirement("NB-16")
async def test_without_a_known_key_there_is_no_connection(guarded: Guarded) -> None:
    seed, _ = new_key()
    for credentials in ({"nkeys_seed_str": seed}, {}):
        nc = Client()

        async def ignore(_error: Exception) -> None: ...

        with pytest.raises((NatsError, OSError)):
            await nc.connect(
                guarded.server.url, allow_reconnect=False, connect_timeout=2, error_cb=ignore, **credentials
            )
        await nc.close()
