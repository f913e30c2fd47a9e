"""One `inarch serve` in a process of its own, to be measured or tried: start, wait, stop."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from inarch.errors import InarchError

START_S, STOP_S, PAUSE_S = 150.0, 40.0, 0.05
COMMAND = (sys.executable, "-c", "from inarch.cli.main import main; main()", "serve")


class Server:
    """Serves `model`; its output goes to `log`, compiled kernels to `cache`."""

    def __init__(self, model: Path, options: Sequence[str], cache: Path, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._command = [*COMMAND, str(model), "--port", str(port), *options]
        self._environment = os.environ | {"TRITON_CACHE_DIR": str(cache), "HF_HUB_OFFLINE": "1"}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def device(self) -> str:
        """What the server said that it runs on."""
        said = re.findall(r"^ *backend +\w+ on (.+), \w+$", self._words(), re.MULTILINE)
        return str(said[-1]) if said else "an unknown device"

    def start(self) -> float:
        """Seconds until /health said that a token can be made. Raises InarchError."""
        started = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )
        while not self._healthy():
            if not self.alive:
                raise InarchError(f"the server ended before it was ready: {self._last_words()}")
            if time.monotonic() - started > START_S:
                self.stop()
                raise InarchError(f"the server was not ready after {START_S:g} s")
            time.sleep(PAUSE_S)
        return round(time.monotonic() - started, 2)

    def stop(self) -> None:
        """End the process; the device's memory is free when this returns."""
        if self._process is None or not self.alive:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=30) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def _last_words(self) -> str:
        return " | ".join([line for line in self._words().splitlines() if line.strip()][-3:])

    def _words(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""
