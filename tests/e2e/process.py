"""`inarch serve` as a user starts it: a process of its own, with the bundled model by default."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai

INARCH = str(Path(sys.executable).with_name("inarch"))
READY_S = 120.0  # on a machine that runs other tests beside; the goal of 10 s is measured in ci/
PATIENCE_S = 150.0


class ServerProcess:
    """Used as a context manager; leaving it stops the server and checks that it ended well."""

    def __init__(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        inarch: str = INARCH,
    ) -> None:
        self._process = subprocess.Popen(
            [inarch, "serve", "--port", "0", *arguments],
            # Tests share the machine; threads that wait for one another would mostly wait.
            env={"OMP_NUM_THREADS": "1", **os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.expected_exit = 0

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)

    def __enter__(self) -> ServerProcess:
        eventually(lambda: bool(self._banner()) or self._process.poll() is not None, READY_S)
        found = self._banner()
        if not found:
            self._clean_up()
            raise AssertionError(f"the server did not start:\n{self.output}")
        self.port = int(found[1])
        return self

    def __exit__(self, *_: object) -> None:
        self.signal(signal.SIGTERM)
        try:
            assert self.wait() == self.expected_exit, self.output
        finally:
            self._clean_up()

    def _clean_up(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _banner(self) -> re.Match[str] | None:
        return re.search(r"serves \S+ at http://127\.0\.0\.1:(\d+)", self.output)

    @property
    def output(self) -> str:
        return "".join(self.lines)

    @property
    def pid(self) -> int:
        return self._process.pid

    def children(self, module: str) -> list[int]:
        """Process ids of the server's processes that run a module."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(pid) for pid in listed if _runs(int(pid), module)]

    @property
    def engine(self) -> int:
        """Process id of the engine; there is none for a moment after it has died."""
        found: list[int] = []

        def is_there() -> bool:
            found[:] = self.children("inarch.engine.process")
            return len(found) == 1

        eventually(is_there)
        return found[0]

    @property
    def front_ends(self) -> list[int]:
        return self.children("inarch_server.process.worker")

    def signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self) -> int:
        return self._process.wait(PATIENCE_S)

    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1",
            api_key="none",
            max_retries=0,
            timeout=PATIENCE_S,
        )

    def send(self, method: str, path: str, body: Any = None) -> http.client.HTTPConnection:
        """Send a request, and leave the answer to the caller."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data)
        return connection

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of an answer (its text, if it is not JSON)."""
        connection = self.send(method, path, body)
        try:
            response = connection.getresponse()
            raw = response.read()
        finally:
            connection.close()
        is_json = response.headers["Content-Type"].startswith("application/json")
        return response.status, json.loads(raw) if is_json else raw.decode()

    def post(self, path: str, body: Any) -> Any:
        """The JSON of an answer that must be good."""
        status, answer = self.ask("POST", path, body)
        assert status == 200, answer
        return answer

    def metric(self, name: str) -> float:
        """Those of an engine are there as soon as it answers in time."""
        found: list[str] = []

        def is_there() -> bool:
            _, text = self.ask("GET", "/metrics")
            found[:] = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
            return bool(found)

        eventually(is_there)
        return float(found[0])


def _runs(pid: int, module: str) -> bool:
    try:
        return module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False


def sockets(pid: int) -> set[str]:
    """The sockets that a process holds, as its descriptors name them; they come and go."""
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(os.readlink(path))
    return {name for name in found if name.startswith("socket:")}


def eventually(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.02)
