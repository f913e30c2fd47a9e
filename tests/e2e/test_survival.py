"""What clients notice when processes of a server die, hang or are replaced: a pause, and no more."""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from .process import PATIENCE_S, ServerProcess, eventually, sockets

LONG = {"max_tokens": 120, "ignore_eos": True}
ITEM = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green", "blue"]}, "name": {"type": "string"}},
    "required": ["colour", "name"],
}
MANY = {"type": "array", "items": ITEM, "minItems": 8}
PAINT = {"type": "object", "properties": {"items": MANY}, "required": ["items"]}
# Whatever the engine must know of the tokens so far, to go on as if it had made them itself.
KINDS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 1.0, "seed": 7},
    {"temperature": 0.8, "seed": 11, "n": 3},
    {"temperature": 0, "logprobs": 2},
    {"temperature": 0, "repetition_penalty": 1.3},
    {"temperature": 1.0, "seed": 5, "presence_penalty": 1.0, "frequency_penalty": 0.5, "n": 2},
    {"temperature": 1.0, "seed": 6, "min_tokens": 60, "ignore_eos": False},
    {"temperature": 0, "ignore_eos": False, "stop": [" the"], "min_tokens": 30},
    {"temperature": 1.5, "seed": 8, "json_schema": MANY},
    {
        "temperature": 0.9,
        "seed": 9,
        "tools": [{"type": "function", "function": {"name": "paint", "parameters": PAINT}}],
        "tool_choice": "required",
    },
]


