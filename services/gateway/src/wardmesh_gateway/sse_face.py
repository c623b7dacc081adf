"""Puts the parts of /sse together."""

from __future__ import annotations

from wardmesh_gateway.agent import Agents
from wardmesh_gateway.asgi import App
from wardmesh_gateway.edge import Edge
from wardmesh_gateway.edge_auth import BearerGate
from wardmesh_gateway.edge_origin import OriginGuard
from wardmesh_gateway.mcp_door import Credentials, McpSettings
from wardmesh_gateway.mcp_events import ReplicaEvents
from wardmesh_gateway.mcp_sessions import SessionIds
from wardmesh_gateway.mcp_wire import Wire
from wardmesh_gateway.same_site import SameSite
from wardmesh_gateway.sse_direct import DirectCalls
from wardmesh_gateway.sse_edge import SseEdge
from wardmesh_gateway.sse_ended import EndedSessions
from wardmesh_gateway.sse_older import OlderTransport
from wardmesh_gateway.sse_streams import SseStreams


def build_sse(
    *,
    edge: Edge,
    guard: OriginGuard,
    gate: BearerGate | None,
    callers: Credentials | None,
    settings: McpSettings,
    agents: Agents,
    sessions: SessionIds,
    ended: EndedSessions,
    wire: Wire,
    events: ReplicaEvents,
    direct: DirectCalls | None,
    stream_app: App,
) -> SseEdge | None:
    """None where nobody signs in: on the listener for conformance tests."""
    if gate is None or callers is None or direct is None:
        return None
    older = OlderTransport(edge, agents, sessions, direct, stream_app)
    streams = SseStreams(wire, events, older.answer)
    ended.listen(streams.end)
    return SseEdge(
        edge=edge,
        guard=guard,
        gate=gate,
        callers=callers,
        same_site=SameSite(settings.public_url, settings.allowed_origins),
        sessions=sessions,
        ended=ended,
        streams=streams,
        older=older,
        direct=direct,
    )
