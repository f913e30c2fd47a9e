"""Clients that leave, stall or meet an engine in trouble: the others are served unharmed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Iterator

import openai
import pytest

from inarch.errors import InvalidRequestError
from inarch.sampling import SamplingParams
from inarch_server import body as body_module
from inarch_server.answering import sse
from inarch_server.answering.answers import Answers, Piece
from inarch_server.answering.prompts import Prompt
from inarch_server.watching.metrics import Metrics
from inarch_server.watching.stopwatch import Stopwatch

from .harness import Server, eventually, messages
from .standin import EOS, StandIn

CHAT, COMPLETIONS, GENERATE = "/v1/chat/completions", "/v1/completions", "/generate"
ENDLESS = {"prompt": "x", "max_tokens": 2000, "ignore_eos": True}


@contextlib.contextmanager
def raw_post(server: Server, path: str, body: dict, *, receive_buffer: int = 0) -> Iterator:
    """A connection that has sent a request, and does as it likes with the answer."""
    with socket.socket() as client:
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(20)
        client.connect(("127.0.0.1", server.port))
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        client.sendall(head.encode() + data)
        yield client


def aborted(server: Server) -> bool:
    return server.engine.running == 0 and server.engine.aborted > 0


def counted(server: Server, line: str) -> bool:
    return line in server.get("/metrics").body.decode().splitlines()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_its_request(server: Server, stream: bool) -> None:
    server.engine.delay_s = 0.005
    with raw_post(server, COMPLETIONS, {**ENDLESS, "stream": stream}) as client:
        if stream:
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        eventually(lambda: server.engine.running == 1)
    eventually(lambda: aborted(server))
    labels = 'endpoint="/v1/completions",method="POST",model_name="standin",status_code="499"'
    eventually(lambda: counted(server, f"sglang:http_responses_total{{{labels}}} 1.0"))


def test_a_reset_connection_frees_all_samples_of_a_batch(server: Server) -> None:
    server.engine.delay_s = 0.005
    body = {**ENDLESS, "prompt": ["x", "y", "z"], "n": 2, "stream": True}
    with raw_post(server, COMPLETIONS, body) as client:
        eventually(lambda: server.engine.running == 3)
        # Linger of 0 s: closing sends a reset instead of a proper end.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    eventually(lambda: server.engine.running == 0)
    assert server.engine.aborted == 3


def test_a_client_that_leaves_before_the_first_token_frees_its_request(server: Server) -> None:
    server.engine.delay_s = 60.0
    with raw_post(server, COMPLETIONS, {**ENDLESS, "stream": True}):
        eventually(lambda: server.engine.running == 1)
    eventually(lambda: aborted(server))


def test_a_client_that_stops_reading_is_dropped_while_others_are_served(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "STALLED_S", 0.5)
    # Native streams repeat all of the answer: some 2000 events of up to 10 kB fill every buffer.
    body = {
        "text": "\n" * 16,
        "stream": True,
        "sampling_params": {"max_new_tokens": 2000, "ignore_eos": True},
    }
    server.engine.delay_s = 0.001
    with raw_post(server, GENERATE, body, receive_buffer=4096) as stalled:
        assert stalled.recv(10)
        answer = server.post(COMPLETIONS, {"prompt": "one"})
        assert answer.json["choices"][0]["text"] == "one"
        eventually(lambda: aborted(server))
        # What it did get is cut off, and not passed off as complete.
        received = b""
        with contextlib.suppress(ConnectionError):
            while data := stalled.recv(1 << 16):
                received += data
    assert b"[DONE]" not in received


def test_what_a_slow_client_has_not_taken_waits_as_one_piece() -> None:
    engine = StandIn()

    async def take_late() -> list[Piece]:
        prompts = [Prompt(list(b"one")), Prompt(list(b"two"))]
        stopwatch = Stopwatch(Metrics(), 0.0)
        params = [SamplingParams()] * 2
        with Answers(engine, ["a", "b"], prompts, params, stopwatch) as answers:
            while engine.generated < 8:
                await asyncio.sleep(0)
            return await answers.take()

    pieces = asyncio.run(take_late())
    assert [(piece.index, piece.text, piece.token_ids[-1]) for piece in pieces] == [
        (0, "one", EOS),
        (1, "two", EOS),
    ]


def test_a_body_that_trickles_in_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_module, "BODY_TIMEOUT_S", 0.2)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        answer = client.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"did not arrive within 0.2 s" in answer


def test_a_dead_engine_is_a_503(server: Server) -> None:
    server.engine.alive = False
    for path, body in (
        (CHAT, {"messages": messages("Hi")}),
        (COMPLETIONS, {"prompt": "x", "stream": True}),
        (GENERATE, {"text": "x"}),
    ):
        answer = server.post(path, body)
        assert (answer.status, answer.error["type"]) == (503, "server_error")
        assert answer.error["code"] == "engine_dead"


def test_an_engine_that_dies_half_way_ends_the_stream_with_an_error(server: Server) -> None:
    server.engine.die_after = 2
    body = {"prompt": "one two", "stream": True}
    *chunks, error = server.post(COMPLETIONS, body).events
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "on"
    assert error["error"]["code"] == "engine_dead"
    assert server.post(COMPLETIONS, body | {"stream": False}).status == 503


def test_openais_client_raises_on_an_error_within_a_stream(server: Server) -> None:
    server.engine.fail_after = 2
    with server.openai() as client, pytest.raises(openai.APIError, match="on fire"):
        list(client.completions.create(model="standin", prompt="one two", stream=True))


def test_an_answer_that_fails_is_a_500_with_the_engines_reason(server: Server) -> None:
    server.engine.fail_after = 2
    answer = server.post(COMPLETIONS, {"prompt": "one two"})
    assert (answer.status, answer.error["code"]) == (500, "generation_failed")
    assert "on fire" in answer.error["message"]


def test_one_failing_prompt_fails_its_request_and_frees_the_others(server: Server) -> None:
    server.engine.fail_after = 4
    answer = server.post(COMPLETIONS, {"prompt": ["abc", "a longer one"]})
    assert answer.status == 500
    eventually(lambda: server.engine.running == 0)


@pytest.mark.parametrize("stream", [False, True])
def test_an_overloaded_engine_is_a_503_with_its_own_words(server: Server, stream: bool) -> None:
    server.engine.crash = InvalidRequestError("8192 wait already", status=503, code="overloaded")
    answer = server.post(COMPLETIONS, {"prompt": "one", "stream": stream})
    assert (answer.status, answer.error["code"]) == (503, "overloaded")
    assert answer.error["type"] == "server_error"


def test_an_error_nobody_foresaw_shows_an_id_and_no_secrets(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.engine.crash = ZeroDivisionError("secret")
    answer = server.post(COMPLETIONS, {"prompt": "one"}, **{"X-Request-Id": "mine-1"})
    assert answer.status == 500
    assert "mine-1" in answer.error["message"]
    assert "secret" not in answer.body.decode()
    assert "mine-1" in caplog.text
    assert "secret" in caplog.text
    assert answer.headers["X-Request-Id"] == "mine-1"


def test_every_answer_has_a_request_id(server: Server) -> None:
    ids = {server.get("/health").headers["X-Request-Id"] for _ in range(2)}
    assert len(ids) == 2
    # One that could break a header or a log line is replaced.
    assert server.get("/health", **{"X-Request-Id": "a b"}).headers["X-Request-Id"] != "a b"
