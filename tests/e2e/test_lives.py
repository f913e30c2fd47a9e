"""How `inarch serve` starts, stops, and bears the loss of its engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

from .process import INARCH, ServerProcess, eventually

LONG_STREAM = {"prompt": "Once", "max_tokens": 200, "ignore_eos": True, "stream": True}


def test_sigterm_lets_a_stream_finish_and_leaves_no_process_behind() -> None:
    with ServerProcess() as server:
        engine = server.engine
        connection = server.send("POST", "/v1/completions", LONG_STREAM)
        response = connection.getresponse()
        server.signal(signal.SIGTERM)
        *_, last, done, _ = response.read().decode().split("\n\n")
        connection.close()
        assert done == "data: [DONE]"
        choice = json.loads(last.removeprefix("data: "))["choices"][0]
        assert choice["finish_reason"] == "length"
        assert server.wait() == 0
    assert not Path(f"/proc/{engine}").exists()


def test_a_second_signal_stops_at_once() -> None:
    with ServerProcess("--drain-timeout", "600") as server:
        endless = {**LONG_STREAM, "max_tokens": 1_000_000}
        connection = server.send("POST", "/v1/completions", endless)
        assert connection.getresponse().read(10)
        server.signal(signal.SIGINT)
        eventually(lambda: "a second signal stops at once" in server.output)
        server.signal(signal.SIGINT)
        assert server.wait() == 0
        connection.close()


def test_an_engine_does_not_outlive_its_server() -> None:
    with ServerProcess() as server:
        engine = server.engine
        os.kill(server.pid, signal.SIGKILL)
        server.expected_exit = -signal.SIGKILL
        eventually(lambda: not Path(f"/proc/{engine}").exists() or _is_gone(engine))


def test_an_engine_that_works_does_not_outlive_its_server_either() -> None:
    with ServerProcess() as server:
        engine = server.engine
        endless = {
            "prompt": [5] * 40,
            "max_tokens": 1900,
            "n": 64,
            "ignore_eos": True,
            "stream": True,
        }
        connection = server.send("POST", "/v1/completions", endless)
        connection.getresponse().read(1)
        os.kill(server.pid, signal.SIGKILL)
        server.expected_exit = -signal.SIGKILL
        eventually(lambda: not Path(f"/proc/{engine}").exists() or _is_gone(engine))
        connection.close()


def _is_gone(pid: int) -> bool:
    """Ended, though nobody has asked for its exit code yet."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_a_prompt_longer_than_the_kv_memory_is_a_400() -> None:
    with ServerProcess("--kv-tokens", "256", "--page-size", "16") as server:
        status, answer = server.ask("POST", "/v1/completions", {"prompt": [5] * 400})
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
        assert "400 tokens" in answer["error"]["message"]
        # What fits is served, and more of it than fits at once too.
        body = {"prompt": [[5] * 100] * 8, "max_tokens": 40, "ignore_eos": True}
        assert server.post("/v1/completions", body)["usage"]["completion_tokens"] == 320


def _fails(*arguments: str) -> str:
    """What `inarch serve` prints when it cannot start."""
    command = [INARCH, "serve", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_port_in_use_is_told_before_the_model_is_loaded(server: ServerProcess) -> None:
    message = _fails("/no/such/model", "--port", str(server.port))
    assert f"port {server.port}: Address already in use" in message
    assert "--port" in message


def test_a_model_that_is_not_there_is_a_sentence_not_a_traceback() -> None:
    assert "/no/such/model" in _fails("/no/such/model", "--port", "0")
