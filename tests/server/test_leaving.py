"""Clients that leave a stream at any point of it, or hardly read it: nothing of them stays behind."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from inarch_server.service import SERVICE

from .harness import Server, eventually, messages
from .talking import WEATHER, call, talker

TURN = {"model": "standin", "messages": messages("Hi"), "stream": True}
TOOL = {"name": "weather", "input_schema": WEATHER["function"]["parameters"]}
STREAMS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": TURN | {"tools": [WEATHER]},
    "/v1/completions": {"prompt": "Hi", "stream": True},
    "/v1/responses": {"input": "Hi", "stream": True, "tools": [WEATHER["function"] | WEATHER]},
    "/v1/messages": TURN | {"max_tokens": 900_000, "tools": [TOOL]},
    "/api/chat": TURN | {"tools": [WEATHER]},
    "/generate": {"text": "Hi", "stream": True},
}
SAYS = "I look." + call("weather", city="Oslo") + "And."  # again and again
FAREWELLS = ("end", "reset")


@contextmanager
def asking(server: Server, path: str, *, receive_buffer: int | None = None) -> Iterator[Any]:
    raw = json.dumps(STREAMS[path]).encode()
    with socket.socket() as client:
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(20)
        client.connect(("127.0.0.1", server.port))
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        client.sendall(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
        yield client


def take(client: socket.socket, size: int) -> None:
    while size > 0 and (data := client.recv(size)):
        size -= len(data)


@pytest.mark.parametrize("farewell", FAREWELLS)
@pytest.mark.parametrize("path", STREAMS)
def test_a_client_may_leave_at_any_byte_of_a_stream(path: str, farewell: str) -> None:
    """Before the headers, between events and within them, in text and in calls."""
    engine = talker(SAYS, context=1_000_000)  # it will not end by itself
    engine.endless, engine.delay_s = True, 0.0005
    with Server(engine) as server:
        for size in (*range(0, 400, 40), *range(400, 6000, 233)):
            with asking(server, path) as client:
                take(client, size)
                if farewell == "reset":
                    linger = struct.pack("ii", 1, 0)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        eventually(lambda: engine.running == 0 and not server.app[SERVICE].running)
        assert len(engine.asked) > 25
        assert server.get("/health").status == 200


def test_who_reads_byte_by_byte_gets_all_of_it_while_others_do_too() -> None:
    engine = talker(SAYS * 10)

    def read(path: str) -> bytes:
        received = bytearray()
        with asking(server, path, receive_buffer=2048) as client:
            while data := client.recv(1 if len(received) < 3000 else 4096):
                received += data
        return bytes(received)

    last = {"/api/chat": b'"done":true', "/v1/messages": b'{"type":"message_stop"}'}
    last["/v1/responses"] = b'"type":"response.completed"'
    with Server(engine) as server, ThreadPoolExecutor(12) as readers:
        paths = [*STREAMS] * 4
        for path, received in zip(paths, readers.map(read, paths), strict=True):
            assert received.startswith(b"HTTP/1.1 200 ")
            assert last.get(path, b"data: [DONE]") in received
        eventually(lambda: not server.app[SERVICE].running)
        eventually(lambda: engine.running == 0)
