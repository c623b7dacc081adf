"""Pages for developers and compliance under /docs: the shipped documents, rendered once, and the index of them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response
from markdown_it import MarkdownIt
from markdown_it.token import Token
from msgspec import Struct

from wardmesh_common.errors import NotFound

FILES: Final = Path(__file__).with_name("documents")
COMPLIANCE: Final = "/console/audit"


class Document(Struct, frozen=True):
    """One document: its address below /docs, its file in the package, and what it is for."""

    title: str
    file: str
    about: str


DOCUMENTS: Final[Mapping[str, Document]] = {
    "audit-stream": Document(
        "The audit stream", "audit-stream.md", "consume, export and verify the ledger with tools of your own"
    ),
    "audit-events": Document(
        "The audit stream in AsyncAPI", "asyncapi.html", "every channel, header and event type, field by field"
    ),
    "audit-api": Document("The audit API", "audit-api.md", "search, reports, proofs, holds and reviews over HTTP"),
    "detection": Document("Detection", "detection.md", "the rules, the directory of people, the review queue"),
}
_ASYNCAPI: Final = "asyncapi.json"
_STYLE: Final = """
:root{color-scheme:light dark;--ground:#f4f6f8;--card:#fff;--ink:#1b2733;--soft:#54616e;--line:#d8dee4;--link:#0b5cad}
@media (prefers-color-scheme:dark){:root{--ground:#12181f;--card:#1b232c;--ink:#e8edf2;--soft:#a9b4c0;--line:#303b47;
--link:#8cc2ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:1rem/1.6 system-ui,-apple-system,"Segoe UI",sans-serif}
header{padding:.7rem 1.25rem;background:#17324d}
header nav{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem}
header a{color:#fff}header a[aria-current]{font-weight:700;text-decoration:none}
main{max-width:56rem;margin:0 auto;padding:1rem 1.25rem 4rem}
a{color:var(--link)}:focus-visible{outline:.2rem solid var(--link);outline-offset:.1rem}
header :focus-visible{outline-color:#fff}
h1{font-size:1.7rem;line-height:1.25}h2{margin-top:2.2rem}
code{font:.88em ui-monospace,"SF Mono",Menlo,Consolas,monospace;overflow-wrap:anywhere}
pre{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.75rem;overflow:auto}
pre code{overflow-wrap:normal}
.table{overflow-x:auto}table{border-collapse:collapse;width:100%;margin:.5rem 0 1rem;font-size:.94rem}
th,td{text-align:left;vertical-align:top;padding:.35rem .6rem;border-bottom:1px solid var(--line)}th{color:var(--soft)}
td:first-child>code:only-child{white-space:nowrap}
"""


def add_documents(api: FastAPI) -> None:
    """Public and without a record: they hold nothing of anybody (UNRECORDED_ROUTES)."""

    @api.get("/redoc", include_in_schema=False)
    @api.get("/docs/", include_in_schema=False)
    @api.get("/docs", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(_frame("Wardmesh API", _INDEX, ""))

    @api.get(f"/docs/{_ASYNCAPI}", include_in_schema=False)
    async def asyncapi() -> Response:
        return Response((FILES / _ASYNCAPI).read_bytes(), media_type="application/json")

    @api.get("/docs/{name}", include_in_schema=False)
    async def document(name: str) -> HTMLResponse:
        if name not in DOCUMENTS:
            raise NotFound("There is no such document.")
        return HTMLResponse(rendered(name))


@functools.cache
def rendered(name: str) -> str:
    found = DOCUMENTS[name]
    text = (FILES / found.file).read_text(encoding="utf-8")
    return text if found.file.endswith(".html") else _frame(found.title, _of_markdown(text), name)


def _of_markdown(text: str) -> str:
    """No HTML passes through. A wide table scrolls by itself; documents name each other as files."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    for block in tokens:
        _aim(block.children or ())
    made = str(parser.renderer.render(tokens, parser.options, {}))
    return made.replace("<table>", '<div class="table" tabindex="0"><table>').replace("</table>", "</table></div>")


def _aim(tokens: Sequence[Token]) -> None:
    """Links lead to pages here; a file that is only in the source tree is named, not linked."""
    foreign = False
    for token in tokens:
        if token.type == "link_open":
            target = str(token.attrGet("href") or "")
            foreign = target.startswith("../")
            if target.removesuffix(".md") in DOCUMENTS:
                token.attrSet("href", f"/docs/{target.removesuffix('.md')}")
            elif foreign:
                token.tag, token.attrs = "span", {"title": target.lstrip("./")}
        elif token.type == "link_close" and foreign:
            token.tag = "span"


def _frame(title: str, body: str, here: str) -> str:
    links = [("", "/docs", "API"), *((name, f"/docs/{name}", each.title) for name, each in DOCUMENTS.items())]
    shown = [
        f'<a href="{address}"{" aria-current=page" if name == here else ""}>{escape(label)}</a>'
        for name, address, label in [*links, ("console", COMPLIANCE, "Compliance console")]
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><header><nav aria-label=Documents>{' '.join(shown)}</nav></header>"
        f"<main>{body}</main></body></html>"
    )


_INDEX: Final = f"""<h1>Wardmesh API</h1>
<p>The description of every route is the OpenAPI 3.1 document at <a href="/openapi.json">/openapi.json</a>.
Any OpenAPI viewer or client generator reads it.</p>
<ul>
<li><code>/api/platforms</code> lists what can be asked.</li>
<li><code>/api/fhir/{{platform}}/{{Type}}</code> is the REST face.</li>
<li><code>/fhir/{{platform}}</code> is a FHIR R4 base for FHIR clients.</li>
<li><code>/v1/tools/{{name}}</code> calls a tool; <code>/mcp</code> is the MCP endpoint for agents.</li>
</ul>
<h2>Compliance</h2>
<ul>{"".join(f'<li><a href="/docs/{name}">{each.title}</a>: {each.about}.</li>' for name, each in DOCUMENTS.items())}
<li><a href="/docs/{_ASYNCAPI}">{_ASYNCAPI}</a>: the same channels for tools.</li>
<li><a href="{COMPLIANCE}">The compliance console</a>: live events, history of a record, reviews, verification.</li>
</ul>"""


def copy(folder: str) -> None:
    """Takes the documents of a checkout into the package; a test compares them."""
    FILES.mkdir(exist_ok=True)
    for name in (*(each.file for each in DOCUMENTS.values()), _ASYNCAPI):
        (FILES / name).write_bytes((Path(folder) / name).read_bytes())


if __name__ == "__main__":
    copy(sys.argv[1])
