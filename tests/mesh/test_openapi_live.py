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

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(400)]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
FEW = hypothesis.settings(
    max_examples=4, deadline=None, derandomize=True, database=None, suppress_health_check=list(hypothesis.HealthCheck)
)


@pytest.mark.requirement("FG-29")
def test_generated_requests_get_what_the_document_promises(mesh: Mesh) -> None:
    base = mesh.ready["gateway"]
    # One of the operations signs a person out everywhere: other tests use a new token of this person.
    headers = {"authorization": f"Bearer {mesh.token('demo_owner')}"}
    document = schemathesis.openapi.from_url(f"{base}/openapi.json")
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) > 20

    def judged(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=base, headers=headers, checks=CHECKS)

    for operation in operations:
        FEW(hypothesis.given(case=operation.as_strategy())(judged))()
