"""Where a caller asks counts as well: open platforms, writing switched off, grants of the platform itself."""

from __future__ import annotations

import pytest

import engines
from policy.pdp_stage import OTHER, OWN, POLICIES, judging
from wardmesh_common.errors import PlatformUnknown
from wardmesh_common.vocabulary import Grant
from wardmesh_policy.bundle import kinds_of

pytestmark = pytest.mark.anyio
ANONYMOUS = {"id": "anonymous", "patient": "", "practitioner": ""}


async def test_somebody_anonymous_reads_open_platforms_and_nothing_else(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        for platform, allowed in (("open", True), ("open-writes", True), ("store", False), ("closed", False)):
            for kind in ("Patient", "Observation", "Practitioner", "Coverage"):
                for action, resource_id in (("read", "1"), ("search", "")):
                    decision = await judge.ask(
                        (), action, kind, resource_id=resource_id, platform=platform, who=ANONYMOUS
                    )
                    assert decision.allowed is allowed, (platform, kind, action)
            metadata = await judge.ask((), "capabilities", "", platform=platform, who=ANONYMOUS)
            assert metadata.allowed is allowed
        for kind in kinds_of(POLICIES):
            for action in ("create", "update", "patch", "delete"):
                resource_id = "" if action == "create" else "1"
                asked = {"resource_id": resource_id, "subject": OWN, "platform": "open-writes", "who": ANONYMOUS}
                assert not (await judge.ask((), action, kind, **asked)).allowed, (kind, action)


async def test_nobody_writes_where_writing_is_off(pdp: engines.Cerbos) -> None:
    """The switch is the descriptor's; Cerbos refuses as well when it is asked nevertheless."""
    async with judging(pdp.target) as judge:
        for platform in ("closed", "open"):
            for kind in kinds_of(POLICIES):
                for action in ("create", "update", "patch", "delete"):
                    resource_id = "" if action == "create" else OWN
                    decision = await judge.ask(
                        "admin Admin owner", action, kind, resource_id=resource_id, subject=OWN, platform=platform
                    )
                    assert (decision.allowed, decision.reason) == (
                        False,
                        "writes are switched off for this platform",
                    )
        assert judge.cerbos.kinds == {"Purpose"}, "nobody asks whether, only what for"
        assert (await judge.ask("admin", "create", "Patient", platform="store")).allowed


async def test_an_unknown_platform_is_not_decided_on(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        with pytest.raises(PlatformUnknown):
            await judge.ask("admin", "read", "Patient", resource_id="1", platform="nowhere")


async def test_a_grant_opens_the_record_of_the_one_patient_it_names(pdp: engines.Cerbos) -> None:
    grant = Grant(platform="ehr", scopes=("patient/*.cruds",), patient="p7")
    guest = {"patient": "", "practitioner": ""}
    async with judging(pdp.target) as judge:
        for action, kind, resource_id in (("read", "Observation", "1"), ("search", "Observation", "")):
            decision = await judge.ask(
                (), action, kind, resource_id=resource_id, platform="ehr", grant=grant, who=guest
            )
            assert (decision.allowed, decision.obligations.compartment) == (True, "p7")
        for subject, allowed in (("p7", True), (OTHER, False)):
            written = await judge.ask(
                (), "create", "Observation", subject=subject, platform="ehr", grant=grant, who=guest
            )
            assert written.allowed is allowed


@pytest.mark.parametrize(
    "grant",
    [
        Grant(platform="ehr", patient="p7"),
        Grant(platform="ehr", scopes=("system/*.rs",)),
        Grant(platform="store", scopes=("patient/*.rs",), patient="p7"),
        None,
    ],
)
async def test_other_grants_open_nothing(pdp: engines.Cerbos, grant: Grant | None) -> None:
    async with judging(pdp.target) as judge:
        for kind in ("Observation", "Patient"):
            decision = await judge.ask((), "read", kind, resource_id="p7", platform="ehr", grant=grant)
            assert not decision.allowed


async def test_the_deployments_own_credentials_are_nobodys_right(pdp: engines.Cerbos) -> None:
    grant = Grant(platform="store", scopes=("system/*.cruds",), patient="p7")
    async with judging(pdp.target) as judge:
        for action, resource_id in (("read", "p7"), ("search", "")):
            assert not (await judge.ask((), action, "Patient", resource_id=resource_id, grant=grant)).allowed


async def test_a_role_of_ours_is_not_widened_by_a_grant(pdp: engines.Cerbos) -> None:
    grant = Grant(platform="ehr", scopes=("patient/*.cruds",), patient="p7")
    async with judging(pdp.target) as judge:
        decision = await judge.ask("Reception", "read", "Observation", resource_id="1", platform="ehr", grant=grant)
        assert not decision.allowed
        nurse = await judge.ask("Nurse", "read", "Patient", resource_id="p7", platform="ehr", grant=grant)
        assert nurse.obligations.masks
