"""Decide whether a repeated conditional write had in fact succeeded the first time (PX-9)."""

from __future__ import annotations

from typing import Any

import msgspec

from wardmesh_fhir_proxy import json_exact
from wardmesh_fhir_proxy.upstream import UpstreamAnswer, UpstreamRequest


def settled(request: UpstreamRequest, stored: UpstreamAnswer, refused: UpstreamAnswer) -> UpstreamAnswer:
    """Success when the platform now holds what the write asked for; otherwise its refusal stands."""
    if request.method == "DELETE":
        gone = stored.status in {404, 410}
        return UpstreamAnswer(204, {}, b"") if gone else refused
    if request.method == "PUT" and stored.status == 200 and same_content(request.body, stored.body):
        return UpstreamAnswer(200, stored.headers, stored.body)
    return refused


def same_content(sent: bytes, stored: bytes) -> bool:
    """Equal apart from what a server sets: version, time and generated narrative."""
    try:
        return _comparable(sent) == _comparable(stored)
    except (msgspec.DecodeError, ValueError):
        return False


def _comparable(body: bytes) -> Any:
    document = json_exact.decode(body)
    if isinstance(document, dict):
        meta = document.get("meta")
        if isinstance(meta, dict):
            meta = {k: v for k, v in meta.items() if k not in {"versionId", "lastUpdated", "source"}}
            document["meta"] = meta
        if not document.get("meta"):
            document.pop("meta", None)
        if (document.get("text") or {}).get("status") == "generated":
            document.pop("text")
    return document
