"""A datastore client of the tests: the official MCP client with a person's token; stores, files and jobs for it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client import Client
from mcp.client.extension import ClientExtension
from mcp.client.streamable_http import streamable_http_client

DEMO = "1234567890abcdef1234567890abcdef"
PERSON = "04c704c4-5d2d-4308-9c33-1690a6e47a6b"
JOB_SECONDS = 60.0
ROLE = "arn:aws:iam::000000000000:role/healthlake"


@dataclass
class Failed(Exception):
    """A tool answered with an error."""

    text: str
    structured: dict[str, Any]

    def __str__(self) -> str:
        return self.text


class Lake:
    """Calls tools by name, as a model would."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.called: set[str] = set()

    async def names(self) -> set[str]:
        return {tool.name for tool in (await self.client.list_tools()).tools}

    async def __call__(self, name: str, /, **arguments: Any) -> Any:
        self.called.add(name)
        result = await self.client.call_tool(name, arguments)
        text = result.content[0].text  # type: ignore[union-attr]
        if result.is_error:
            raise Failed(text, dict(result.structured_content or {}))
        answer = json.loads(text)
        assert answer == result.structured_content
        return answer

    async def finished(self, tool: str, datastore: str, job: str) -> dict[str, Any]:
        """The properties of a job that has ended."""
        kind = "ImportJobProperties" if "import" in tool else "ExportJobProperties"

        async def ended() -> dict[str, Any] | None:
            properties = (await self(tool, datastore_id=datastore, job_id=job))[kind]
            return properties if properties["JobStatus"] not in ("SUBMITTED", "IN_PROGRESS") else None

        return await until(ended)


async def until(look: Callable[[], Awaitable[Any]], seconds: float = JOB_SECONDS) -> Any:
    """What `look` finds, as soon as it finds something."""
    limit = time.monotonic() + seconds
    while not (found := await look()):
        assert time.monotonic() < limit, "it did not come about in time"
        await asyncio.sleep(0.1)
    return found


async def every_time(look: Callable[[], Awaitable[bool]], times: int = 24) -> bool:
    """That `look` finds it so often in a row that every replica of every service behind it must have been asked."""
    for _ in range(times):
        if not await look():
            return False
    return True


@asynccontextmanager
async def lake(
    mesh: Any,
    person: str = "demo_admin",
    *,
    profile: str = "healthlake",
    headers: Mapping[str, str] | None = None,
    mode: str = "auto",
    extensions: Sequence[ClientExtension] = (),
) -> AsyncGenerator[Lake]:
    """`headers` go along with every request; `mode` is the era that the client begins with."""
    sent = {"Authorization": f"Bearer {mesh.token(person)}", **(headers or {})}
    async with httpx2.AsyncClient(headers=sent, timeout=60) as http:
        transport = streamable_http_client(f"{mesh.ready['mcp']}/{profile}", http_client=http)
        async with Client(transport, mode=mode, extensions=extensions) as client:
            yield Lake(client)


def output(uri: str) -> dict[str, Any]:
    return {"S3Configuration": {"S3Uri": uri, "KmsKeyId": "alias/none"}}


async def new_store(call: Lake, **more: Any) -> str:
    """The id of a datastore that is ready."""
    made = (await call("create_datastore", datastore_type_version="R4", **more))["DatastoreId"]

    async def active() -> bool:
        properties = (await call("describe_datastore", datastore_id=made))["DatastoreProperties"]
        return properties["DatastoreStatus"] == "ACTIVE"

    await until(active)
    return made


async def imported(call: Lake, store: str, uri: str) -> dict[str, Any]:
    started = await call(
        "start_fhir_import_job",
        input_data_config={"S3Uri": uri},
        job_output_data_config=output(f"{uri.rstrip('/')}-result/"),
        datastore_id=store,
        data_access_role_arn=ROLE,
    )
    return await call.finished("describe_fhir_import_job", store, started["JobId"])


async def exported(call: Lake, mesh: Any, store: str, bucket: str) -> list[dict[str, Any]]:
    """Every resource that an export wrote, sorted."""
    started = await call(
        "start_fhir_export_job",
        output_data_config=output(f"s3://{bucket}/"),
        datastore_id=store,
        data_access_role_arn=ROLE,
    )
    ended = await call.finished("describe_fhir_export_job", store, started["JobId"])
    assert ended["JobStatus"] == "COMPLETED"
    files = (Path(mesh.ready["s3_folder"]) / bucket).rglob("*.ndjson")
    found = [json.loads(line) for path in files for line in path.read_text().splitlines() if line]
    return sorted(found, key=lambda one: (one["resourceType"], one["id"]))


def put_ndjson(mesh: Any, bucket: str, resources: list[dict[str, Any]]) -> str:
    folder = Path(mesh.ready["s3_folder"]) / bucket / "in"
    folder.mkdir(parents=True)
    for kind in {one["resourceType"] for one in resources}:
        lines = [json.dumps(one) for one in resources if one["resourceType"] == kind]
        (folder / f"{kind}.ndjson").write_text("\n".join(lines) + "\n")
    return f"s3://{bucket}/in/"


def people(*names: str) -> list[dict[str, Any]]:
    return [{"resourceType": "Patient", "id": name.lower(), "name": [{"family": name}]} for name in names]


async def refused(call: Lake, name: str, **arguments: Any) -> str:
    with pytest.raises(Failed) as failed:
        await call(name, **arguments)
    return failed.value.text


def content_of(resource: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in resource.items() if name != "meta"}
