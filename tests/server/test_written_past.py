"""Most tokens of a stream are written past its task and past aiohttp: on the wire nobody can tell."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from typing import Any

from inarch.sampling import SamplingParams
from inarch_server.answering.answers import Answers
from inarch_server.answering.prompts import Prompt
from inarch_server.watching.metrics import Metrics
from inarch_server.watching.stopwatch import Stopwatch

from .harness import PATIENCE_S, Server
from .test_merged_events import Scripted

TEXT = "one two three é 💡 " * 8


def raw(server: Server, path: str, version: str, body: dict[str, Any]) -> tuple[bytes, bytes]:
    """Head and body of an answer, as they are on the wire until the connection ends."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        with connection.makefile("rb") as file:
            got, _, answer = file.read().partition(b"\r\n\r\n")
    return got, answer


def without_chunks(body: bytes) -> bytes:
    """What chunked encoding holds; each chunk must be as long as it says, and only the last empty."""
    whole = b""
    while True:
        size, body = re.fullmatch(rb"([0-9a-f]+)\r\n(.*)", body, re.DOTALL).groups()  # type: ignore[union-attr]
        length = int(size, 16)
        assert body[length : length + 2] == b"\r\n"
        whole, body = whole + body[:length], body[length + 2 :]
        if not length:
            assert body == b""
            return whole


def said(events: bytes) -> str:
    *blocks, done, rest = events.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return "".join(json.loads(b.removeprefix("data: "))["choices"][0]["text"] for b in blocks)


def test_a_stream_is_chunked_or_not_as_its_version_of_http_has_it(server: Server) -> None:
    server.engine.delay_s = 0.001
    body = {"prompt": TEXT, "max_tokens": 2000, "stream": True}
    head, answer = raw(server, "/v1/completions", "1.1", body)
    assert b"transfer-encoding: chunked" in head.lower()
    assert said(without_chunks(answer)) == TEXT
    head, answer = raw(server, "/v1/completions", "1.0", body)
    assert b"transfer-encoding" not in head.lower()
    assert said(answer) == TEXT


def test_tokens_that_make_no_event_do_not_end_the_stream(server: Server) -> None:
    server.engine.delay_s, server.engine.says = 0.001, "é💡" * 20  # a token is a byte of these
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1000, "stream": True}
    _, answer = raw(server, "/v1/messages", "1.1", body)
    texts = re.findall(r'"text":"([^"]+)"', without_chunks(answer).decode())
    assert "".join(texts) == server.engine.says


def test_nothing_is_written_past_a_task_that_was_cancelled() -> None:
    """It may have ended the response by then."""

    async def written() -> list[int]:
        engine, found = Scripted(), []

        def write() -> bool:
            found.append(len(answers.take_now()))
            return True

        prompts, stopwatch = [Prompt(list(b"x"), "x")], Stopwatch(Metrics(), 0.0)
        with Answers(engine, ["a"], prompts, [SamplingParams()], stopwatch) as answers:  # type: ignore[arg-type]
            answers.write_past(write)
            waiting = asyncio.create_task(answers.wait())
            await asyncio.sleep(0)
            engine.say([(0, ord("a"))])
            await asyncio.sleep(0)
            engine.say([(0, ord("b"))])
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        return found

    assert asyncio.run(written()) == [1]
