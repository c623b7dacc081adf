"""Reports as procedures: who accessed a record, what a user did, to whom data was disclosed; JSON, CSV or PDF."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import msgspec

from wardmesh_audit.disclosure_files import written as disclosures_written
from wardmesh_audit.pseudonyms import Pseudonyms
from wardmesh_audit.query_args import ReportArgs, arguments
from wardmesh_audit.report_access import access_report, activity_report
from wardmesh_audit.report_disclosures import accounting
from wardmesh_audit.report_files import FORMATS, check_format, written
from wardmesh_common.contracts import Outcome, Touched
from wardmesh_common.errors import BadRequest
from wardmesh_common.vocabulary import Principal

Procedure = Callable[[Principal, bytes], Awaitable[Outcome]]


class Reports:
    def __init__(self, pool: asyncpg.Pool, pseudonyms: Pseudonyms) -> None:
        self._pool = pool
        self._pseudonyms = pseudonyms

    def procedures(self) -> dict[str, Procedure]:
        return {
            "access_report": self.access,
            "activity_report": self.activity,
            "disclosures": self.disclosures,
            "open_disclosures": self.open_disclosures,
        }

    async def access(self, principal: Principal, body: bytes) -> Outcome:
        args = _checked(body)
        pseudonym = await self._pseudonym(principal, args)
        async with self._pool.acquire() as conn:
            report = await access_report(conn, args, principal.tenant, pseudonym)
        return await _file(args, lambda: written(report, args.format), _about(args, len(report.lines)))

    async def activity(self, principal: Principal, body: bytes) -> Outcome:
        args = _checked(body)
        async with self._pool.acquire() as conn:
            report = await activity_report(conn, args, principal.tenant)
        return await _file(args, lambda: written(report, args.format), _about(args, len(report.lines)))

    async def disclosures(self, principal: Principal, body: bytes) -> Outcome:
        return await self._disclosures(principal, body, opened=False)

    async def open_disclosures(self, principal: Principal, body: bytes) -> Outcome:
        return await self._disclosures(principal, body, opened=True)

    async def _disclosures(self, principal: Principal, body: bytes, *, opened: bool) -> Outcome:
        args = _checked(body)
        pseudonym = await self._pseudonym(principal, args)
        # Whoever asks by being the patient is told nothing that a suspension hides, whatever else he may be.
        own = bool(principal.patient) and args.patient.endswith(f"/Patient/{principal.patient}")
        async with self._pool.acquire() as conn:
            seal = self._pseudonyms.open if opened else None
            account = await accounting(conn, args, principal.tenant, pseudonym, seal, own=own)
        count = len(account.disclosures)
        return await _file(args, lambda: disclosures_written(account, args.format), _about(args, count))

    async def _pseudonym(self, principal: Principal, args: ReportArgs) -> bytes | None:
        if not args.patient:
            raise BadRequest("The report needs a patient.")
        return await self._pseudonyms.find(principal.tenant, args.patient)


def _checked(body: bytes) -> ReportArgs:
    args = arguments(body, ReportArgs)
    most = check_format(args.format, args.limit)
    return msgspec.structs.replace(args, limit=args.limit or most)


async def _file(args: ReportArgs, write: Callable[[], bytes], touched: tuple[Touched, ...]) -> Outcome:
    """Writing takes a moment of CPU: in a thread, so that the ledger's other roles go on."""
    body = await asyncio.to_thread(write)
    return Outcome(status=200, body=body, media_type=FORMATS[args.format], touched=touched)


def _about(args: ReportArgs, count: int) -> tuple[Touched, ...]:
    return (Touched(patient=args.patient, type="AuditEvent", count=count),)
