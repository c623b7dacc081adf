"""TOOLS: every tool, declared once as plain data; MCP, `POST /v1/tools/{name}` and OpenAPI follow from it."""

from __future__ import annotations

from wardmesh_gateway.tool_spec import ToolSpec
from wardmesh_gateway.tools_coverage import COVERAGE_TOOLS
from wardmesh_gateway.tools_directory import DIRECTORY_TOOLS
from wardmesh_gateway.tools_fhir import FHIR_TOOLS
from wardmesh_gateway.tools_healthlake import DATASTORE_TOOLS
from wardmesh_gateway.tools_healthlake_data import DATA_TOOLS
from wardmesh_gateway.tools_healthlake_more import MORE_TOOLS, STOP_TOOLS
from wardmesh_gateway.tools_healthlake_server import SERVER_TOOLS
from wardmesh_gateway.tools_sign_in import SIGN_IN_TOOLS
from wardmesh_gateway.tools_smedrec import SMEDREC_TOOLS

TOOLS: tuple[ToolSpec, ...] = (
    *FHIR_TOOLS,
    *COVERAGE_TOOLS,
    *SIGN_IN_TOOLS,
    *DIRECTORY_TOOLS,
    *DATASTORE_TOOLS,
    *DATA_TOOLS,
    *MORE_TOOLS,
    *STOP_TOOLS,
    *SERVER_TOOLS,
    *SMEDREC_TOOLS,
)

BY_NAME: dict[str, ToolSpec] = {tool.name: tool for tool in TOOLS}
