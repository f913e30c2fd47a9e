"""The picture of a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from inarch.bench import BenchError
from inarch.bench.plot import throughput, write_plot
from inarch.bench.record import Record


def record(sent_s: float, *text_s: float, output_tokens: int = 4) -> Record:
    return Record(0, 0.0, sent_s, text_s, 10, output_tokens, output_tokens)


def test_throughput_over_time_adds_up_to_all_tokens() -> None:
    edges, rates = throughput([record(0.0, 0.5, 1.0), record(1.0, 2.0, 3.0, 4.0, output_tokens=9)])
    width = edges[1] - edges[0]
    assert edges[0] == 0.0
    assert edges[-1] == pytest.approx(4.0)
    assert sum(rates) * width == pytest.approx(13)
    early = sum(rate * width for edge, rate in zip(edges, rates, strict=False) if edge < 1.5)
    assert early == pytest.approx(4)


@pytest.mark.parametrize(
    "records",
    [
        [record(0.1 * i, *(0.1 * i + 0.2 + 0.01 * k for k in range(30))) for i in range(20)],
        [record(0.0, 0.5, output_tokens=1)],  # no gap between tokens
        [record(0.0, 0.5, 0.5, 0.5)],  # all in one packet
    ],
)
def test_a_run_is_drawn(tmp_path: Path, records: list[Record]) -> None:
    path = tmp_path / "run.png"
    write_plot(path, "a model", "20 requests", records)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_run_in_which_nothing_completed_is_not_drawn(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no request completed"):
        write_plot(tmp_path / "run.png", "", "", [record(0.0)])


def test_an_unknown_kind_of_picture_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="cannot write"):
        write_plot(tmp_path / "run.nonsense", "", "", [record(0.0, 0.5)])


def test_without_matplotlib_the_message_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from inarch.bench import BenchError\n"
        "from inarch.bench.plot import check_plotting\n"
        "try:\n    check_plotting()\n"
        "except BenchError as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'inarch[bench]'" in run.stdout


def test_the_bench_imports_neither_torch_nor_matplotlib_until_it_draws() -> None:
    code = (
        "import sys; import inarch.cli.bench; light = set(sys.modules)\n"
        "import inarch.bench.serve; heavy = set(sys.modules)\n"
        "assert not light & {'aiohttp', 'rich', 'msgspec', 'torch', 'numpy'}, light\n"
        "assert not heavy & {'torch', 'numpy', 'matplotlib', 'transformers'}, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
