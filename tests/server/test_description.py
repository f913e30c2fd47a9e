"""What /openapi.json says holds: schemathesis asks every operation there is, rightly and wrongly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .harness import Server, eventually
from .talking import talker

# What it is held to: no answer is a server error, or one of which the description knows nothing, and
# what the description forbids is refused. That all it allows is accepted cannot be: a schema does not
# know that one of two fields must be there, nor which model is served.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,negative_data_rejection,unsupported_method"
)


def test_every_operation_is_as_it_is_described(tmp_path: Path) -> None:
    engine = talker(
        'Hm</think><tool_call>\n{"name": "x", "arguments": {"y": [1', reasons=True, context=256
    )
    with Server(engine) as server:
        asked = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
                *("--phases", "coverage,fuzzing", "--max-examples", "8", "--checks", CHECKS),
                *("--generation-deterministic", "--request-timeout", "20", "--no-color"),
            ],
            cwd=tmp_path,  # it keeps what it found where it runs
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
        )
        assert asked.returncode == 0, asked.stdout + asked.stderr
        eventually(lambda: engine.running == 0)
