"""Clients that do not speak HTTP well, or at all: each is refused or dropped, and the next one served."""

from __future__ import annotations

import contextlib
import random
import re
import socket
from collections.abc import Iterator

import pytest

from inarch_server.service import SERVICE

from .harness import Server, eventually
from .talking import talker

BODY = b'{"prompt": "one", "max_tokens": 3}'
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
RIGHT = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with Server(talker()) as server:
        yield server


@pytest.fixture
def untroubled(shared: Server) -> Iterator[Server]:
    """When the test has done its worst, nothing is left of it, and the next client is served."""
    yield shared
    eventually(lambda: not shared.app[SERVICE].running and shared.engine.running == 0)
    assert shared.get("/health").status == 200


def converse(server: Server, raw: bytes, patience_s: float = 20.0, *, ends: bool = False) -> bytes:
    """All that comes back; `ends`: whether the client says that it sends no more."""
    received = b""
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=patience_s) as client,
        contextlib.suppress(ConnectionError, TimeoutError),
    ):
        client.sendall(raw)
        if ends:
            client.shutdown(socket.SHUT_WR)
        while data := client.recv(1 << 16):
            received += data
    return received


def statuses(received: bytes) -> list[int]:
    assert not received or received.startswith(b"HTTP/")
    return [int(status) for status in re.findall(rb"HTTP/[01]\.\d (\d{3}) ", received)]


@pytest.mark.parametrize(
    "raw",
    [
        b"\0" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x07" * 32,  # TLS
        b"HELLO\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/1.1 more\r\n\r\n",
        b"GET  /health  HTTP/1.1\r\n\r\n",
        b"G\0T /health HTTP/1.1\r\n\r\n",
        b"GET /hea\0lth HTTP/1.1\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /health HTTP/1.1\r\n: no name\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nX: a\0b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
        HEAD + b"Content-Length: x\r\n\r\n" + BODY,
        HEAD + b"Content-Length: -1\r\n\r\n" + BODY,
        HEAD + b"Content-Length: +5\r\n\r\n" + BODY,
        HEAD + b"Content-Length: 1_0\r\n\r\n" + BODY,
        HEAD + b"Content-Length: 34\r\nContent-Length: 5\r\n\r\n" + BODY,
        HEAD + b"Content-Length: 34\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY,
        HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n" + BODY,
        HEAD + b"Transfer-Encoding: gzip\r\n\r\n" + BODY,
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY,
        CHUNKED + b"zz\r\n" + BODY,
        CHUNKED + b"-1\r\n" + BODY,
        CHUNKED + b"5\r\n" + BODY,
        CHUNKED + b"f" * 5000 + b"\r\n" + BODY,
        CHUNKED + b"2\r\n{}\r\n0\r\nbad trailer\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(untroubled: Server, raw: bytes) -> None:
    asked = len(untroubled.engine.asked)
    assert statuses(converse(untroubled, raw)) == [400]
    assert len(untroubled.engine.asked) == asked


@pytest.mark.parametrize("raw", [RIGHT, CHUNKED + b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"])
def test_a_request_that_is_cut_off_anywhere_comes_to_nothing(
    untroubled: Server, raw: bytes
) -> None:
    asked = len(untroubled.engine.asked)
    for end in range(len(raw)):
        assert converse(untroubled, raw[:end], ends=True) == b""
    assert len(untroubled.engine.asked) == asked


def test_a_body_in_chunks_of_a_byte_is_read(untroubled: Server) -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY)
    assert statuses(converse(untroubled, CHUNKED + chunks + b"0\r\n\r\n", 1.0)) == [200]


def test_requests_sent_at_once_are_answered_in_their_order(untroubled: Server) -> None:
    wrong = HEAD + b"Content-Length: 2\r\n\r\n{}"
    last = GET.replace(b"Host: localhost", b"Host: localhost\r\nConnection: close")
    received = converse(untroubled, RIGHT + wrong + GET + RIGHT + last)
    assert statuses(received) == [200, 400, 200, 200, 200]


def test_chance_changes_requests_into_nothing_that_is_the_servers_fault(
    untroubled: Server,
) -> None:
    draw = random.Random(4)
    pieces = [b"\r\n", b"\0", b" ", b":", b"\xff", b"HTTP/1.1", b"chunked", b"99999", b"-", b"{"]
    seen = set()
    for _ in range(400):
        raw = bytearray(draw.choice([RIGHT, GET, CHUNKED + b"22\r\n" + BODY + b"\r\n0\r\n\r\n"]))
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(raw))
            raw[at : at + draw.randrange(4)] = draw.choice([*pieces, draw.randbytes(2)])
        for status in statuses(converse(untroubled, bytes(raw), patience_s=0.03)):
            assert status == 200 or 400 <= status < 500, bytes(raw)
            seen.add(status)
    assert {200, 400} <= seen
