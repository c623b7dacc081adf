"""The documents are pages of the gateway, out of its own package, linked and without anything to load."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from gateway.rest_stage import Stage
from wardmesh_gateway.catalogue_api import create_catalogue_api
from wardmesh_gateway.console_page import page
from wardmesh_gateway.document_list import DOCUMENTS, FILES, GROUPS
from wardmesh_gateway.document_pages import rendered

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


# For those who work on the code.
NOT_SERVED = {"requirements.md", "asyncapi.json"}
REFRESH = "run: python -m wardmesh_gateway.document_pages docs"


def test_every_document_for_users_is_served_and_the_package_holds_it() -> None:
    files = {path.name for path in DOCS.iterdir() if path.is_file()} | {"clients/README.md"}
    assert {each.file for each in DOCUMENTS.values()} == files - NOT_SERVED
    assert {each.group for each in DOCUMENTS.values()} == set(GROUPS)
    for each in DOCUMENTS.values():
        assert each.packed.read_bytes() == (DOCS / each.file).read_bytes(), f"{each.file}: {REFRESH}"
    assert (FILES / "asyncapi.json").read_bytes() == (DOCS / "asyncapi.json").read_bytes(), REFRESH
    assert {path.name for path in FILES.iterdir()} == {each.packed.name for each in DOCUMENTS.values()} | {
        "asyncapi.json"
    }
    assert FILES.parent.name == "wardmesh_gateway"


@pytest.mark.parametrize("path", PAGES)
async def test_every_document_is_a_page_and_its_links_lead_somewhere(path: str) -> None:
    answer = await get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    text = answer.text
    assert text.count("<h1") == 1 and "<script" not in text and " src=" not in text
    for target in re.findall(r'href="([^"]+)"', text):
        if target.startswith(("/console/", "/openapi.json", "https://")):
            continue
        address, _, anchor = target.partition("#")
        found = await get(address or path)
        assert found.status_code == 200, target
        assert not anchor or f'id="{anchor}"' in found.text, target


def test_links_between_documents_become_links_between_pages_and_other_files_are_only_named() -> None:
    assert 'href="/docs/audit-stream#the-list-of-logs"' in rendered("audit-api")
    assert 'href="/docs/identity-providers"' in rendered("clients"), "out of a folder of its own"
    assert 'href="/docs/clients"' in rendered("identity-providers"), "a folder"
    assert '<span title="README.md">' in rendered("sign-in")
    for name in DOCUMENTS:
        assert not re.findall(r'href="(?!https:)[^"]*(?:\.md|adr/|\.\./)', rendered(name)), name


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
