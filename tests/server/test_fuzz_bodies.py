"""Ten thousand nearly right bodies, to every route that takes one: none is the server's fault."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from inarch_server.routes import ROUTES
from inarch_server.service import SERVICE

from .harness import Server, eventually, messages
from .talking import WEATHER, talker

BODIES = 10_000
AT_ONCE = 16
RIGHT: dict[str, Any] = {
    "messages": messages("Hi"),
    "input": "Hi",
    "text": "Hi",
    "prompt": "Hi",
    "tokens": [72, 105],
    "model": "standin",
    "max_tokens": 8,
    "tools": [WEATHER],
    "query": "Hi",
    "documents": ["one", "two"],
    "text_1": "Hi",
    "text_2": ["one", "two"],
    "questions": [{"type": "predicate", "instructions": "Is it?"}],
    "session_id": "none",
    "capacity_of_str_len": 100,
}


class Bodies:
    """Bodies for one route: right, then some fields set to what its schema's words can be put to."""

    def __init__(self, path: str, schema: dict[str, Any], words: list[str], seed: int) -> None:
        self._path, self._words = path, words
        self._fields = sorted(schema["properties"])
        self._right = {name: RIGHT[name] for name in self._fields if name in RIGHT}
        if path.endswith("/score"):
            self._right.pop("query")  # or texts in pairs: one of them
        if path.endswith("tokenize") or path.endswith("/generate"):
            self._right.pop("messages", None)  # or a prompt: one of them
        self._random = random.Random(f"{path} {seed}")

    def one(self) -> bytes:
        draw = self._random
        changed = {draw.choice(self._fields): self._value(3) for _ in range(draw.randrange(4))}
        raw = json.dumps(self._right | changed).encode()
        if draw.random() < 0.1:
            at = draw.randrange(len(raw))
            raw = raw[:at] + draw.randbytes(draw.randrange(3)) + raw[at + draw.randrange(4) :]
        return raw

    def _value(self, depth: int) -> Any:
        draw = self._random
        if depth and draw.random() < 0.4:
            size = draw.randrange(4)
            if draw.random() < 0.4:
                return [self._value(depth - 1) for _ in range(size)]
            return {draw.choice(self._words): self._value(depth - 1) for _ in range(size)}
        return draw.choice(
            [
                *(None, True, False, 0, 1, -1, 2, 7, 300, 2**31, 2**63, 10**30, 0.5, -1.5, 1e308),
                *("", "x", "\0", "ü\U0001f600", "[a-z]+", "(", "{", "x" * 300, '{"a": 1}'),
                *(draw.choice(self._words) for _ in range(12)),
                *RIGHT.values(),
            ]
        )


def sources(document: dict[str, Any]) -> Iterator[tuple[str, Bodies]]:
    schemas = document["components"]["schemas"]
    words = sorted(set(re.findall(r'"(\w+)"', json.dumps(schemas))))
    for route in ROUTES:
        if route.body is not None:
            schema = schemas[route.body.__name__]
            yield route.path, Bodies(route.path, schema, words, seed=1)


async def send_all(server: Server, bodies: list[tuple[str, bytes]]) -> list[str]:
    """What was wrong with the answers."""
    wrong = []
    waiting = iter(bodies)

    async def send(session: aiohttp.ClientSession) -> None:
        for path, raw in waiting:
            async with session.post(server.url + path, data=raw) as answer:
                text = (await answer.read()).decode()
                # 504: it asked for less time than that takes.
                if answer.status not in (200, 400, 404, 504):
                    wrong.append(f"{path} {raw!r}: {answer.status} {text}")
                elif answer.status != 200 and not json.loads(text)["error"]:
                    wrong.append(f"{path} {raw!r}: no reason")

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session:
        await asyncio.gather(*(send(session) for _ in range(AT_ONCE)))
    return wrong


def test_no_body_is_the_servers_fault(caplog: pytest.LogCaptureFixture) -> None:
    engine = talker(
        'Hm</think><tool_call>\n{"name": "weather", "arguments": {"city": [1',
        reasons=True,
        context=200,
    )
    with Server(engine) as server:
        routes = list(sources(server.get("/openapi.json").json))
        bodies = [(path, some.one()) for path, some in routes for _ in range(BODIES // len(routes))]
        random.Random(1).shuffle(bodies)
        assert asyncio.run(send_all(server, bodies)) == []
        eventually(lambda: engine.running == 0 and not server.app[SERVICE].running)
        assert engine.asked, "some of them must have been right"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
