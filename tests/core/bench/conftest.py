"""A small OpenAI-compatible server on a real socket, in a thread: any server, to the bench."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web


@dataclass
class StubServer:
    """Streams `max_tokens` tokens to each request, in events, and remembers what it saw."""

    models: tuple[str, ...] | None = ("stub",)
    key: str | None = None
    first_delay_s: float = 0.0
    gap_s: float = 0.0
    tokens_per_event: int = 1
    sends_usage: bool = True
    sends_done: bool = True
    gate: int = 0  # no answer before so many requests have been in flight together
    refuse: Callable[[dict[str, Any]], str | None] = lambda body: None  # a 400 with this message
    hang_after: int | None = None  # requests beyond this number get no answer

    bodies: list[dict[str, Any]] = field(default_factory=list)
    in_flight: int = 0
    max_in_flight: int = 0
    hanging: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    async def list_models(self, request: web.Request) -> web.Response:
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": {"message": "wrong key"}}, status=401)
        if self.models is None:
            return web.Response(status=404, text="no such page")
        return web.json_response({"object": "list", "data": [{"id": m} for m in self.models]})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if (message := self.refuse(body)) is not None:
            return web.json_response({"error": {"message": message, "code": None}}, status=400)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            return await self._stream(request, body)
        finally:
            self.in_flight -= 1

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if self.hang_after is not None and len(self.bodies) > self.hang_after:
            self.hanging.set()
            await asyncio.sleep(3600)
        while self.max_in_flight < self.gate:
            await asyncio.sleep(0.001)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await asyncio.sleep(self.first_delay_s)
        for event in self.events("messages" in body, body["max_tokens"]):
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            await asyncio.sleep(self.gap_s)
        if self.sends_done:
            await response.write(b"data: [DONE]\n\n")
        return response

    def events(self, chat: bool, tokens: int) -> Iterator[dict[str, Any]]:
        if chat:
            yield {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
        for first in range(0, tokens, self.tokens_per_event):
            text = "so " * min(self.tokens_per_event, tokens - first)
            yield {"choices": [{"delta": {"content": text}} if chat else {"text": text}]}
        if chat:
            yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
        if self.sends_usage:
            yield {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": tokens}}

    def run(self, loop: asyncio.AbstractEventLoop, ready: threading.Event) -> None:
        """The life of the server's thread."""
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/v1/models", self.list_models)
        app.router.add_post("/v1/completions", self.answer)
        app.router.add_post("/v1/chat/completions", self.answer)
        # A client that was interrupted leaves requests behind: they end with the connection.
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()


@pytest.fixture
def start_stub() -> Iterator[Callable[..., StubServer]]:
    running: list[tuple[asyncio.AbstractEventLoop, threading.Thread]] = []

    def start(**behaviour: Any) -> StubServer:
        stub, loop, ready = StubServer(**behaviour), asyncio.new_event_loop(), threading.Event()
        thread = threading.Thread(target=stub.run, args=(loop, ready))
        thread.start()
        running.append((loop, thread))
        assert ready.wait(10)
        return stub

    yield start
    for loop, thread in running:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
