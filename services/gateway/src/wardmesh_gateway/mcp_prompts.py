"""MCP prompts of FG-25, under both name sets; their steps name only tools and parameters that exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, GetPromptRequestParams, PaginatedRequestParams
from msgspec import Struct

from wardmesh_gateway.mcp_schemas import ToolShelf

Context = ServerRequestContext[Any, Any]
_LONGEST = 256


class Step(Struct, frozen=True):
    """One step: shown only when the tool exists and knows every parameter."""

    tool: str
    parameters: tuple[str, ...]
    text: str


class PromptText(Struct, frozen=True, kw_only=True):
    names: tuple[str, ...]
    title: str
    description: str
    arguments: dict[str, str]  # name -> description; all required
    goal: str  # may hold {argument}
    steps: tuple[Step, ...]
    ending: str


_FIND_PLATFORM = Step("list_platforms", (), "find the platform that the person is a member of")
_SEARCH = ("platform_id", "resource_type", "params")

PROMPTS: tuple[PromptText, ...] = (
    PromptText(
        names=("check_prior_auth", "prior_auth_workflow"),
        title="Check prior authorization",
        description="Find out whether a procedure needs prior authorization for a patient",
        arguments={"patient_id": "FHIR id of the patient", "procedure_code": "CPT or HCPCS code of the procedure"},
        goal="Find out whether procedure {procedure_code} needs prior authorization for patient {patient_id}.",
        steps=(
            _FIND_PLATFORM,
            Step("search", _SEARCH, "look for the patient's active Coverage and note its id"),
            Step(
                "check_prior_auth",
                ("platform_id", "patient_id", "coverage_id", "procedure_code"),
                "ask the payer whether the procedure needs prior authorization",
            ),
            Step(
                "get_questionnaire_package",
                ("platform_id", "coverage_id"),
                "when documentation is demanded, fetch the questionnaires to fill in",
            ),
            Step("get_policy_rules", ("platform_id", "procedure_code"), "read the payer's rules for the procedure"),
        ),
        ending="Say clearly what is required, what is missing, and which answer came from which platform.",
    ),
    PromptText(
        names=("patient_summary", "patient_summary_workflow"),
        title="Patient summary",
        description="Summarise a patient's record",
        arguments={"patient_id": "FHIR id of the patient"},
        goal="Summarise the record of patient {patient_id}.",
        steps=(
            _FIND_PLATFORM,
            Step("read", ("platform_id", "resource_type", "resource_id"), "read the Patient resource"),
            Step(
                "search", _SEARCH, "search Condition, MedicationRequest, AllergyIntolerance and Observation by patient"
            ),
            Step("get_next_page", ("platform_id", "url"), "follow the next link while an answer has one that matters"),
        ),
        ending="Group the summary by problem list, medications, allergies and recent results. Say what was withheld.",
    ),
    PromptText(
        names=("discover_capabilities",),
        title="Discover capabilities",
        description="Find out what a platform can do",
        arguments={"platform_id": "id of the platform"},
        goal="Find out what platform {platform_id} can do.",
        steps=(
            Step("get_capabilities", ("platform_id",), "read which resource types and interactions it offers"),
            Step(
                "get_capabilities",
                ("platform_id", "resource_type"),
                "look closer at the resource types that matter, with their search parameters",
            ),
        ),
        ending="List resource types, search parameters and operations, and say what needs a sign-in.",
    ),
    PromptText(
        names=("auth_and_query_workflow",),
        title="Sign in and query",
        description="Sign in to a platform and query it",
        arguments={"platform_id": "id of the platform"},
        goal="Sign in to platform {platform_id} and query it.",
        steps=(
            Step("get_auth_status", ("platform_id",), "see whether a sign-in exists already"),
            Step("start_auth", ("platform_id",), "otherwise start one and show its URL to the person"),
            Step("wait_for_auth", ("platform_id", "timeout"), "wait until it is done, at most 50 seconds at a time"),
            Step("get_capabilities", ("platform_id",), "see what the platform offers"),
            Step("search", _SEARCH, "search what the person wants to know"),
        ),
        ending="Summarise the results. When a sign-in is demanded and cannot be started here, say so.",
    ),
)


class PromptHandlers:
    """prompts/list and prompts/get."""

    def __init__(self, shelf: Callable[[], ToolShelf], prompts: tuple[PromptText, ...] = PROMPTS) -> None:
        self._shelf = shelf
        self._by_name = {name: prompt for prompt in prompts for name in prompt.names}

    async def list(self, ctx: Context, params: PaginatedRequestParams) -> dict[str, Any]:
        return {"prompts": [_shown(name, self._by_name[name]) for name in sorted(self._by_name)]}

    async def get(self, ctx: Context, params: GetPromptRequestParams) -> dict[str, Any]:
        prompt = self._by_name.get(params.name)
        if prompt is None:
            raise MCPError(INVALID_PARAMS, "Unknown prompt")
        given = params.arguments or {}
        values = {name: given.get(name, "") for name in prompt.arguments}
        missing = [name for name, value in values.items() if not value.strip()]
        if missing or any(len(value) > _LONGEST for value in values.values()):
            raise MCPError(INVALID_PARAMS, f"Required prompt arguments: {', '.join(prompt.arguments)}")
        content = {"type": "text", "text": self.text(prompt, values)}
        return {"description": prompt.description, "messages": [{"role": "user", "content": content}]}

    def text(self, prompt: PromptText, values: dict[str, str]) -> str:
        """Values are put in by replacement: a brace in a value means nothing."""
        goal = prompt.goal
        for name, value in values.items():
            goal = goal.replace(f"{{{name}}}", value)
        steps = [step for step in prompt.steps if self._possible(step)]
        lines = [f"{number}. {_line(step)}" for number, step in enumerate(steps, start=1)]
        return "\n".join([goal, "", *lines, "", prompt.ending])

    def _possible(self, step: Step) -> bool:
        schema = self._shelf().schema(step.tool)
        return schema is not None and set(step.parameters) <= set(schema.get("properties", {}))


def _line(step: Step) -> str:
    parameters = ", ".join(step.parameters)
    return f"Call `{step.tool}({parameters})`: {step.text}."


def _shown(name: str, prompt: PromptText) -> dict[str, Any]:
    arguments = [{"name": n, "description": text, "required": True} for n, text in prompt.arguments.items()]
    return {"name": name, "title": prompt.title, "description": prompt.description, "arguments": arguments}
