"""Clients that leave at any point, on the bundled model: requests end and their KV pages come back."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from .process import PATIENCE_S, ServerProcess, eventually

TURN = {"model": "inarch-tiny", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
STREAMS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": TURN | {"max_tokens": 1500, "ignore_eos": True},
    "/v1/messages": TURN | {"max_tokens": 1500, "ignore_eos": True},
    "/generate": {
        "text": "Hi",
        "stream": True,
        "sampling_params": {"max_new_tokens": 1500, "ignore_eos": True},
    },
}


@pytest.mark.parametrize("path", STREAMS)
def test_nothing_is_held_for_those_who_left(server: ServerProcess, path: str) -> None:
    raw = json.dumps(STREAMS[path]).encode()
    for size in range(0, 3000, 150):
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as client:
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n"
            client.sendall(head.encode() + raw)
            while size > 0:
                received = client.recv(size)
                assert received, "the stream ended before the client left"
                size -= len(received)

    def at_rest() -> bool:
        _, live = server.ask("GET", "/live")
        engine = live["engine"]  # None: too busy to answer in time
        return engine is not None and (
            engine["running"],
            engine["waiting"],
            engine["kv_pages_used"],
        ) == (0, 0, 0)

    eventually(at_rest)
