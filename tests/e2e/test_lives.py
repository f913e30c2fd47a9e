"""How `inarch serve` starts, stops, and bears the loss of its engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

from .process import INARCH, ServerProcess, eventually, sockets

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


def test_a_stream_on_a_front_end_that_retires_is_finished_before_the_server_stops() -> None:
    with ServerProcess() as server:
        (old,) = server.front_ends
        connection = server.send("POST", "/v1/completions", {**LONG_STREAM, "max_tokens": 1500})
        response = connection.getresponse()
        assert response.read(1)
        server.signal(signal.SIGHUP)
        eventually(lambda: len(server.front_ends) == 2)
        eventually(lambda: not _listens(old))
        server.signal(signal.SIGTERM)
        *_, last, done, _ = response.read().decode().split("\n\n")
        connection.close()
        assert done == "data: [DONE]"
        choice = json.loads(last.removeprefix("data: "))["choices"][0]
        assert choice["finish_reason"] == "length"


def _listens(pid: int) -> bool:
    """Whether a process holds a socket that takes connections."""
    listed = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {f"socket:[{fields[9]}]" for fields in listed if fields[3] == "0A"}
    return not listening.isdisjoint(sockets(pid))


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


def test_no_process_outlives_its_server() -> None:
    with ServerProcess("--api-workers", "2") as server:
        others = [server.engine, *server.front_ends]
        assert len(others) == 3
        os.kill(server.pid, signal.SIGKILL)
        server.expected_exit = -signal.SIGKILL
        eventually(lambda: all(map(_is_gone, others)))


def test_no_process_that_works_outlives_its_server_either() -> None:
    with ServerProcess() as server:
        others = [server.engine, *server.front_ends]
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
        eventually(lambda: all(map(_is_gone, others)))
        connection.close()


def test_an_engine_that_dies_while_a_server_drains_is_replaced_too() -> None:
    with ServerProcess("--drain-timeout", "600") as server:
        connection = server.send("POST", "/v1/completions", {**LONG_STREAM, "max_tokens": 500})
        response = connection.getresponse()
        assert response.read(1)
        server.signal(signal.SIGTERM)
        eventually(lambda: "a second signal stops at once" in server.output)
        os.kill(server.engine, signal.SIGKILL)
        *_, last, done, _ = response.read().decode().split("\n\n")
        connection.close()
        assert done == "data: [DONE]"
        choice = json.loads(last.removeprefix("data: "))["choices"][0]
        assert choice["finish_reason"] == "length"


def _is_gone(pid: int) -> bool:
    """Ended, though nobody may have asked for its exit code yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_prompt_longer_than_the_kv_memory_is_a_400() -> None:
    with ServerProcess("--kv-tokens", "256", "--page-size", "16") as server:
        status, answer = server.ask("POST", "/v1/completions", {"prompt": [5] * 400})
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
        assert "400 tokens" in answer["error"]["message"]
        # What fits is served, and more of it than fits at once too.
        body = {"prompt": [[5] * 100] * 8, "max_tokens": 40, "ignore_eos": True}
        assert server.post("/v1/completions", body)["usage"]["completion_tokens"] == 320


def test_a_server_that_is_interrupted_while_it_starts_ends_quietly() -> None:
    command = [INARCH, "serve", "--port", "0", "--api-workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    others = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    eventually(lambda: len(others.read_text().split()) == 3)
    children = [int(child) for child in others.read_text().split()]
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "")
    assert all(map(_is_gone, children))


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


def test_what_a_front_end_cannot_do_is_told_once(tmp_path: Path) -> None:
    template = tmp_path / "broken.jinja"
    template.write_text("{% if %}")
    message = _fails("--port", "0", "--api-workers", "3", "--chat-template", str(template))
    assert message.count("error: ") == 1
    assert "--chat-template: line 1" in message
