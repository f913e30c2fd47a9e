"""One process of the load generator: sends its requests, streams the answers, notes the times.

The client must not be the bottleneck: an event costs one typed JSON decode (about a microsecond),
and nothing is computed from the times before the run is over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
import msgspec

from inarch.bench.record import Record
from inarch.bench.workload import BenchRequest

Endpoint = Literal["completions", "chat"]

PATHS: dict[Endpoint, str] = {
    "completions": "/v1/completions",
    "chat": "/v1/chat/completions",
}
READ_BUFFER = 1 << 20  # bytes; small ones make aiohttp pause and resume the socket
# Many servers close idle connections after 5 s; reusing one at that moment would fail the request.
KEEPALIVE_S = 2.0
SHOWN_ERROR = 300  # characters


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go, and what all of them have in common."""

    url: str  # the server, without /v1
    endpoint: Endpoint
    body: dict[str, Any]  # fields of every request
    headers: dict[str, str]
    timeout_s: float


class Delta(msgspec.Struct):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Choice(msgspec.Struct):
    text: str | None = None
    delta: Delta | None = None
    finish_reason: str | None = None

    def carries_text(self) -> bool:
        """Whether this is output, rather than the role header or the end of a chat answer.

        Output may be empty: a server that holds back half a character still made a token.
        """
        if self.delta is None:
            return self.text is not None
        pieces = (self.delta.content, self.delta.reasoning_content, self.delta.reasoning)
        if any(pieces):
            return True
        header_or_end = self.delta.role is not None or self.finish_reason is not None
        return not header_or_end and any(piece is not None for piece in pieces)


class Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Chunk(msgspec.Struct):
    """The fields of a streamed event that matter here."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None


_decode_chunk = msgspec.json.Decoder(Chunk).decode


@dataclass(slots=True, eq=False)
class Reply:
    """A streamed answer as it arrives."""

    text_s: list[float] = field(default_factory=list)
    usage: Usage | None = None
    done: bool = False
    error: str | None = None
    _rest: bytes = b""

    def feed(self, data: bytes, now_s: float) -> None:
        """Take the next bytes of the stream; an event may be split over several calls."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line.startswith(b"data:"):
                self._take(line[5:], now_s)

    def _take(self, payload: bytes, now_s: float) -> None:
        if payload.strip() == b"[DONE]":
            self.done = True
            return
        try:
            chunk = _decode_chunk(payload)
        except msgspec.DecodeError as error:
            self.error = self.error or f"unreadable event {_shorten(payload)}: {error}"
            return
        if chunk.error is not None:
            self.error = self.error or f"error in the stream: {error_text(payload)}"
        self.usage = chunk.usage or self.usage
        if any(choice.carries_text() for choice in chunk.choices):
            self.text_s.append(now_s)

    def close(self) -> None:
        """Judge the stream once it has ended."""
        if self.error is None and not self.done and self.usage is None:
            self.error = "the stream ended early, without [DONE]"
        if self.error is None and not self.text_s:
            self.error = "the answer holds no text"


def request_body(target: Target, request: BenchRequest) -> bytes:
    """The JSON of one request; a common field set to None is left out."""
    body: dict[str, Any] = {"max_tokens": request.output_len, **target.body}
    if target.endpoint == "completions":
        body["prompt"] = request.prompt
    elif isinstance(request.prompt, str):
        body["messages"] = [{"role": "user", "content": request.prompt}]
    else:
        body["messages"] = request.prompt
    return msgspec.json.encode({key: value for key, value in body.items() if value is not None})


def open_session(target: Target) -> aiohttp.ClientSession:
    """A session without a limit on connections: the load generator alone decides how many."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
        timeout=aiohttp.ClientTimeout(total=target.timeout_s),
        headers={"Content-Type": "application/json", **target.headers},
        read_bufsize=READ_BUFFER,
    )


async def send(
    session: aiohttp.ClientSession,
    target: Target,
    request: BenchRequest,
    start: float,
    reply: Reply,
) -> Record:
    """Send one request and follow its answer to the end; a failure is noted in the record.

    `start` is the zero of the record's times on `time.perf_counter`.
    """
    sent_s = time.perf_counter() - start
    try:
        await _stream(session, target, request, start, reply)
        reply.close()
    except TimeoutError:
        reply.error = f"no complete answer within {target.timeout_s:g} s (--timeout)"
    except (aiohttp.ClientError, OSError) as error:
        reply.error = f"{type(error).__name__}: {_shorten(str(error))}"
    usage = reply.usage
    return Record(
        index=request.index,
        due_s=request.offset_s,
        sent_s=sent_s,
        text_s=tuple(reply.text_s),
        input_tokens=usage.prompt_tokens if usage else request.input_len,
        output_tokens=usage.completion_tokens if usage else len(reply.text_s),
        wanted_tokens=request.output_len,
        counted=usage is not None,
        error=reply.error,
    )


async def _stream(
    session: aiohttp.ClientSession,
    target: Target,
    request: BenchRequest,
    start: float,
    reply: Reply,
) -> None:
    url = target.url + PATHS[target.endpoint]
    async with session.post(url, data=request_body(target, request)) as response:
        if response.status != 200:
            reply.error = f"HTTP {response.status}: {error_text(await response.read())}"
            return
        async for data in response.content.iter_any():
            reply.feed(data, time.perf_counter() - start)


async def drive(
    target: Target,
    take: Callable[[], BenchRequest | None],
    slots: int,
    start: float,
    emit: Callable[[Record], None],
    live: set[Reply],
) -> None:
    """Send what `take` hands out until it is None, at most `slots` at a time, none before its time.

    `live` holds the answers in flight, for whoever watches.
    """

    async def slot(session: aiohttp.ClientSession) -> None:
        while (request := take()) is not None:
            await asyncio.sleep(max(0.0, start + request.offset_s - time.perf_counter()))
            reply = Reply()
            live.add(reply)
            emit(await send(session, target, request, start, reply))
            live.discard(reply)

    async with open_session(target) as session, asyncio.TaskGroup() as group:
        for _ in range(slots):
            group.create_task(slot(session))


def error_text(body: bytes) -> str:
    """The message in an error body, whichever of the usual places it is in."""
    try:
        value = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return _shorten(body)
    while isinstance(value, dict):
        value = next((value[key] for key in ("error", "message", "detail") if key in value), None)
    return _shorten(value) if isinstance(value, str) else _shorten(body)


def _shorten(text: str | bytes) -> str:
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_ERROR else line[: SHOWN_ERROR - 3] + "..."
