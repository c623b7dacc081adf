"""AWS's own client for the control plane of a store, and jobs followed to their end."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import boto3
import httpx
from botocore.config import Config
from store_stage import Fhir, StoreProcess

WAIT_SECONDS = 60
ROLE = "arn:aws:iam::000000000000:role/HealthLakeRole"
KEY = "arn:aws:kms:us-west-2:000000000000:key/00000000-0000-0000-0000-000000000000"
ENDED = ("COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED", "STOPPED")


def client_of(store: StoreProcess, region: str = "us-west-2") -> Any:
    """boto3 with keys that nobody checks: the store is asked by those who may."""

    def named(request: Any, **_: Any) -> None:
        request.headers["X-Wardmesh-Namespace"] = region

    client = boto3.client(
        "healthlake",
        endpoint_url=f"{store.base.removesuffix('/fhir')}/control",
        region_name=region,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"max_attempts": 1}, proxies={}),
    )
    client.meta.events.register("before-sign.healthlake.*", named)
    return client


def until(client: Any, public_id: str, status: str) -> dict[str, Any]:
    limit = time.monotonic() + WAIT_SECONDS
    while True:
        found = client.describe_fhir_datastore(DatastoreId=public_id)["DatastoreProperties"]
        if found["DatastoreStatus"] == status:
            return found
        assert time.monotonic() < limit, f"still {found['DatastoreStatus']}"
        time.sleep(0.05)


def fhir_of(store: StoreProcess, public_id: str) -> Fhir:
    return Fhir(f"{store.base.removesuffix('/fhir')}/datastore/{public_id}/r4")


class Jobs:
    """Starts jobs in one datastore and follows them."""

    def __init__(self, lake: Any, datastore: str) -> None:
        self.lake = lake
        self.datastore = datastore

    def start_import(self, source: str, output: str = "s3://lake/out", **more: Any) -> str:
        started = self.lake.start_fhir_import_job(
            InputDataConfig={"S3Uri": source},
            JobOutputDataConfig={"S3Configuration": {"S3Uri": output, "KmsKeyId": KEY}},
            DatastoreId=self.datastore,
            DataAccessRoleArn=ROLE,
            **more,
        )
        assert started["DatastoreId"] == self.datastore
        return started["JobId"]

    def start_export(self, output: str = "s3://lake/out", **more: Any) -> str:
        started = self.lake.start_fhir_export_job(
            OutputDataConfig={"S3Configuration": {"S3Uri": output, "KmsKeyId": KEY}},
            DatastoreId=self.datastore,
            DataAccessRoleArn=ROLE,
            **more,
        )
        return started["JobId"]

    def raw(self, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer as it is sent, with what AWS's client does not know."""
        headers = {"X-Amz-Target": f"HealthLake.{operation}"}
        named = {"DatastoreId": self.datastore, **body}
        return httpx.post(self.lake.meta.endpoint_url, json=named, headers=headers, timeout=20).json()

    def stop(self, kind: str, job: str) -> dict[str, Any]:
        return self.raw(f"StopFHIR{kind.capitalize()}Job", {"JobId": job})

    def describe(self, kind: str, job: str) -> dict[str, Any]:
        call = getattr(self.lake, f"describe_fhir_{kind}_job")
        return call(DatastoreId=self.datastore, JobId=job)[f"{kind.capitalize()}JobProperties"]

    def ended(self, kind: str, job: str) -> dict[str, Any]:
        limit = time.monotonic() + WAIT_SECONDS
        while True:
            found = self.describe(kind, job)
            if found["JobStatus"] in ENDED:
                return found
            assert time.monotonic() < limit, found["JobStatus"]
            time.sleep(0.05)


_GATE = """
    CREATE OR REPLACE FUNCTION gate() RETURNS trigger AS $$ BEGIN
        PERFORM pg_advisory_xact_lock_shared(CASE NEW.role WHEN 'input' THEN NEW.done_count / 500 ELSE NEW.number END);
        RETURN NEW;
    END $$ LANGUAGE plpgsql;
    CREATE OR REPLACE TRIGGER gate BEFORE INSERT OR UPDATE ON job_file FOR EACH ROW EXECUTE FUNCTION gate()
"""


@contextmanager
def gate(url: str, key: int) -> Iterator[None]:
    """Jobs wait here before they record the `key`th five hundred of a file, or their `key`th output file."""
    shut, leave = threading.Event(), threading.Event()

    async def hold() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(_GATE)
            await connection.execute("SELECT pg_advisory_lock($1)", key)
            shut.set()
            while not leave.is_set():
                await asyncio.sleep(0.02)
        finally:
            await connection.close()

    thread = threading.Thread(target=lambda: asyncio.run(hold()))
    thread.start()
    try:
        assert shut.wait(WAIT_SECONDS)
        yield
    finally:
        leave.set()
        thread.join(WAIT_SECONDS)


def waited(url: str) -> None:
    """Until somebody waits for the row of the job that stands at the gate."""

    async def look() -> bool:
        connection = await asyncpg.connect(url)
        try:
            query = """SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
                AND wait_event <> 'advisory' AND query ~ 'UPDATE (job|datastore)'"""
            return bool(await connection.fetchval(query))
        finally:
            await connection.close()

    limit = time.monotonic() + WAIT_SECONDS
    while not asyncio.run(look()):
        assert time.monotonic() < limit


def folder_of(root: Path, kind: str, datastore: str, job: str) -> Path:
    """Where the job wrote below `s3://lake/out`."""
    return root / "lake" / "out" / f"{datastore}-FHIR_{kind.upper()}-{job}"


def write_lines(path: Path, resources: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in resources))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
