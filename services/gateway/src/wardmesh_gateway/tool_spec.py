"""What one tool is: plain data from which MCP, `POST /v1/tools/{name}` and OpenAPI follow."""

from __future__ import annotations

from msgspec import Struct, field

from wardmesh_common.vocabulary import Interaction
from wardmesh_gateway.schemas import RESULT, Schema


class ToolSpec(Struct, frozen=True, kw_only=True):
    """One tool. `interaction` is None for a tool that the gateway answers from its own catalogue."""

    name: str
    title: str
    summary: str
    interaction: Interaction | None
    input: Schema
    output: Schema = field(default_factory=lambda: RESULT)
    performer: str = "fhir"
    operation: str = ""  # the one operation that this tool runs; "" = none, or whichever its arguments name
    scope: str = ""  # of the access token; "" = fhir.read or fhir.write, by the interaction
    changes: bool = False  # an operation of ours that does more than look
    destructive: bool = False
    quick: bool = True  # False: may take seconds, MCP answers it on a stream
    family: str = ""  # of tools that keep another system's words (tool_family.py)
    profiles: tuple[str, ...] = ("gateway",)  # paths /mcp/<profile> that show it; /mcp shows every tool (C-2)
    shown_as: str = ""  # its name inside its one profile, where another tool has that name everywhere else
    typed_errors: bool = False  # a failure is told as {"error": true, "type", "message"} (HL-15)
