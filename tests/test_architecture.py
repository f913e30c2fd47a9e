"""The rules of the house: no vendor's word outside backends/, files and functions of readable size."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NEUTRAL = ("core", "server", "plugins")  # folders that must know no vendor
VENDOR = re.compile(
    r"torch\.(cuda|npu|xpu|hip|mps|version\.cuda)|torch_npu|torch_xla|\btriton\b|\bjax\b"
    r"""|["']cuda["']|\bis_(cuda|npu|xpu|hip|rocm)\b""",
    re.IGNORECASE,
)
LONGEST_FILE, LONGEST_FUNCTION = 450, 70  # lines


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not {"tests", "training", "build", ".venv"} & set(path.relative_to(ROOT).parts):
                yield path


def test_no_vendor_word_stands_outside_backends() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sources(*NEUTRAL)
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if VENDOR.search(line)
    ]
    assert found == []


def is_kernel(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A GPU kernel is one program, compiled as a whole: cutting it up would not make it clearer."""
    return any(ast.unparse(decorator).startswith("triton.jit") for decorator in node.decorator_list)


def test_files_and_functions_stay_readable() -> None:
    long = []
    for path in sources(*NEUTRAL, "backends"):
        text = path.read_text()
        if text.count("\n") > LONGEST_FILE:
            long.append(f"{path.relative_to(ROOT)} has {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_kernel(node):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{path.relative_to(ROOT)}: {node.name} has {lines} lines")
    assert long == []


@pytest.mark.parametrize(
    "code",
    [
        "import inarch",
        "from inarch.cli.main import cli; cli.main(['--help'], standalone_mode=False)",
        "from inarch.cli.main import cli; cli.main(['plugins'], standalone_mode=False)",
        "from inarch.cli.main import cli; cli.main(['serve', '--help'], standalone_mode=False)",
    ],
)
def test_what_needs_no_torch_does_not_import_it(code: str) -> None:
    check = f"{code}\nimport sys\nassert not {{'torch', 'transformers'}} & set(sys.modules)"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_command_line_keeps_to_fewer_than_sixty_engine_options() -> None:
    from inarch.config import fields

    assert len(list(fields())) < 60
