"""The datastore tools through the one door: which platform, read-only mode, results and errors (HL-1 to HL-13)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from wardmesh_common.errors import BadRequest, WardmeshError
from wardmesh_common.organisations import datastore_id
from wardmesh_common.questions import PlatformFacts
from wardmesh_common.vocabulary import Face, Interaction, is_write
from wardmesh_gateway import healthlake_words as words
from wardmesh_gateway.answers import Answered
from wardmesh_gateway.caller import Visit
from wardmesh_gateway.calls import Delivers, Door, Wanted
from wardmesh_gateway.healthlake_calls import BUILD
from wardmesh_gateway.healthlake_control import control_call, target
from wardmesh_gateway.healthlake_pages import paged
from wardmesh_gateway.healthlake_templates import WORKED_OUT
from wardmesh_gateway.problem import of_reply
from wardmesh_gateway.tool_family import CHALLENGED, Worded
from wardmesh_gateway.tool_spec import ToolSpec
from wardmesh_gateway.tools_healthlake_more import EVERYTHING, JOBS

VENDOR = "healthlake"
# Kind of job -> its operation, the list in AWS's answer, and the name of that list beside the other one.
JOB_LISTS = {
    "IMPORT": ("$list-import-jobs", "ImportJobPropertiesList", "ImportJobs"),
    "EXPORT": ("$list-export-jobs", "ExportJobPropertiesList", "ExportJobs"),
}
DELETED = msgspec.json.encode({"status": "success", "statusCode": 204})

_datastore = re.compile(r"[0-9a-f]{32}").fullmatch
_region = re.compile(r"[a-z]{2}(?:-[a-z]+)+-[0-9]").fullmatch
_encoder = msgspec.json.Encoder(decimal_format="number")


class HealthLakeTools:
    """A Family of tools."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def call(
        self, tool: ToolSpec, arguments: Mapping[str, Any], visit: Visit, face: Face, traceparent: str
    ) -> Answered:
        if tool.name in WORKED_OUT:
            return Answered(body=_encoder.encode(WORKED_OUT[tool.name](arguments)))
        if tool.name == JOBS:
            return await self._jobs(tool, arguments, visit, face, traceparent)
        answered = await self._asked(tool, arguments, visit, face, traceparent)
        if tool.name == EVERYTHING:
            return msgspec.structs.replace(answered, body=paged(answered.body))
        return answered

    async def _jobs(
        self, tool: ToolSpec, arguments: Mapping[str, Any], visit: Visit, face: Face, traceparent: str
    ) -> Answered:
        """One question per kind of job: each is decided on and recorded."""

        async def of(kind: str) -> Answered:
            one = msgspec.structs.replace(tool, operation=JOB_LISTS[kind][0])
            return await self._asked(one, arguments, visit, face, traceparent)

        if "job_type" in arguments:
            return await of(arguments["job_type"])
        answers = {kind: await of(kind) for kind in JOB_LISTS}
        lists: dict[str, msgspec.Raw] = {}
        for kind, (_, member, shown) in JOB_LISTS.items():
            said = msgspec.json.decode(answers[kind].body, type=dict[str, msgspec.Raw])
            if member not in said:
                raise words.no_list(answers[kind].call_id)
            lists[shown] = said[member]
        return msgspec.structs.replace(answers["IMPORT"], body=msgspec.json.encode(lists))

    async def _asked(
        self, tool: ToolSpec, arguments: Mapping[str, Any], visit: Visit, face: Face, traceparent: str
    ) -> Answered:
        vendor = self._door.named(VENDOR, Face.MCP)
        if changes(tool) and not vendor.writes:
            raise words.read_only()
        control = tool.name not in BUILD
        wanted, facts = self._wanted(tool, arguments, vendor, control=control)
        try:
            delivery = await self._door.submit(wanted, facts, visit, face, traceparent=traceparent)
        except WardmeshError as error:
            if error.problem.code in CHALLENGED:
                raise
            wording = words.of_control if control else words.of_data
            raise wording(error.problem, b"", error.call_id) from None
        body = await self._success(delivery, control=control)
        shown = DELETED if wanted.interaction is Interaction.DELETE else body or b"{}"
        return Answered(body=shown, call_id=delivery.reply.call_id, platform=facts.id)

    def _wanted(
        self, tool: ToolSpec, arguments: Mapping[str, Any], vendor: PlatformFacts, *, control: bool
    ) -> tuple[Wanted, PlatformFacts]:
        region = _checked_region(arguments, vendor)
        if control:
            _check_target(arguments)
            return control_call(tool, arguments, region), self._door.answering(vendor, Face.MCP)
        if not _datastore(arguments["datastore_id"]):
            raise words.not_valid(words.BAD_ID)
        try:
            wanted = BUILD[tool.name](arguments)
        except BadRequest as error:
            # The texts of HL-4, HL-7 and those of the other tools stand alone.
            raise Worded(error.problem, error.problem.detail) from None
        facts = self._door.named(datastore_id(VENDOR, arguments["datastore_id"], region), Face.MCP)
        return wanted, facts

    async def _success(self, delivery: Delivers, *, control: bool) -> bytes:
        body = await delivery.body()
        problem = of_reply(delivery.reply, body)
        if problem is None:
            return body
        if problem.code in CHALLENGED:
            raise Worded(problem, problem.detail, delivery.reply.call_id)
        wording = words.of_control if control else words.of_data
        raise wording(problem, body, delivery.reply.call_id)


def changes(tool: ToolSpec) -> bool:
    """The 11 tools of HL-12."""
    return tool.interaction is not None and is_write(tool.interaction, tool.operation)


def _checked_region(arguments: Mapping[str, Any], vendor: PlatformFacts) -> str:
    """The named region, "" where that is the deployment's own."""
    region = arguments.get("region_name", "")
    if region and not _region(region):
        raise words.not_valid(words.BAD_REGION)
    return "" if region == vendor.datastore_region else region


def _check_target(arguments: Mapping[str, Any]) -> None:
    if "datastore_id" in arguments and not _datastore(arguments["datastore_id"]):
        raise words.not_valid(words.BAD_ID)
    if "resource_arn" in arguments and not _datastore(target(arguments)):
        raise words.not_valid(words.BAD_ARN)