def ask(server: ServerProcess, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The choices of a streamed answer; raises if the connection ends before the answer does."""
    chat = "tools" in body
    if chat:
        body = {**body, "messages": [{"role": "user", "content": body["prompt"]}]}
        del body["prompt"]
    path = "/v1/chat/completions" if chat else "/v1/completions"
    connection = server.send("POST", path, {"stream": True, **body})
    try:
        response = connection.getresponse()
        assert response.status == 200, response.read()
        blocks = response.read().decode().split("\n\n")
    finally:
        connection.close()
    if blocks[-2:] != ["data: [DONE]", ""]:
        raise ConnectionError("the answer is not complete")
    choices: dict[int, dict[str, Any]] = {}
    for block in blocks[:-2]:
        event = json.loads(block.removeprefix("data: "))
        for new in event["choices"]:
            choice = choices.setdefault(new["index"], {"text": "", "tokens": [], "logprobs": []})
            choice["text"] += _called(new["delta"]) if chat else new["text"]
            choice["finish_reason"] = new["finish_reason"]
            if new.get("logprobs"):
                choice["tokens"] += new["logprobs"]["tokens"]
                choice["logprobs"] += new["logprobs"]["token_logprobs"]
    return [choices[index] for index in sorted(choices)]


def _called(delta: dict[str, Any]) -> str:
    """What a part of a chat says; each call has an id of its own, whoever computes it."""
    calls = [call["function"] for call in delta.get("tool_calls", ())]
    parts = [call.get("name", "") + call["arguments"] for call in calls]
    return (delta.get("content") or "") + "".join(parts)


def assert_same(answers: list[Any], expected: list[Any]) -> None:
    for answer, wanted in zip(answers, expected, strict=True):
        for got, want in zip(answer, wanted, strict=True):
            assert got.pop("logprobs") == pytest.approx(want["logprobs"], abs=1e-3)
            assert got == {key: want[key] for key in got}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """Rounding hides in float32, in whatever batch a token is computed."""
    options = ("--api-workers", "2", "--dtype", "float32", "--engine-timeout", "4")
    with ServerProcess(*options) as process:
        yield process


@pytest.fixture(scope="module")
def asked(server: ServerProcess) -> list[dict[str, Any]]:
    return [
        {"prompt": f"{number} Once upon a time", **LONG, **kind}
        for number, kind in enumerate(islice(cycle(KINDS), 24))
    ]


@pytest.fixture(scope="module")
def undisturbed(server: ServerProcess, asked: list[dict[str, Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(lambda body: ask(server, body), asked))


def under_way(server: ServerProcess, tokens: int) -> None:
    """Wait until the engine that is there has made so many tokens."""
    eventually(lambda: _tokens(server) >= tokens)


def _tokens(server: ServerProcess) -> float:
    _, text = server.ask("GET", "/metrics")
    found = [
        line for line in text.splitlines() if line.startswith("sglang:generation_tokens_total")
    ]
    return float(found[0].split()[1]) if found else -1.0


def test_an_engine_killed_again_and_again_changes_no_answer(
    server: ServerProcess, undisturbed: list[Any], asked: list[dict[str, Any]]
) -> None:
    os.kill(server.engine, signal.SIGKILL)
    with ThreadPoolExecutor(len(asked)) as pool:
        futures = [pool.submit(ask, server, body) for body in asked]
        for tokens in (100, 400, 500):
            under_way(server, tokens)
            os.kill(server.engine, signal.SIGKILL)
        assert_same([future.result() for future in futures], undisturbed)
    eventually(lambda: _deaths(server) >= 4)


def test_health_tells_that_an_engine_is_being_started(server: ServerProcess) -> None:
    os.kill(server.engine, signal.SIGKILL)
    eventually(lambda: server.ask("GET", "/health")[0] == 503)
    eventually(lambda: server.ask("GET", "/health")[0] == 200)


def test_an_engine_that_hangs_is_replaced(
    server: ServerProcess, undisturbed: list[Any], asked: list[dict[str, Any]]
) -> None:
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(ask, server, body) for body in asked[:4]]
        hung = server.engine
        os.kill(hung, signal.SIGSTOP)
        assert_same([future.result() for future in futures], undisturbed[:4])
    assert server.engine != hung


def test_a_front_end_that_dies_costs_its_own_connections_alone(
    server: ServerProcess, undisturbed: list[Any], asked: list[dict[str, Any]]
) -> None:
    victim, other = server.front_ends
    with ThreadPoolExecutor(len(asked)) as pool:
        futures = [pool.submit(_or_lost, server, body) for body in asked]
        eventually(
            lambda: (
                _connections(victim) + _connections(other) >= len(asked)
                or any(future.done() for future in futures)
            )
        )
        os.kill(victim, signal.SIGSTOP)  # so that no more come while they are counted
        lost = _connections(victim)
        os.kill(victim, signal.SIGKILL)
        answers = [future.result() for future in futures]
    assert answers.count(None) <= lost
    kept = [index for index, answer in enumerate(answers) if answer is not None]
    assert len(kept) >= len(asked) - lost
    assert_same([answers[index] for index in kept], [undisturbed[index] for index in kept])
    eventually(lambda: server.metric("sglang:num_running_reqs") == 0)
    eventually(lambda: len(server.front_ends) == 2)


def _or_lost(server: ServerProcess, body: dict[str, Any]) -> Any:
    try:
        return ask(server, body)
    except (ConnectionError, http.client.HTTPException):
        return None


def _connections(pid: int) -> int:
    """TCP connections of clients that a process holds: its sockets but for those it was born with."""
    mine = sockets(pid)
    listed = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(f"socket:[{fields[9]}]" in mine for fields in listed if fields[3] == "01")


def test_a_front_end_that_dies_leaves_nothing_running(server: ServerProcess) -> None:
    endless = {"prompt": "x", "max_tokens": 1900, "ignore_eos": True, "n": 4, "stream": True}
    connections = [server.send("POST", "/v1/completions", endless) for _ in range(4)]
    for connection in connections:
        assert connection.getresponse().read(1)
    for pid in server.front_ends:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: _connects(server) and server.metric("sglang:num_running_reqs") == 0)
    for connection in connections:
        connection.close()
    eventually(lambda: len(server.front_ends) == 2)


def _connects(server: ServerProcess) -> bool:
    try:
        return server.ask("GET", "/health")[0] == 200
    except (ConnectionError, http.client.HTTPException):
        return False


def test_all_processes_are_replaced_under_load_and_nobody_notices(
    server: ServerProcess, undisturbed: list[Any], asked: list[dict[str, Any]]
) -> None:
    before = {server.engine, *server.front_ends}
    over = threading.Event()
    with ThreadPoolExecutor(len(asked) + 4) as pool:
        futures = [pool.submit(ask, server, body) for body in asked]
        kept = [pool.submit(_ask_on_one_connection, server, over) for _ in range(4)]
        try:
            server.signal(signal.SIGHUP)
            eventually(lambda: len(server.front_ends) > 2)
            server.signal(signal.SIGHUP)  # which changes nothing
            eventually(lambda: not before & set(server.front_ends) or not _knock(server))
            eventually(lambda: not before & {server.engine, *server.front_ends})
        finally:
            over.set()
        assert_same([future.result() for future in futures], undisturbed)
        assert all(future.result() for future in kept)
    eventually(lambda: "being replaced already" in server.output)
    assert len(server.front_ends) == 2


def _ask_on_one_connection(server: ServerProcess, over: threading.Event) -> bool:
    """Ask again and again, on a new connection only where the answer said that this one closes."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    body = json.dumps({"prompt": "x", "max_tokens": 8, "ignore_eos": True, "stream": True})
    while not over.is_set():
        connection.request("POST", "/v1/completions", body.encode())
        response = connection.getresponse()
        assert (response.status, response.read()[-8:]) == (200, b"[DONE]\n\n")
    connection.close()
    return True


def _knock(server: ServerProcess) -> bool:
    """A new connection for a new request, as long as processes are replaced."""
    assert server.ask("GET", "/v1/models")[0] == 200
    return True


def test_two_thousand_idle_connections_are_in_nobodys_way(server: ServerProcess) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2000)]
    try:
        assert ask(server, {"prompt": "Once", "max_tokens": 5})
        held = [_connections(pid) for pid in server.front_ends]
        assert sum(held) >= 2000
        assert min(held) > 100, "both front ends take their part"
    finally:
        for connection in idle:
            connection.close()


