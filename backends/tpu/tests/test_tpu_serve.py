"""`inarch serve --backend tpu`, as a user runs it on a machine without a TPU: on four virtual chips."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("jax", reason="JAX is not installed: pip install -r ci/jax.txt")

INARCH = str(Path(sys.executable).with_name("inarch"))
FOUR_CHIPS = (
    "--xla_force_host_platform_device_count=4 "
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
PROJECT = Path(__file__).parents[1]


@pytest.fixture
def address(installed: Path) -> Iterator[str]:
    path = os.pathsep.join([str(installed), str(PROJECT), os.environ.get("PYTHONPATH", "")])
    # fmt: off
    command = [
        INARCH, "serve", "--backend", "tpu", "--dtype", "float32",
        "--port", "0", "--max-running-requests", "2", "--max-step-tokens", "32", "--kv-tokens", "512",
    ]
    # fmt: on
    environment = os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FOUR_CHIPS}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout is not None
        said: list[str] = []
        found = None
        while found is None and (line := server.stdout.readline()):
            said.append(line)
            found = re.search(r" serves \S+ at (\S+)", line)
        try:
            assert found is not None, "".join(said)
            yield found[1]
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=60)


def test_a_chat_streams_from_four_virtual_chips(address: str) -> None:
    question = {"role": "user", "content": "What is the capital of France?"}
    body = {"model": "inarch-tiny", "messages": [question], "stream": True, "temperature": 0}
    request = urllib.request.Request(
        f"{address}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=200) as response:
        events = [
            line[6:] for line in response.read().decode().splitlines() if line.startswith("data: ")
        ]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
    assert "Paris" in text
    assert len(chunks) > 3
