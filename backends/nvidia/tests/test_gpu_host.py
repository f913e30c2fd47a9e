"""The scripts for GPU hosts, as far as they can be tried without one."""

from __future__ import annotations

import re
import subprocess
from types import ModuleType

import pytest

from inarch.bench.record import Record

from .scripts import CI, script


@pytest.fixture(scope="module")
def table() -> ModuleType:
    return script("gpu_table")


def record(index: int, *texts: float) -> Record:
    return Record(
        index, 0.0, 0.0, texts, input_tokens=10, output_tokens=len(texts), wanted_tokens=9
    )


def test_the_wheel_folder_holds_what_the_host_lacks_and_not_its_torch():
    listed = subprocess.run(
        [CI / "wheelhouse", "--list"], capture_output=True, text=True, check=True
    )
    names = {re.split(r"[<>=]", line)[0] for line in listed.stdout.split()}
    assert {"pydantic", "msgspec", "pyzmq", "pluggy", "pytest"} <= names
    assert not {"torch", "triton", "numpy", "transformers", "tokenizers"} & names


def test_a_wheel_folder_must_be_named():
    refused = subprocess.run([CI / "wheelhouse"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "FOLDER" in refused.stderr


@pytest.mark.parametrize("script", ["wheelhouse", "gpu"])
def test_scripts_explain_themselves_and_refuse_unknown_options(script):
    explained = subprocess.run([CI / script, "--help"], capture_output=True, text=True, check=True)
    assert f"ci/{script}" in explained.stdout
    refused = subprocess.run([CI / script, "--nonsense"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "--nonsense" in refused.stderr


def test_a_decode_step_is_timed_only_while_all_requests_decode(table):
    """The first waits long for its second token, as others begin; the second ends early."""
    records = [record(0, 0.1, 5.0, 5.01, 5.02, 5.03, 9.0), record(1, 5.0, 5.01, 5.02, 5.03)]
    assert table.decode_step_ms(None, records) == pytest.approx(10.0)


def test_no_two_rows_find_each_others_prompts_in_the_cache(table):
    workloads = [row.workload for row in table.ROWS.values()] + [table.WARM_UP]
    assert len({workload.seed for workload in workloads}) == len(workloads)


def test_the_printed_table_says_what_was_reached_and_what_was_not_run(table, capsys):
    result = table.Result(quick=False, versions={}, device="Chip")
    result.figures |= {"decode step at batch 8": [4.4], "decode step at batch 64": [6.4, 7.0]}
    result.failures["rate"] = "not run: no time was left"
    table.print_table(result, list(table.ROWS))
    lines = {line[:36].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert lines["decode step at batch 8"].endswith("4.40*")
    assert lines["decode step at batch 64"].endswith("6.40-7.00")
    assert lines["one stream, per token"].endswith("-")
    assert "no time was left" in lines["rate: not run: no time was left"]


def test_an_unknown_row_is_refused_with_the_known_ones(table, capsys):
    with pytest.raises(SystemExit):
        table.parse(["--rows", "latency,nonsense"])
    assert "nonsense" in capsys.readouterr().err
