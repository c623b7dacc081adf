"""What the tests of the datastore tools share: names, the tools themselves, one call over REST."""

from __future__ import annotations

import json
from typing import Any

from gateway.rest_stage import WRITER, Stage
from wardmesh_gateway.tools import TOOLS
from wardmesh_gateway.tools_healthlake_more import MORE_TOOLS

STORE = "0123456789abcdef" * 2
PLATFORM = f"healthlake-ds-{STORE}"
ARN = f"arn:aws:healthlake:us-west-2:000000000000:datastore/fhir/{STORE}"
ROLE = "arn:aws:iam::000000000000:role/r"
PERSON = {"resourceType": "Patient", "name": [{"family": "Doe"}]}
OUTPUT = {"S3Configuration": {"S3Uri": "s3://b/out", "KmsKeyId": "k"}}
MORE = {tool.name for tool in MORE_TOOLS}
TOOLS_OF_HL = {tool.name: tool for tool in TOOLS if tool.profiles == ("healthlake",) and tool.name not in MORE}


async def tool(stage: Stage, name: str, /, **arguments: Any) -> Any:
    headers = {**WRITER, "content-type": "application/json"}
    return await stage.send("POST", f"/v1/tools/{name}", headers=headers, content=json.dumps(arguments).encode())
