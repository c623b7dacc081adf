"""The running mesh keeps the promises of its own OpenAPI document, for generated requests (FG-29)."""

from __future__ import annotations

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from mesh.conftest import Mesh

pytestmark = pytest.mark.mesh
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="session")
def live(mesh: Mesh) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{mesh.ready['gateway']}/openapi.json")


schema = schemathesis.pytest.from_fixture("live")


@schema.parametrize()
@hypothesis.settings(
    max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)
@pytest.mark.requirement("FG-29")
def test_generated_requests_get_what_the_document_promises(case: schemathesis.Case, mesh: Mesh) -> None:
    headers = {"authorization": f"Bearer {mesh.token('demo_doctor')}"}
    case.call_and_validate(base_url=mesh.ready["gateway"], headers=headers, checks=CHECKS)
