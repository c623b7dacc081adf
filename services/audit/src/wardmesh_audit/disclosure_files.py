"""The accounting of disclosures as JSON, CSV and PDF."""

from __future__ import annotations

from base64 import b64encode

import msgspec

from wardmesh_audit.report_disclosures import Accounting, Disclosure
from wardmesh_audit.report_files import pdf, table
from wardmesh_audit.report_lines import proof_text

_COLUMNS = ("date", "recipient", "address", "description", "purpose", "request", "part2", "times", "last", "every_days")
_PDF_COLUMNS = _COLUMNS[:6] + _COLUMNS[7:9]
_PDF_WIDTHS = (32, 42, 52, 56, 28, 24, 12, 32)


def written(account: Accounting, name: str) -> bytes:
    if name == "csv":
        return as_csv(account)
    return as_pdf(account) if name == "pdf" else msgspec.json.encode(account)


def as_csv(account: Accounting) -> bytes:
    rows = ([*_cells(item, _COLUMNS), item.line.cursor, _proof(item, account)] for item in account.disclosures)
    return table([*_COLUMNS, "cursor", "tlog_proof"], rows)


def as_pdf(account: Accounting) -> bytes:
    facts = [
        f"About {account.about or 'nobody known here'}",
        f"Period {account.since or 'six years'} to {account.until or 'now'}, made {account.made_at.isoformat()}",
        f"{len(account.disclosures)} entries. Every entry is proven by the attached report.json against the signed"
        " checkpoint below.",
    ]
    rows = [_cells(item, _PDF_COLUMNS) for item in account.disclosures]
    notes = list(account.checkpoints.values())
    attached = msgspec.json.encode(account)
    return pdf("Accounting of disclosures", facts, _PDF_COLUMNS, rows, notes, attached, widths=_PDF_WIDTHS)


def _cells(item: Disclosure, names: tuple[str, ...]) -> list[str]:
    """Nothing stands for what does not apply; dates are written as ISO 8601."""
    values = {name: getattr(item, name) for name in names}
    return [
        "" if value is None else value.isoformat() if hasattr(value, "isoformat") else str(value)
        for value in values.values()
    ]


def _proof(item: Disclosure, account: Accounting) -> str:
    text = proof_text(item.line, account.checkpoints)
    return b64encode(text.encode()).decode() if text else ""
