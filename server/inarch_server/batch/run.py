"""Answers a batch: the server's own application on a private socket, many requests at once.

So a request of a batch means what it means to the server, field by field.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp import hdrs, web

from inarch.config import EngineConfig
from inarch.engine.async_engine import AsyncEngine
from inarch.errors import InarchError, InvalidRequestError
from inarch_server.app import make_app
from inarch_server.batch.files import Answers, Request

BUSY = 503  # with Retry-After: the engine's queue is full. Without: there is no engine any more
PAUSE_S = 0.2
# Requests in flight for each one that the engine runs: the next ones are there when one ends.
AHEAD = 2
BACKLOG = 4096  # connections that wait to be accepted


async def run_batch(
    config: EngineConfig,
    requests: Iterator[Request],
    answers: Answers,
    answered: Callable[[], object],
) -> int:
    """Answer all requests, calling `answered` after each; how many were refused.

    Raises InarchError if the engine cannot be started, or is gone for good.
    """
    async with AsyncEngine(config) as engine, _server(engine, config) as session:
        at_once = asyncio.Semaphore(AHEAD * engine.info.max_running_requests)
        refusals = 0

        async def answer(request: Request) -> None:
            nonlocal refusals
            try:
                status, body = await _answer(session, request)
            finally:
                at_once.release()
            answers.add(request.custom_id, status, body)
            refusals += status >= 400
            answered()

        try:
            async with asyncio.TaskGroup() as tasks:
                for request in requests:
                    await at_once.acquire()
                    tasks.create_task(answer(request))
        except* InarchError as errors:
            raise errors.exceptions[0] from None
        return refusals


async def _answer(session: aiohttp.ClientSession, request: Request) -> tuple[int, Any]:
    try:
        request.check()
    except InvalidRequestError as error:
        return 400, {"error": {"message": str(error), "type": "invalid_request_error"}}
    while True:
        async with session.post(request.url, json=request.body) as response:
            body = msgspec.json.decode(await response.read())
        if response.status != BUSY:
            return response.status, body
        if hdrs.RETRY_AFTER not in response.headers:
            raise InarchError(
                f"{body['error']['message']}; run the same command to go on from here"
            )
        await asyncio.sleep(PAUSE_S)


@contextlib.asynccontextmanager
async def _server(
    engine: AsyncEngine, config: EngineConfig
) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the application, which nobody else can reach."""
    runner = web.AppRunner(make_app(engine, config), handler_cancellation=True)
    headers = {"Authorization": f"Bearer {config.api_key}"} if config.api_key else {}
    with tempfile.TemporaryDirectory(prefix="inarch-") as folder:  # only this user may enter it
        path = str(Path(folder) / "batch")
        await runner.setup()
        await web.UnixSite(runner, path, backlog=BACKLOG).start()
        try:
            async with aiohttp.ClientSession(
                base_url="http://localhost",
                connector=aiohttp.UnixConnector(path, limit=0),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=None),
            ) as session:
                yield session
        finally:
            await runner.cleanup()
