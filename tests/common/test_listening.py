"""A listening socket is handed over between two servers, and no connection is refused or dropped."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from wardmesh_common.listening import Farewell, reserve
from wardmesh_common.quiet_server import QuietServer
from wardmesh_common.settings import BadSettings

pytestmark = pytest.mark.anyio


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def serving(sock: socket.socket) -> AsyncGenerator[None]:
    farewell = Farewell(app)
    server = QuietServer(
        uvicorn.Config(farewell, lifespan="off", log_config=None, http="httptools", loop="none", ws="none")
    )
    task = asyncio.create_task(server.serve(sockets=[sock]))
    async with asyncio.timeout(60):
        while not server.started:
            await asyncio.sleep(0.01)
    yield
    await farewell.leave(server)
    server.should_exit = True
    await task


async def ask(port: int) -> bytes:
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
    return answer


async def connects(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@pytest.mark.requirement("NB-8")
async def test_callers_notice_nothing_when_one_server_follows_another_on_an_inherited_socket() -> None:
    with reserve("127.0.0.1", 0) as parent:
        port = parent.getsockname()[1]
        going = True
        answers: list[bytes] = []

        async def call() -> None:
            while going:
                answers.append(await ask(port))

        async with serving(reserve("127.0.0.1", port, {port: parent.fileno()})):
            callers = [asyncio.create_task(call()) for _ in range(4)]
            for _ in range(3):
                async with serving(reserve("127.0.0.1", port, {port: parent.fileno()})):
                    target = len(answers) + 50
                    async with asyncio.timeout(60):
                        while len(answers) < target:
                            await asyncio.sleep(0.01)
        # Nobody serves now: connections wait in the socket until the next server takes them.
        async with serving(reserve("127.0.0.1", port, {port: parent.fileno()})):
            going = False
            await asyncio.gather(*callers)
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)


async def test_a_connection_that_is_left_still_gets_its_answer_and_is_told_to_close() -> None:
    sock = reserve("127.0.0.1", 0)
    port = sock.getsockname()[1]
    leaving = serving(sock)
    await leaving.__aenter__()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    first = await reader.readuntil(b"ok")
    assert b"connection: close" not in first
    ending = asyncio.create_task(leaving.__aexit__(None, None, None))
    async with asyncio.timeout(60):
        while await connects(port):
            await asyncio.sleep(0.01)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(60):
        last = await reader.read()
        await ending
    writer.close()
    assert last.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in last


def test_a_taken_port_and_a_number_that_is_no_socket_are_configuration_faults() -> None:
    with reserve("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadSettings, match=f"cannot listen on port {port}"):
            reserve("127.0.0.1", port)
        with pytest.raises(BadSettings, match=f"the inherited socket for port {port} is unusable"):
            reserve("127.0.0.1", port, {port: 999_999})
