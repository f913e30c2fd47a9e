"""From the port to the last answer: how a server starts and how it stops."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from inarch.config import EngineConfig
from inarch.errors import ConfigError, EngineDeadError
from inarch_server.process.listening import bind
from inarch_server.process.serve import serve
from inarch_server.process.stopping import Stop

from .harness import PATIENCE_S, eventually
from .standin import StandIn

ENDLESS = {"prompt": "x", "max_tokens": 2000, "ignore_eos": True}


class Life:
    """`serve` in a thread, with the user's part played by the test."""

    def __init__(self, engine: StandIn, **config: Any) -> None:
        self.engine, self.config = engine, EngineConfig(host="127.0.0.1", port=0, **config)
        self.listener = bind(self.config.host, self.config.port)
        self.port = self.listener.getsockname()[1]
        self.ended: Future[None] = Future()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(PATIENCE_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
            self.ended.set_result(None)
        except Exception as error:
            self.ended.set_exception(error)

    async def _serve(self) -> None:
        self._loop, self.stop = asyncio.get_running_loop(), Stop(self.config.drain_timeout)
        self._started.set()
        with self.listener:
            await serve(
                self.engine, self.config, self.listener, self.stop, ready=print, draining=print
            )

    def ask_to_stop(self) -> None:
        self._loop.call_soon_threadsafe(self.stop.ask)

    def end(self) -> None:
        """Wait for the end; raises what `serve` raised."""
        self._thread.join(PATIENCE_S)
        self.ended.result(PATIENCE_S)

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        connection.connect()
        return connection

    def listens(self) -> bool:
        try:
            connection = self.connect()
        except ConnectionRefusedError:
            return False
        connection.request("GET", "/v1/models")
        connection.getresponse().read()
        connection.close()
        return True


def post(connection: http.client.HTTPConnection, body: dict[str, Any]) -> None:
    connection.request("POST", "/v1/completions", json.dumps(body).encode())


@pytest.fixture
def engine() -> StandIn:
    return StandIn()


def test_running_requests_are_finished_and_new_clients_refused(engine: StandIn) -> None:
    life = Life(engine)
    eventually(life.listens)
    engine.delay_s = 0.1
    connection, idle = life.connect(), life.connect()
    post(connection, {"prompt": "the answer"})
    eventually(lambda: engine.running == 1)
    life.ask_to_stop()
    eventually(lambda: life.listener.fileno() == -1)
    assert engine.running == 1
    assert not life.listens()
    engine.delay_s = 0.0
    answer = json.loads(connection.getresponse().read())
    assert answer["choices"][0]["text"] == "the answer"
    life.end()
    assert idle.sock.recv(1) == b""
    connection.close(), idle.close()


def test_a_stream_goes_on_to_its_end(engine: StandIn) -> None:
    life = Life(engine)
    eventually(life.listens)
    engine.delay_s = 0.02
    connection = life.connect()
    post(connection, {"prompt": "the answer", "stream": True})
    response = connection.getresponse()
    life.ask_to_stop()
    assert response.read().endswith(b"data: [DONE]\n\n")
    life.end()
    connection.close()


def test_who_is_about_to_ask_a_front_end_that_retires_is_answered(
    engine: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inarch_server.process.serve.HAND_OVER_S", PATIENCE_S)
    life = Life(engine)
    eventually(life.listens)
    connection = life.connect()
    connection.request("GET", "/v1/models")
    assert connection.getresponse().read()
    life.stop.patience_s = None
    life.ask_to_stop()
    eventually(lambda: life.listener.fileno() == -1)
    post(connection, {"prompt": "the answer"})
    response = connection.getresponse()
    assert (response.status, response.headers["Connection"]) == (200, "close")
    assert json.loads(response.read())["choices"][0]["text"] == "the answer"
    life.ask_to_stop()
    life.end()
    connection.close()


@pytest.mark.parametrize("impatient", [False, True], ids=["drain timeout", "second signal"])
def test_patience_ends_by_timeout_or_when_the_user_insists(
    engine: StandIn, impatient: bool
) -> None:
    life = Life(engine, drain_timeout=60.0 if impatient else 0.2)
    eventually(life.listens)
    engine.delay_s = 0.02
    connection = life.connect()
    post(connection, ENDLESS)
    eventually(lambda: engine.running == 1)
    life.ask_to_stop()
    if impatient:
        life.ask_to_stop()
    life.end()
    assert (engine.running, engine.aborted) == (0, 1)
    connection.close()


def test_a_stream_that_is_cut_short_says_so(engine: StandIn) -> None:
    life = Life(engine, drain_timeout=0.2)
    eventually(life.listens)
    engine.delay_s = 0.02
    connection = life.connect()
    post(connection, {**ENDLESS, "stream": True})
    response = connection.getresponse()
    life.ask_to_stop()
    *_, error, done, _ = response.read().decode().split("\n\n")
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "server_stopping"
    assert done == "data: [DONE]"
    life.end()
    connection.close()


def test_nobody_is_let_in_before_a_token_was_made(engine: StandIn) -> None:
    engine.fail_after = 0
    life = Life(engine)
    with pytest.raises(EngineDeadError, match="on fire"):
        life.end()
    assert not life.listens()


def test_the_banner_says_where_and_what(
    engine: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    life = Life(engine)
    eventually(life.listens)
    life.ask_to_stop()
    life.end()
    shown = capsys.readouterr().out
    for part in (
        f"http://127.0.0.1:{life.port}",
        "standin",
        "none",
        "float32",
        "8,192 tokens in float8_e4m3fn",
    ):
        assert part in shown


def test_the_banner_tells_of_quantized_weights(capsys: pytest.CaptureFixture[str]) -> None:
    life = Life(StandIn(weights="int4, a scale for each 32 inputs"))
    eventually(life.listens)
    life.ask_to_stop()
    life.end()
    shown = capsys.readouterr().out
    assert "none on none, float32, weights in int4, a scale for each 32 inputs\n" in shown


def test_a_port_in_use_is_an_error_that_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}: Address already in use.*--port"):
            bind("127.0.0.1", port)


def test_a_host_that_is_not_ours_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"listen on no\.such\.host\.invalid.*--host"):
        bind("no.such.host.invalid", 0)


def test_ipv6_addresses_work(engine: StandIn) -> None:
    with bind("::1", 0) as listener:
        assert listener.family == socket.AF_INET6
