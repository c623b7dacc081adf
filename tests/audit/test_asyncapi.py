"""The AsyncAPI document: equal to what the code makes, valid, and true of what really goes over the streams."""

from __future__ import annotations

import json
from pathlib import Path

import nats as plain
import pytest
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema
from nats.js.api import ConsumerConfig, DeliverPolicy

from audit_world import World, make_call, make_outcome, recorder_on, world
from engines import Nats, Postgres
from wardmesh_audit.contract import CHECKPOINTS, EVENTS, HEADERS, PARAMETERS, TRANSPORT_HEADERS, as_file, document
from wardmesh_audit.contract_page import NoMarkers, html, refresh
from wardmesh_audit.event_schemas import all_schemas
from wardmesh_audit.streams import StreamSettings, stream_configs

DOCS = Path(__file__).parents[2] / "docs"
OPTIONAL = {"traceparent", "Nats-Expected-Last-Sequence"}  # without a request; inside an atomic batch


@pytest.mark.requirement("AU-603")
def test_the_committed_document_and_page_are_those_the_code_makes() -> None:
    assert (DOCS / "asyncapi.json").read_text() == as_file(document()), (
        "run: python -m wardmesh_audit.contract docs docs"
    )
    assert (DOCS / "asyncapi.html").read_text() == html()
    page = (DOCS / "audit-stream.md").read_text()
    assert refresh(page) == page
    with pytest.raises(NoMarkers):
        refresh("# a page without a place")


@pytest.mark.requirement("AU-603")
def test_an_independent_model_of_asyncapi_3_accepts_the_document_and_every_reference_leads_somewhere() -> None:
    made = document()
    ApplicationSchema.model_validate(made)
    text = json.dumps(made)
    for reference in {part.split('"')[0] for part in text.split('"$ref": "')[1:]}:
        place = made
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
    assert set(made["components"]["schemas"]) == {name.removesuffix(".json") for name in all_schemas()}


@pytest.mark.requirement("AU-603")
def test_every_subject_of_a_stream_is_a_channel() -> None:
    described = {channel["address"].replace("{log}", "0") for channel in document()["channels"].values()}
    for config in stream_configs(StreamSettings()).values():
        prefix = config["subjects"][0].rstrip("*>")
        assert any(address.startswith(prefix.replace(".0.", ".0.")) for address in described), prefix


@pytest.mark.anyio
@pytest.mark.requirement("AU-603")
async def test_subjects_and_headers_on_the_streams_are_exactly_the_described_ones(
    broker: Nats, server: Postgres
) -> None:
    async with world(broker, server) as w:
        async with w.writing(), w.publishing():
            async with recorder_on(w) as recorder:
                for number in range(5):
                    await recorder.outcome(make_call(number), make_outcome("p1", "p2"))
                await w.send(b"this is no event")
            await w.wait_signed(13)
        for stream, address in (("AUDIT", EVENTS), ("AUDIT_CHECKPOINT", CHECKPOINTS)):
            await assert_as_described(w, stream, address)


async def assert_as_described(w: World, stream: str, address: str) -> None:
    described = HEADERS[address]
    seen: set[str] = set()
    tokens = address.split(".")
    for subject, headers in await everything(w, stream):
        assert set(headers) - set(TRANSPORT_HEADERS) <= set(described), subject
        assert set(described) - OPTIONAL <= set(headers), subject
        seen |= set(headers)
        parts = subject.split(".")
        assert len(parts) == len(tokens)
        for token, part in zip(tokens, parts, strict=True):
            if not token.startswith("{"):
                assert token == part
            elif "enum" in PARAMETERS[token[1:-1]]:
                assert part in PARAMETERS[token[1:-1]]["enum"], subject
    assert set(described) <= seen, "and none is described that never comes"


async def everything(w: World, stream: str) -> list[tuple[str, dict[str, str]]]:
    nc = await plain.connect(w.nats.url)
    try:
        js = nc.jetstream()
        config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
        subscription = await js.pull_subscribe_bind(
            consumer=(await js.add_consumer(stream, config)).name, stream=stream
        )
        count = (await js.stream_info(stream)).state.messages
        messages = await subscription.fetch(count, timeout=10)
        return [(message.subject, dict(message.headers or {})) for message in messages]
    finally:
        await nc.close()


def test_the_page_for_people_loads_nothing_and_names_every_subject_header_and_field() -> None:
    page = html()
    for word in (EVENTS, CHECKPOINTS, "Audit-Leaf-Hash", "data.actor.on_behalf_of.id", "data.patient.pseudonym"):
        assert word in page
    assert "<script" not in page and "http://" not in page and "https://" not in page
