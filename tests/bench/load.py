"""A closed-loop HTTP/1.1 client that costs little itself: keep-alive connections, one request each at a time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field


@dataclass
class Round:
    """Latencies in seconds of the good answers, and how many were not 200."""

    latencies: list[float] = field(default_factory=list)
    failures: int = 0
    seconds: float = 0.0
    first_failure: bytes = b""

    def quantile(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def request(method: str, target: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head[9:12])
    lowered = head.lower()
    if b"transfer-encoding: chunked" in lowered:
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return status, body
    start = lowered.find(b"content-length:")
    length = int(lowered[start + 15 : lowered.find(b"\r\n", start)]) if start >= 0 else 0
    return status, await reader.readexactly(length) if length else b""


async def worker(host: str, port: int, wire: bytes, until: float, result: Round) -> None:
    reader, writer = await asyncio.open_connection(host, port, limit=2**20)
    try:
        while time.perf_counter() < until:
            started = time.perf_counter()
            writer.write(wire)
            status, body = await read_answer(reader)
            if status == 200 and b'"isError":true' not in body:
                result.latencies.append(time.perf_counter() - started)
            else:
                result.failures += 1
                result.first_failure = result.first_failure or body[:300]
    finally:
        writer.close()


async def run(host: str, port: int, wire: bytes, concurrency: int, seconds: float) -> Round:
    """Offer `concurrency` requests at once for `seconds`."""
    result = Round()
    started = time.perf_counter()
    async with asyncio.timeout(seconds + 60):
        await asyncio.gather(*(worker(host, port, wire, started + seconds, result) for _ in range(concurrency)))
    result.seconds = time.perf_counter() - started
    return result
