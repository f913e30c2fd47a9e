"""What an operator sees of a real server of several front-end processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .process import INARCH, ServerProcess, eventually

COUNT = "sglang:num_requests_total"


@pytest.fixture(scope="module")
def watched() -> Iterator[ServerProcess]:
    with ServerProcess("--api-workers", "2", "--log-requests") as process:
        yield process


def front_ends(server: ServerProcess) -> list[int]:
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in children}
    return [pid for pid, command in commands.items() if "inarch_server.process.worker" in command]


def log_lines(server: ServerProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.lines if line.startswith("{")]


def test_every_scrape_shows_the_whole_server_also_after_a_process_died(
    watched: ServerProcess,
) -> None:
    for number in range(8):
        watched.post("/v1/completions", {"prompt": f"Number {number}", "max_tokens": 4})
    assert {watched.metric(COUNT) for _ in range(12)} == {8}
    first, second = front_ends(watched)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: len(front_ends(watched)) == 2 and first not in front_ends(watched))
    assert {watched.metric(COUNT) for _ in range(12)} == {8}
    os.kill(second, signal.SIGKILL)
    eventually(lambda: not {first, second} & set(front_ends(watched)))
    watched.post("/v1/completions", {"prompt": "One more", "max_tokens": 4})
    assert watched.metric(COUNT) == 9
    assert watched.metric("sglang:e2e_request_latency_seconds_count") == 9


def test_every_process_writes_to_the_one_request_log(watched: ServerProcess) -> None:
    for i in range(6):
        watched.post("/generate", {"text": "Hello", "rid": f"r{i}"})

    def of_these() -> list[dict[str, Any]]:
        return [line for line in log_lines(watched) if line["route"] == "/generate"]

    eventually(lambda: len(of_these()) == 6)
    lines = of_these()
    assert all(line["completion_tokens"] > 0 and line["status"] == 200 for line in lines)


def test_traces_without_their_package_end_the_start_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text("raise ImportError('not here')")
    ended = subprocess.run(
        [INARCH, "serve", "--otlp-endpoint", "http://localhost:4318"],
        env={
            **os.environ,
            "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        },
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert "pip install 'inarch[otel]'" in ended.stderr
