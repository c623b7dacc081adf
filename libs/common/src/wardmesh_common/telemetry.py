"""Logs, spans and metrics that cannot carry personal data: only listed attribute keys pass (AR-8, DP-504)."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource as OtelResource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from wardmesh_common.contracts import Call

# The whole vocabulary of span and metric attributes: templates, codes and names of ours, nothing from a caller.
ALLOWED_ATTRIBUTES = frozenset(
    {
        "wardmesh.station",
        "wardmesh.tool",
        "wardmesh.face",
        "wardmesh.interaction",
        "wardmesh.platform",
        "wardmesh.outcome",
        "wardmesh.decision",
        "http.route",
        "http.request.method",
        "http.response.status_code",
        "messaging.system",
        "messaging.destination.template",
        "error.type",
        "wardmesh.log",
    }
)

_propagator = TraceContextTextMapPropagator()


class Telemetry:
    """Spans of one service. Without a collector (`endpoint` empty) a span costs one `if`."""

    def __init__(
        self,
        service: str,
        endpoint: str = "",
        processor: SpanProcessor | None = None,
        reader: MetricReader | None = None,
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self._tracer: trace.Tracer | None = None
        self._provider: TracerProvider | None = None
        if endpoint or processor is not None:
            self._provider = TracerProvider(resource=OtelResource.create({"service.name": f"wardmesh-{service}"}))
            exporter = processor or BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces"))
            self._provider.add_span_processor(exporter)
            self._tracer = self._provider.get_tracer("wardmesh")
        self._meters: MeterProvider | None = None
        if endpoint or reader is not None:
            sink = reader or PeriodicExportingMetricReader(OTLPMetricExporter(f"{endpoint.rstrip('/')}/v1/metrics"))
            self._meters = MeterProvider([sink], OtelResource.create({"service.name": f"wardmesh-{service}"}))

    def gauge(self, name: str, read: Callable[[], float], log_id: int) -> None:
        """A number of one log that is read whenever metrics are collected; without a collector never."""
        if self._meters is None:
            return
        attributes = self.attributes({"wardmesh.log": log_id})
        self._meters.get_meter("wardmesh").create_observable_gauge(
            name, [lambda _options: [Observation(read(), attributes)]]
        )

    def attributes(self, given: Mapping[str, str | int]) -> dict[str, str | int]:
        """Only what is on the list; the rest is counted by key and never exported."""
        allowed: dict[str, str | int] = {}
        for key, value in given.items():
            if key in ALLOWED_ATTRIBUTES:
                allowed[key] = value
            else:
                self.dropped[key] += 1
        return allowed

    @contextlib.contextmanager
    def station_span(self, station: str, call: Call) -> Generator[None, None, None]:
        """A span of this station inside the call's trace; rewrites `call.traceparent` for the next station."""
        if self._tracer is None:
            yield
            return
        parent = _propagator.extract({"traceparent": call.traceparent})
        attributes = self.attributes(
            {
                "wardmesh.station": station,
                "wardmesh.tool": call.tool,
                "wardmesh.face": str(call.face),
                "wardmesh.interaction": str(call.interaction),
                "wardmesh.platform": call.platform,
                "messaging.system": "nats",
            }
        )
        with self._tracer.start_as_current_span(f"process {station}", context=parent, attributes=attributes):
            carrier: dict[str, str] = {}
            _propagator.inject(carrier)
            call.traceparent = carrier.get("traceparent", call.traceparent)
            yield

    def close(self) -> None:
        if self._provider is not None:
            self._provider.shutdown()
        if self._meters is not None:
            self._meters.shutdown()


class JsonFormatter(logging.Formatter):
    """One JSON object per line. Exceptions are named by type and place, never by their text (it may quote data)."""

    def __init__(self, service: str, instance: str) -> None:
        super().__init__()
        self._fixed = {"service": service, "instance": instance}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._fixed,
        }
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            line["trace_id"] = f"{context.trace_id:032x}"
            line["span_id"] = f"{context.span_id:016x}"
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["at"] = _places(record)
        return json.dumps(line, ensure_ascii=False)


def _places(record: logging.LogRecord) -> list[str]:
    """Where an exception came from: module and line, innermost last; no source text, no values."""
    places: list[str] = []
    traceback = record.exc_info[2] if record.exc_info else None
    while traceback is not None:
        code = traceback.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return places[-6:]


def configure_logging(service: str, instance: str, level: str = "INFO", *, as_json: bool = True) -> None:
    """Logs to stdout: JSON, or plain text for people at a terminal. Replaces existing handlers."""
    handler = logging.StreamHandler(sys.stdout)
    if as_json:
        handler.setFormatter(JsonFormatter(service, instance))
    else:
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)-7s {service} %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper().replace("WARN", "WARNING").replace("WARNINGING", "WARNING"))
    for noisy in ("nats", "mcp", "uvicorn.access", "httpx", "httpx2", "faststream"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
