"""Reports as files: JSON, CSV with a proof in every line, and PDF with the JSON and its proofs attached."""

from __future__ import annotations

import csv
import io
from base64 import b64encode
from typing import Any

import msgspec
from fpdf import FPDF
from fpdf.fonts import FontFace

from wardmesh_audit.query_args import MOST_EVENTS
from wardmesh_audit.report_access import Report
from wardmesh_audit.report_lines import COLUMNS, ReportLine, proof_text
from wardmesh_common.errors import BadRequest

FORMATS = {"json": "application/json", "csv": "text/csv; charset=utf-8", "pdf": "application/pdf"}
MOST_PDF_LINES = 500
_PDF_COLUMNS = {
    "access": ("time", "actor", "role", "agent", "action", "resource", "purpose", "outcome", "cursor"),
    "activity": ("time", "patient", "role", "agent", "action", "resource", "purpose", "outcome", "cursor"),
}
_PDF_WIDTHS = (42, 52, 24, 30, 16, 30, 20, 22, 18)
# A cell that begins so is taken for a formula by spreadsheets.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def check_format(name: str, limit: int) -> int:
    """How many lines a file of this format may hold. Raises BadRequest before any work is done."""
    if name not in FORMATS:
        raise BadRequest(f"Invalid format: one of {', '.join(FORMATS)}.")
    most = MOST_PDF_LINES if name == "pdf" else MOST_EVENTS
    if not 0 <= limit <= most:
        raise BadRequest(f"Invalid limit: a report in this format holds 1 to {most} lines.")
    return most


def written(report: Report, name: str) -> bytes:
    if name == "csv":
        return as_csv(report)
    return as_pdf(report) if name == "pdf" else msgspec.json.encode(report)


def as_csv(report: Report) -> bytes:
    """The last column is the line's whole tlog-proof file in base64: `verify-proof` checks it alone."""
    rows = ([*_cells(line), _proof(line, report)] for line in report.lines)
    return table([*COLUMNS, "tlog_proof"], rows)


def table(header: list[str], rows: Any) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(header)
    for row in rows:
        writer.writerow([_inert(str(cell)) for cell in row])
    return out.getvalue().encode()


def as_pdf(report: Report) -> bytes:
    title = {"access": "Who accessed this record", "activity": "What this user did"}[report.report]
    facts = [
        f"About {report.about or 'nobody known here'}",
        f"Period {report.since or 'the beginning'} to {report.until or 'now'}, made {report.made_at.isoformat()}",
        f"{len(report.lines)} lines{', more follow' if report.next else ''}. Every line is proven by the attached"
        " report.json against the signed checkpoint below.",
    ]
    columns = _PDF_COLUMNS[report.report]
    rows = [[str(getattr(line, name)) for name in columns] for line in report.lines]
    notes = list(report.checkpoints.values())
    return pdf(title, facts, columns, rows, notes, msgspec.json.encode(report), widths=_PDF_WIDTHS)


def pdf(
    title: str,
    facts: list[str],
    header: tuple[str, ...],
    rows: list[list[str]],
    notes: list[str],
    attachment: bytes,
    *,
    widths: tuple[int, ...],
) -> bytes:
    document = FPDF(orientation="landscape", format="A4")
    document.set_title(title)
    document.set_creator("Wardmesh")
    document.add_page()
    document.set_font("Helvetica", "B", 15)
    document.multi_cell(0, 9, latin(title), new_x="LMARGIN", new_y="NEXT")
    document.set_font("Helvetica", "", 9)
    for fact in facts:
        document.multi_cell(0, 5, latin(fact), new_x="LMARGIN", new_y="NEXT")
    document.set_font("Helvetica", "", 7)
    with document.table(col_widths=widths, headings_style=FontFace(emphasis="BOLD"), line_height=4) as grid:
        for cells in (list(header), *rows):
            row = grid.row()
            for cell in cells:
                row.cell(latin(cell))
    document.set_font("Courier", "", 7)
    for note in notes:
        document.ln(4)
        document.multi_cell(0, 4, latin(note), new_x="LMARGIN", new_y="NEXT")
    document.embed_file(bytes=attachment, basename="report.json", mime_type="application/json", desc="report")
    return bytes(document.output())


def _cells(line: ReportLine) -> list[str]:
    values = msgspec.structs.asdict(line)
    return [str(values[name]) for name in COLUMNS]


def _proof(line: ReportLine, report: Report) -> str:
    text = proof_text(line, report.checkpoints)
    return b64encode(text.encode()).decode() if text else ""


def _inert(cell: str) -> str:
    return "'" + cell if cell.startswith(_FORMULA) else cell


def latin(text: str) -> str:
    """The built-in fonts of PDF know Latin-1 only; the attachment holds the exact text."""
    return text.encode("latin-1", "replace").decode("latin-1")
