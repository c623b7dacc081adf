"""The documents of the ledger are pages of the gateway, out of its own package, linked and without anything to load."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from gateway.rest_stage import Stage
from wardmesh_gateway.catalogue_api import create_catalogue_api
from wardmesh_gateway.console_page import page
from wardmesh_gateway.document_pages import DOCUMENTS, FILES, rendered

pytestmark = pytest.mark.anyio
DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("/docs", "/docs/", *(f"/docs/{name}" for name in DOCUMENTS))


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


async def get(path: str) -> httpx.Response:
    api = create_catalogue_api(Stage().platforms, registered=lambda _: False, public_url="http://gateway.test")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://gateway.test") as client:
        return await client.get(path)


@pytest.mark.parametrize("name", [*sorted({each.file for each in DOCUMENTS.values()}), "asyncapi.json"])
def test_the_package_holds_the_documents_of_the_repository(name: str) -> None:
    refresh = "run: python -m wardmesh_gateway.document_pages docs"
    assert (FILES / name).read_bytes() == (DOCS / name).read_bytes(), refresh
    assert FILES.parent.name == "wardmesh_gateway"


@pytest.mark.parametrize("path", PAGES)
async def test_every_document_is_a_page_and_its_links_lead_somewhere(path: str) -> None:
    answer = await get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    text = answer.text
    assert text.count("<h1") == 1 and "<script" not in text and " src=" not in text
    for target in re.findall(r'href="([^"]+)"', text):
        address = target if target.startswith("/") else f"/docs/{target}"
        if address.startswith(("/console/", "/openapi.json")):
            continue
        assert (await get(address)).status_code == 200, target


async def test_what_the_pages_say_and_how_they_are_found() -> None:
    index = (await get("/docs")).text
    for name in DOCUMENTS:
        assert f'href="/docs/{name}"' in index
    assert "/console/audit" in index
    assert "golang.org/x/mod/sumdb/tlog" in (await get("/docs/audit-stream")).text
    assert "/v1/patients/{id}/access-report" in (await get("/docs/audit-api")).text
    assert "no_relationship" in (await get("/docs/detection")).text
    assert "Audit-Leaf-Hash" in (await get("/docs/audit-events")).text
    assert (await get("/docs/asyncapi.json")).json()["asyncapi"] == "3.0.0"
    assert (await get("/docs/secrets")).status_code == 404
    assert (await get("/docs/..%2frouter.py")).status_code == 404
    assert b'href="/docs/audit-api"' in page("live", "Live")


def test_a_document_brings_no_html_of_its_own() -> None:
    assert "&lt;" in rendered("audit-stream"), "what looks like a tag in a code sample is text"
