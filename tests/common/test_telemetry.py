"""Spans and logs carry only what is on the list."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from wardmesh_common.contracts import Call
from wardmesh_common.telemetry import ALLOWED_ATTRIBUTES, JsonFormatter, Telemetry
from wardmesh_common.vocabulary import Face, Interaction, Resource


def a_call() -> Call:
    return Call(
        id="c",
        reply_to="",
        face=Face.FHIR,
        tool="read",
        interaction=Interaction.READ,
        platform="store",
        deadline=0.0,
        resource=Resource(type="Patient", id="secret-patient"),
        query="name=Secret",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )


@pytest.mark.requirement("AR-8", "DP-504")
def test_a_span_joins_the_callers_trace_and_holds_nothing_of_the_patient() -> None:
    exporter = InMemorySpanExporter()
    telemetry = Telemetry("policy", processor=SimpleSpanProcessor(exporter))
    call = a_call()
    with telemetry.station_span("policy", call):
        pass
    (span,) = exporter.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{span.context.span_id:016x}" in call.traceparent
    assert set(span.attributes or {}) <= ALLOWED_ATTRIBUTES
    assert "ecret" not in span.to_json()
    telemetry.close()


@pytest.mark.requirement("DP-504")
def test_an_unlisted_attribute_is_dropped_and_counted() -> None:
    telemetry = Telemetry("policy")
    assert telemetry.attributes({"wardmesh.tool": "read", "patient.name": "Secret"}) == {"wardmesh.tool": "read"}
    assert telemetry.dropped == {"patient.name": 1}


@pytest.mark.requirement("AR-8", "DP-507")
def test_a_logged_exception_is_one_json_line_without_its_text() -> None:
    try:
        raise ValueError("Jane Secret, born 1970")
    except ValueError:
        record = logging.LogRecord("wardmesh.x", logging.ERROR, __file__, 1, "failed", None, sys.exc_info())
    line = JsonFormatter("policy", "policy-1").format(record)
    assert "Secret" not in line
    assert "\n" not in line
    parsed = json.loads(line)
    assert (parsed["level"], parsed["error"], parsed["service"]) == ("ERROR", "ValueError", "policy")
