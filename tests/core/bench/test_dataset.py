"""Prompts from a JSON lines file."""

from __future__ import annotations

from pathlib import Path

import pytest

from inarch.bench.dataset import build_requests
from inarch.bench.lengths import Uniform
from inarch.bench.workload import WorkloadConfig
from inarch.errors import ConfigError


def dataset(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_lines_become_requests_in_file_order(tmp_path: Path) -> None:
    path = dataset(
        tmp_path,
        '{"prompt": "one two three", "output_len": 5, "source": "ignored"}',
        "",
        '{"prompt": [4, 5, 6, 7], "output_len": 6}',
        '{"messages": [{"role": "user", "content": "hello there"}], "output_len": 7}',
    )
    requests = build_requests(WorkloadConfig(dataset=path))
    assert [r.prompt for r in requests] == [
        "one two three",
        (4, 5, 6, 7),
        [{"role": "user", "content": "hello there"}],
    ]
    assert [r.input_len for r in requests] == [3, 4, 2]
    assert [r.output_len for r in requests] == [5, 6, 7]


def test_a_line_without_a_length_takes_the_configured_one(tmp_path: Path) -> None:
    path = dataset(tmp_path, '{"prompt": "a"}', '{"prompt": "b", "output_len": 3}')
    requests = build_requests(WorkloadConfig(dataset=path, output_len=Uniform(9, 9)))
    assert [r.output_len for r in requests] == [9, 3]


def test_a_number_of_requests_takes_the_first_lines(tmp_path: Path) -> None:
    path = dataset(tmp_path, '{"prompt": "a"}', '{"prompt": "b"}', '{"prompt": "c"}')
    requests = build_requests(WorkloadConfig(dataset=path, num_requests=2))
    assert [r.prompt for r in requests] == ["a", "b"]


def test_more_requests_than_lines_is_an_error_rather_than_a_repetition(tmp_path: Path) -> None:
    path = dataset(tmp_path, '{"prompt": "a"}')
    with pytest.raises(ConfigError, match="holds 1 requests and 2 are asked for"):
        build_requests(WorkloadConfig(dataset=path, num_requests=2))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not a request"),
        ('["a"]', "line 2 is not a request"),
        ('{"prompt": 5}', r"line 2 is not a request.*\$\.prompt"),
        ('{"output_len": 5}', 'line 2: give either "prompt"'),
        ('{"prompt": "a", "messages": [{}]}', 'line 2: give either "prompt"'),
        ('{"prompt": "a", "output_len": 0}', r"line 2: output_len \(0\)"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = dataset(tmp_path, '{"prompt": "a"}', line)
    with pytest.raises(ConfigError, match=message):
        build_requests(WorkloadConfig(dataset=path))


def test_a_missing_or_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the dataset"):
        build_requests(WorkloadConfig(dataset=tmp_path / "none.jsonl"))
    with pytest.raises(ConfigError, match="holds 0 requests"):
        build_requests(WorkloadConfig(dataset=dataset(tmp_path)))
