"""Jobs that a client follows: as a task, by progress notifications, over REST; any replica tells (issue 5)."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from mcp.shared.exceptions import MCPError

from mesh.healthlake import lake, new_store, output, put_ndjson, refused, until
from mesh.mcp_task_client import Follower, State
from mesh.test_healthlake_control import OVER, job

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]
MANY = 6000
LONG = 30_000
WATCHED_SECONDS = 50.0  # watching ends after 20 of them, with or without the job


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"resourceType": "Patient", "id": f"p{n}", "name": [{"family": f"N{n}"}]} for n in range(count)]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_who_asks_for_progress_hears_of_the_job_until_it_ends(mesh: Any, mode: str) -> None:
    told: list[tuple[float, str]] = []

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message or ""))

    async with lake(mesh, mode=mode) as call:
        store = await new_store(call, datastore_name="watched")
        put_ndjson(mesh, f"watched-{mode}", numbered(MANY))
        started = await call("start_fhir_import_job", **job(store, f"watched-{mode}"))
        place = {"datastore_id": store, "job_id": started["JobId"]}
        began = time.monotonic()
        now = (await call("describe_fhir_import_job", **place))["ImportJobProperties"]
        assert (now["JobStatus"] not in OVER, time.monotonic() - began < 15) == (True, True), "no token, no wait"
        result = await call.client.call_tool("describe_fhir_import_job", place, progress_callback=heard)
        assert time.monotonic() - began < WATCHED_SECONDS
        assert result.structured_content is not None
        properties = result.structured_content["ImportJobProperties"]
        counts = [done for done, message in told if " resources, " in message]
        assert counts == sorted(counts)
        assert len(set(counts)) > 2
        assert properties["JobStatus"] in message_of(told)
        if properties["JobStatus"] == "COMPLETED":
            assert counts[-1] >= MANY
        ended = await call.finished("describe_fhir_import_job", store, started["JobId"])
        assert ended["JobStatus"] == "COMPLETED"
        await call("delete_datastore", datastore_id=store)


def message_of(told: list[tuple[float, str]]) -> str:
    return [message for _, message in told if " resources, " in message][-1]


async def test_who_knows_tasks_gets_one_that_ends_with_its_job(mesh: Any) -> None:
    importing, exporting, failing = Follower(), Follower(), Follower()
    async with lake(mesh) as plain, lake(mesh, extensions=[importing]) as call:
        store = await new_store(plain, datastore_name="tasks")
        put_ndjson(mesh, "tasks", numbered(MANY))
        ended = await call("start_fhir_import_job", **job(store, "tasks", job_name="as-a-task"))
        assert (set(ended), ended["JobStatus"]) == ({"JobId", "JobStatus", "DatastoreId"}, "COMPLETED")
        working = [state.status_message for state in importing.states if state.status == "working"]
        assert any(message and " resources, " in message for message in working)
        read = await plain("describe_fhir_import_job", datastore_id=store, job_id=ended["JobId"])
        assert read["ImportJobProperties"]["JobProgressReport"]["TotalNumberOfResourcesImported"] == MANY
        for _ in range(4):  # in turns of the balancer
            assert (await importing.look(call.client.session)).status == "completed"
        await importing.cancel(call.client.session)
        assert (await importing.look(call.client.session)).status == "completed"
        async with lake(mesh, "demo_auditor", extensions=[Follower()]) as other:
            with pytest.raises(MCPError, match="Unknown task"):
                await importing.look(other.client.session)
        async with lake(mesh, extensions=[exporting]) as call_export:
            config = {"output_data_config": output("s3://tasks-out/"), "datastore_id": store}
            written = await call_export("start_fhir_export_job", **config, data_access_role_arn="arn:aws:iam::0:role/r")
            assert (written["JobStatus"], exporting.states[-1].status) == ("COMPLETED", "completed")
        async with lake(mesh, extensions=[failing]) as call_failing:
            result = await call_failing.client.call_tool("start_fhir_import_job", job(store, "tasks-nothing"))
            assert (result.is_error, failing.states[-1].status) == (True, "completed")
            assert result.structured_content is not None
            assert result.structured_content["JobStatus"] == "FAILED"
        await plain("delete_datastore", datastore_id=store)


class Quitter(Follower):
    """Cancels as soon as there is a task, twice, and goes on looking."""

    async def look(self, session: Any, task: str = "") -> State:
        if not self.states:
            await self.cancel(session)
            await self.cancel(session)
        return await super().look(session, task)


async def test_a_cancelled_task_stops_its_job_and_others_are_not_let(mesh: Any) -> None:
    quitter = Quitter()
    async with lake(mesh) as plain, lake(mesh, extensions=[quitter]) as call:
        store = await new_store(plain, datastore_name="stopped")
        put_ndjson(mesh, "stopped", numbered(LONG))
        await call.client.call_tool("start_fhir_import_job", job(store, "stopped"))
        assert quitter.states[-1].status == "cancelled"
        (known,) = (await plain("list_fhir_import_jobs", datastore_id=store))["ImportJobPropertiesList"]
        assert known["JobStatus"] == "STOPPED"
        assert known["JobProgressReport"]["TotalNumberOfResourcesImported"] < LONG
        place = {"datastore_id": store, "job_id": known["JobId"]}
        async with lake(mesh, profile="") as whole, lake(mesh, "demo_auditor", profile="") as auditor:
            assert (await whole("stop_fhir_import_job", **place))["JobStatus"] == "STOPPED"
            text = await refused(auditor, "stop_fhir_import_job", **place)
            assert text.startswith("AWS HealthLake Error (AccessDeniedException): Access denied: no rule allows")
        await plain("delete_datastore", datastore_id=store)


async def test_progress_is_seen_over_rest_as_well(mesh: Any) -> None:
    headers = {"Authorization": f"Bearer {mesh.token('demo_admin')}"}
    async with (
        lake(mesh) as call,
        httpx.AsyncClient(base_url=mesh.ready["gateway"], headers=headers, timeout=60) as http,
    ):
        store = await new_store(call, datastore_name="rest")
        put_ndjson(mesh, "rest-jobs", numbered(MANY))
        started = (await http.post("/v1/tools/start_fhir_import_job", json=job(store, "rest-jobs"))).json()
        place = {"datastore_id": store, "job_id": started["JobId"]}
        seen: set[int] = set()

        async def ended() -> bool:
            told = (await http.post("/v1/tools/describe_fhir_import_job", json=place)).json()["ImportJobProperties"]
            seen.add(told["JobProgressReport"]["TotalNumberOfResourcesImported"])
            return told["JobStatus"] in OVER

        await until(ended)
        assert max(seen) == MANY
        assert len(seen) > 2, "numbers between nothing and everything"
        await call("delete_datastore", datastore_id=store)