POISON, FRAGILE = 2000, Path(__file__).parent / "fragile"


@pytest.fixture(scope="module")
def fragile() -> Iterator[ServerProcess]:
    """A server whose engine dies of a request that has a bias for the token POISON."""
    paths = (str(FRAGILE), str(FRAGILE / "installed"), os.environ.get("PYTHONPATH", ""))
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "FRAGILE_TOKEN": str(POISON)}
    options = ("--backend", "fragile", "--dtype", "float32", "--api-workers", "2")
    with ServerProcess(*options, environment=environment) as server:
        yield server


def _deaths(server: ServerProcess) -> int:
    return server.output.count("the engine is gone")


def poison(server: ServerProcess, prompt: str, token: int = POISON) -> tuple[int, Any]:
    body = {"prompt": prompt, "logit_bias": {str(token): 1}}
    status, answer = server.ask("POST", "/v1/completions", body)
    return status, answer.get("error", {}).get("code")


def test_only_the_request_that_kills_engines_is_refused(fragile: ServerProcess) -> None:
    body = {"prompt": "Once upon a time", "temperature": 0, "max_tokens": 400, "ignore_eos": True}
    expected = ask(fragile, body)
    with ThreadPoolExecutor(8) as pool:
        bystanders = [pool.submit(ask, fragile, body) for _ in range(6)]
        eventually(lambda: fragile.metric("sglang:num_running_reqs") == 6)
        assert poison(fragile, "x") == (500, "poison_request")
        assert [future.result() for future in bystanders] == [expected] * 6
    # Two made it a suspect among others; of one it died alone.
    eventually(lambda: _deaths(fragile) == 3)
    # Clients like to try again, and may reach another front end: that costs no engine.
    for _ in range(6):
        assert poison(fragile, "x") == (500, "poison_request")
    assert _deaths(fragile) == 3


def test_a_request_that_is_alone_when_it_kills_two_engines_is_refused(
    fragile: ServerProcess,
) -> None:
    before = _deaths(fragile)
    assert poison(fragile, "y") == (500, "poison_request")
    eventually(lambda: _deaths(fragile) == before + 2)
    assert ask(fragile, {"prompt": "x", "max_tokens": 3})


def test_a_kernel_that_raises_in_a_step_is_named_and_costs_no_other_request(
    fragile: ServerProcess,
) -> None:
    assert poison(fragile, "z", POISON + 1) == (500, "poison_request")
    whose = "the engine ends (raised in plugin fragile of inarch-fragile 1.0)"
    eventually(lambda: fragile.output.count(whose) == 2)
    assert "RuntimeError: the chip is on fire" in fragile.output
    assert ask(fragile, {"prompt": "x", "max_tokens": 3})
