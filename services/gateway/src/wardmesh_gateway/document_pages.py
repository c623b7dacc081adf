"""Pages under /docs for who uses, oversees or runs the mesh: the shipped documents, rendered once, and their index."""

from __future__ import annotations

import functools
import posixpath
import re
import sys
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response
from markdown_it import MarkdownIt
from markdown_it.token import Token

from wardmesh_common.errors import NotFound
from wardmesh_gateway.document_list import ASYNCAPI, DOCUMENTS, FILES, GROUPS

COMPLIANCE: Final = "/console/audit"
_NAMES: Final = {each.file: name for name, each in DOCUMENTS.items()}
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

    @api.get(f"/docs/{ASYNCAPI}", include_in_schema=False)
    async def asyncapi() -> Response:
        return Response((FILES / ASYNCAPI).read_bytes(), media_type="application/json")

    @api.get("/docs/{name}", include_in_schema=False)
    async def document(name: str) -> HTMLResponse:
        if name not in DOCUMENTS:
            raise NotFound("There is no such document.")
        return HTMLResponse(rendered(name))


@functools.cache
def rendered(name: str) -> str:
    found = DOCUMENTS[name]
    text = found.packed.read_text(encoding="utf-8")
    return text if found.file.endswith(".html") else _frame(found.title, _of_markdown(text, found.file), name)


def _of_markdown(text: str, file: str) -> str:
    """No HTML passes through. A wide table scrolls by itself; documents name each other as files."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    seen: Counter[str] = Counter()
    for block, following in zip(tokens, [*tokens[1:], None], strict=True):
        _aim(block.children or (), posixpath.dirname(file))
        if block.type == "heading_open" and following is not None:
            block.attrSet("id", _anchor(following.content, seen))
    made = str(parser.renderer.render(tokens, parser.options, {}))
    return made.replace("<table>", '<div class="table" tabindex="0"><table>').replace("</table>", "</table></div>")


def _anchor(heading: str, seen: Counter[str]) -> str:
    """As code hosts make them: links between documents are written for those."""
    made = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
    seen[made] += 1
    return made if seen[made] == 1 else f"{made}-{seen[made] - 1}"


def _aim(tokens: Sequence[Token], folder: str) -> None:
    """Links lead to pages here; a file that is only in the source tree is named, not linked."""
    foreign = False
    for token in tokens:
        if token.type == "link_open":
            target = str(token.attrGet("href") or "")
            address = _address(target, folder)
            foreign = address is None
            if address is None:
                token.tag, token.attrs = "span", {"title": target.lstrip("./")}
            else:
                token.attrSet("href", address)
        elif token.type == "link_close" and foreign:
            token.tag, foreign = "span", False


def _address(target: str, folder: str) -> str | None:
    """None for what is no page."""
    path, mark, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:|/", path):
        return target
    file = posixpath.normpath(posixpath.join(folder, path))
    name = _NAMES.get(file) or _NAMES.get(f"{file}/README.md")
    if name is None:
        return f"/docs/{ASYNCAPI}" if file == ASYNCAPI else None
    return f"/docs/{name}{mark}{anchor}"


def _frame(title: str, body: str, here: str) -> str:
    """The head shows the documents of the same group, and the way to the others."""
    group = DOCUMENTS[here].group if here else ""
    links = [("", "/docs", "API")]
    for key, label in GROUPS.items():
        if key == group:
            links += [(name, f"/docs/{name}", each.title) for name, each in DOCUMENTS.items() if each.group == key]
        else:
            links.append((key, f"/docs#{key}", label))
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


def _listed(group: str) -> str:
    items = [
        f'<li><a href="/docs/{name}">{escape(each.title)}</a>: {escape(each.about)}.</li>'
        for name, each in DOCUMENTS.items()
        if each.group == group
    ]
    if group == "compliance":
        items += [
            f'<li><a href="/docs/{ASYNCAPI}">{ASYNCAPI}</a>: the same channels for tools.</li>',
            f'<li><a href="{COMPLIANCE}">The compliance console</a>: live events, history of a record, reviews, '
            "verification.</li>",
        ]
    return f'<h2 id="{group}">{GROUPS[group]}</h2><ul>{"".join(items)}</ul>'


_INDEX: Final = f"""<h1>Wardmesh API</h1>
<p>The description of every route is the OpenAPI 3.1 document at <a href="/openapi.json">/openapi.json</a>.
Any OpenAPI viewer or client generator reads it.</p>
<ul>
<li><code>/api/platforms</code> lists what can be asked.</li>
<li><code>/api/fhir/{{platform}}/{{Type}}</code> is the REST face.</li>
<li><code>/fhir/{{platform}}</code> is a FHIR R4 base for FHIR clients.</li>
<li><code>/v1/tools/{{name}}</code> calls a tool; <code>/mcp</code> is the MCP endpoint for agents.</li>
</ul>
{"".join(_listed(group) for group in GROUPS)}"""


def copy(folder: str) -> None:
    """Takes the documents of a checkout into the package; a test compares them."""
    FILES.mkdir(exist_ok=True)
    for each in DOCUMENTS.values():
        each.packed.write_bytes((Path(folder) / each.file).read_bytes())
    (FILES / ASYNCAPI).write_bytes((Path(folder) / ASYNCAPI).read_bytes())


if __name__ == "__main__":
    copy(sys.argv[1])
