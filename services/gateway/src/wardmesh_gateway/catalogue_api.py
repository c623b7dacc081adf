"""The public, unrecorded documents: health, platform lists, OpenAPI and its page (FG-1 to FG-3, FG-29). FastAPI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from wardmesh_common.errors import NotFound, WardmeshError
from wardmesh_common.questions import DirectoryQuestion, PlatformFacts
from wardmesh_gateway.catalogue import Platforms
from wardmesh_gateway.document_pages import add_documents
from wardmesh_gateway.openapi import document
from wardmesh_gateway.tool_door import listed

VERSION = "0.1.0"

# Names that a contract fixes and that differ from the display name (FG-3).
FORMAL_NAMES = {"smarthealthit-sandbox-patient": "SMART Health IT Sandbox (Patient)"}


class HealthBody(BaseModel):
    status: str
    service: str
    version: str
    platforms_registered: int


class ReadyBody(BaseModel):
    status: str
    service: str


class PlatformRow(BaseModel):
    id: str
    name: str
    type: str
    fhir_base_url: str | None
    developer_portal: str | None
    has_oauth: bool
    oauth_registered: bool
    verification_status: str


class PlatformRows(BaseModel):
    platforms: list[PlatformRow]
    total: int


class Capabilities(BaseModel):
    patient_access: bool
    provider_directory: bool
    patient_everything: bool
    bulk_data: bool


class PlatformDetail(BaseModel):
    id: str
    name: str
    display_name: str
    type: str
    fhir_base_url: str | None
    sandbox_url: str | None
    developer_portal: str | None
    support_email: str | None
    fhir_version: str | None
    capabilities: Capabilities
    has_oauth: bool
    oauth_registered: bool
    oauth_authorize_url: str | None
    verification_status: str
    verified_on: str = ""  # only there when this deployment has probed the platform itself


def row_of(facts: PlatformFacts, *, registered: bool) -> PlatformRow:
    return PlatformRow(
        id=facts.id,
        name=FORMAL_NAMES.get(facts.id, facts.name),
        type=facts.type,
        fhir_base_url=facts.fhir_base_url or None,
        developer_portal=facts.developer_portal or None,
        has_oauth=facts.has_oauth,
        oauth_registered=registered,
        verification_status=facts.verification_status,
    )


def detail_of(facts: PlatformFacts, *, registered: bool) -> PlatformDetail:
    offered = set(facts.capabilities)
    return PlatformDetail(
        id=facts.id,
        name=FORMAL_NAMES.get(facts.id, facts.name),
        display_name=facts.name,
        type=facts.type,
        fhir_base_url=facts.fhir_base_url or None,
        sandbox_url=facts.sandbox_url or None,
        developer_portal=facts.developer_portal or None,
        support_email=facts.support_email or None,
        fhir_version=facts.fhir_version or None,
        capabilities=Capabilities(**{name: name in offered for name in Capabilities.model_fields}),
        has_oauth=facts.has_oauth,
        oauth_registered=registered,
        oauth_authorize_url=facts.authorize_url or None,
        verification_status=facts.verification_status,
        **({"verified_on": facts.verified_on} if facts.verified_on else {}),
    )


def create_catalogue_api(platforms: Platforms, *, registered: Callable[[str], bool], public_url: str) -> FastAPI:
    """`registered` says whether this deployment has a client id for a platform."""
    api = FastAPI(
        title="Wardmesh gateway",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )

    _add_health(api, platforms)
    _add_platforms(api, platforms, registered)
    _add_directory(api, platforms)
    _add_documents(api, public_url)
    _add_problems(api)
    return api


def _add_health(api: FastAPI, platforms: Platforms) -> None:
    @api.get("/health", summary="Is the gateway up?", operation_id="health")
    async def health() -> HealthBody:
        return HealthBody(
            status="healthy", service="fhir-gateway", version=VERSION, platforms_registered=platforms.count
        )

    unready: dict[int | str, dict[str, Any]] = {
        503: {"model": ReadyBody, "description": "Not yet: the platforms are not known."}
    }

    @api.get("/ready", summary="Does it take calls?", operation_id="ready", responses=unready)
    async def ready(response: Response) -> ReadyBody:
        """Without the catalogue no call can be answered."""
        response.status_code = 200 if platforms.known else 503
        return ReadyBody(status="ready" if platforms.known else "not ready", service="fhir-gateway")


def _add_platforms(api: FastAPI, platforms: Platforms, registered: Callable[[str], bool]) -> None:
    @api.get("/api/platforms", summary="All platforms, sorted by name", operation_id="listPlatforms")
    async def list_platforms(
        registered_only: Annotated[bool, Query(description="Only those with a client id.")] = False,
    ) -> PlatformRows:
        rows = [
            row_of(facts, registered=registered(facts.id))
            for facts in platforms.snapshot.platforms
            if not registered_only or registered(facts.id)
        ]
        rows.sort(key=lambda row: row.name)
        return PlatformRows(platforms=rows, total=len(rows))

    @api.get(
        "/api/platforms/{platform_id}",
        summary="One platform",
        operation_id="getPlatform",
        response_model_exclude_unset=True,
    )
    async def get_platform(platform_id: str) -> PlatformDetail:
        facts = await platforms.details(platform_id)
        if facts is None:
            raise NotFound(f"Platform '{platform_id[:64]}' not found")
        return detail_of(facts, registered=registered(facts.id))


class CandidateRow(BaseModel):
    platform_id: str
    name: str
    vendor: str = ""
    city: str = ""
    state: str = ""
    fhir_base_url: str = ""
    verification_status: str
    verified_on: str = ""
    source: str = ""
    listed_on: str = ""


class CandidateRows(BaseModel):
    candidates: list[CandidateRow]
    total: int


def _add_directory(api: FastAPI, platforms: Platforms) -> None:
    @api.get(
        "/api/organisations",
        summary="Platforms and organisations by name, alias, payer id, city or state; best first",
        operation_id="findPlatforms",
        response_model_exclude_unset=True,
    )
    async def find(
        q: Annotated[str, Query(min_length=1, max_length=200, description="Words of a name or place.")],
        state: Annotated[str, Query(pattern="^([A-Za-z]{2})?$", description="Two letters.")] = "",
        vendor: Annotated[str, Query(pattern="^([a-z][a-z0-9-]+)?$", description="Lists of this vendor only.")] = "",
        limit: Annotated[int, Query(ge=1, le=50)] = 10,
    ) -> CandidateRows:
        answer = await platforms.search(DirectoryQuestion(text=q, state=state, vendor=vendor, limit=limit))
        return CandidateRows.model_validate(listed(answer))


def _add_documents(api: FastAPI, public_url: str) -> None:
    described: list[dict[str, Any]] = []

    @api.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        if not described:
            described.append(document(api.openapi(), public_url))
        return JSONResponse(described[0])

    add_documents(api)


def _add_problems(api: FastAPI) -> None:
    @api.exception_handler(WardmeshError)
    async def refused(_request: Request, error: WardmeshError) -> Response:
        problem = error.problem
        headers = {"retry-after": str(problem.retry_after)} if problem.retry_after else None
        return JSONResponse({"detail": problem.detail}, problem.status, headers=headers)

    @api.exception_handler(RequestValidationError)
    async def unreadable(_request: Request, error: RequestValidationError) -> Response:
        """Names the parameters, never what was sent in them (AR-8)."""
        names = sorted({str(part["loc"][-1]) for part in error.errors()})
        return JSONResponse({"detail": f"Invalid value for: {', '.join(names)}"}, 422)
