"""S3 and services that speak like it, through boto3; its credentials come from AWS's own variables."""

from __future__ import annotations

import io
from typing import Any, BinaryIO, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from wardmesh_fhir_store.jobs.places import (
    NOT_THERE,
    SUFFIXES,
    UNREADABLE,
    UNWRITABLE,
    BadPlace,
    Source,
    bucket_and_key,
)

_BEYOND = "InvalidRange"


class Objects:
    """`s3://bucket/key`. The client is made at the first use: most stores never need it."""

    def __init__(self, endpoint: str, region: str) -> None:
        self._endpoint = endpoint
        self._region = region
        self._made: Any = None

    @property
    def _client(self) -> Any:
        if self._made is None:
            config = Config(
                retries={"max_attempts": 3, "mode": "adaptive"},
                s3={"addressing_style": "path"},
                connect_timeout=5,
                read_timeout=30,
                # Checksums in trailers are Amazon's own: other services refuse them.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            )
            made: Any = boto3.client("s3", region_name=self._region, endpoint_url=self._endpoint, config=config)  # pyright: ignore[reportUnknownMemberType]
            self._made = made
        return self._made

    def check(self, url: str) -> None:
        bucket_and_key(url)

    def sources(self, url: str) -> list[Source]:
        """The object of that name, or what lies below it as a prefix."""
        bucket, prefix = bucket_and_key(url)
        found: list[Source] = []
        try:
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for one in page.get("Contents", ()):
                    key: str = one["Key"]
                    inside = key == prefix or not prefix or key.startswith(prefix.rstrip("/") + "/")
                    if inside and key.endswith(SUFFIXES):
                        found.append(Source(f"s3://{bucket}/{key}", one["Size"], one["ETag"]))
        except (BotoCoreError, ClientError):
            raise BadPlace(NOT_THERE) from None
        return sorted(found, key=lambda source: source.url)

    def open(self, url: str, position: int) -> BinaryIO:
        bucket, key = bucket_and_key(url)
        try:
            answer = self._client.get_object(Bucket=bucket, Key=key, Range=f"bytes={position}-")
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == _BEYOND:  # a file that was read to its end
                return io.BytesIO()
            raise BadPlace(UNREADABLE) from None
        except BotoCoreError:
            raise BadPlace(UNREADABLE) from None
        return cast("BinaryIO", io.BufferedReader(answer["Body"], 1 << 20))

    def put(self, url: str, body: bytes) -> None:
        bucket, key = bucket_and_key(url)
        try:
            self._client.put_object(Bucket=bucket, Key=key, Body=body)
        except (BotoCoreError, ClientError):
            raise BadPlace(UNWRITABLE) from None

    def remove(self, url: str) -> None:
        bucket, key = bucket_and_key(url)
        try:
            self._client.delete_object(Bucket=bucket, Key=key)
        except (BotoCoreError, ClientError):
            raise BadPlace(UNWRITABLE) from None
