"""Stops work whose caller hung up: the SDK notices that only on streams (mcp.md §3.4, GW-10)."""

from __future__ import annotations

import asyncio

from wardmesh_gateway.asgi import PATIENCE_SECONDS, App, Message, Receive, Scope, Send


async def until_hung_up(app: App, scope: Scope, receive: Receive, send: Send) -> None:
    """Run `app`; when it takes longer than a moment and the caller goes away, cancel it.

    Quick calls are over before anything is spent on watching.
    """
    task = asyncio.current_task()
    assert task is not None
    gone: list[bool] = []
    watchers: list[asyncio.Task[None]] = []

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.append(True)
        task.cancel()

    async def send_and_stop(message: Message) -> None:
        timer.cancel()  # answered: from here on the connection may close when it likes
        for watcher in watchers:
            watcher.cancel()
        await send(message)

    loop = asyncio.get_running_loop()
    timer = loop.call_later(PATIENCE_SECONDS, lambda: watchers.append(loop.create_task(watch())))
    try:
        await app(scope, receive, send_and_stop)
    except asyncio.CancelledError:
        if not gone or task.uncancel() > 0:
            raise
    finally:
        timer.cancel()
        for watcher in watchers:
            watcher.cancel()
