"""Settings of the store, read from WARDMESH_… variables."""

from __future__ import annotations

from msgspec import Struct, field


class StoreSettings(Struct, kw_only=True):
    """`fhir_base` is what links show; by default the address we listen on."""

    database_url: str
    host: str = "127.0.0.1"
    port: int = 8080
    listen_fds: dict[int, int] = field(default_factory=dict)  # port -> inherited listening socket
    fhir_base: str = ""
    smart_base: str = ""  # the base that SMART tokens open, by default `/smart/fhir` of the address we listen on
    smart_issuer: str = ""  # who issues those tokens; without one there is no such base
    nats_url: str = ""  # where change events go (ST-73); without a bus none are kept
    nats_seed: str = ""
    operations_seed: str = ""  # of the user that may make streams, for `provision`
    feed_poll_seconds: float = 0.25
    admin_host: str = "127.0.0.1"
    admin_port: int = 9090
    log_level: str = "INFO"
    log_json: bool = True
    max_body_bytes: int = 50 * 1024 * 1024
    pool_size: int = 8
    statement_timeout_ms: int = 30_000
    drain_seconds: float = 10.0
    job_workers: int = 1  # jobs that this process carries out at once; 0 leaves them to others
    job_poll_seconds: float = 1.0
    job_lease_seconds: float = 15.0  # after it another process goes on with the job of one that died
    job_file_resources: int = 10_000  # in one output file of an export
    file_roots: list[str] = []  # folders below which file:// URLs of jobs may lie
    s3_folder: str = ""  # where s3://bucket/key is the file bucket/key
    s3_endpoint: str = ""  # S3 or a service like it, without a folder; credentials come from AWS's own variables
    s3_region: str = "us-west-2"
    bulk_url: str = ""  # file:// or s3:// URL under which $export writes; without it $export is not offered

    @property
    def base(self) -> str:
        return (self.fhir_base or f"http://{self.host}:{self.port}/fhir").rstrip("/")

    @property
    def smart(self) -> str:
        return (self.smart_base or f"http://{self.host}:{self.port}/smart/fhir").rstrip("/")
