"""Prompts from a file: one JSON object a line, with `prompt` or `messages`, and `output_len`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from inarch.bench.workload import (
    DEFAULT_LENGTH,
    BenchRequest,
    Prompt,
    WorkloadConfig,
    arrival_offsets,
    stream,
    synthetic_requests,
)
from inarch.errors import ConfigError


class Line(msgspec.Struct):
    """One request of a dataset; other fields are ignored."""

    prompt: str | tuple[int, ...] | None = None  # text or token ids
    messages: list[dict[str, Any]] | None = None
    output_len: int | None = None  # tokens; absent: drawn from the configured output length


def build_requests(config: WorkloadConfig) -> list[BenchRequest]:
    """The requests of a workload: from its dataset when it has one, else synthetic."""
    return synthetic_requests(config) if config.dataset is None else dataset_requests(config)


def dataset_requests(config: WorkloadConfig) -> list[BenchRequest]:
    """The first `num_requests` lines of the dataset (all of them by default), in file order."""
    path = config.dataset
    assert path is not None
    lines = list(_read_lines(path))
    count = config.num_requests or len(lines)
    if not 1 <= count <= len(lines):
        raise ConfigError(
            f"{path} holds {len(lines)} requests and {max(count, 1)} are asked for: "
            "ask for fewer, or add lines"
        )
    offsets = arrival_offsets(count, config.request_rate, config.seed)
    lengths, rng = config.output_len or DEFAULT_LENGTH, stream(config.seed, "outputs")
    return [
        _request(index, line, lengths.sample(rng), offset_s)
        for index, (line, offset_s) in enumerate(zip(lines, offsets, strict=False))
    ]


def _request(index: int, line: Line, drawn_len: int, offset_s: float) -> BenchRequest:
    prompt: Prompt = line.prompt if line.prompt is not None else (line.messages or [])
    output_len = drawn_len if line.output_len is None else line.output_len
    return BenchRequest(index, prompt, _estimated_len(prompt), output_len, offset_s)


def _estimated_len(prompt: Prompt) -> int:
    """Tokens of a prompt; a word counts as one."""
    if isinstance(prompt, str):
        return max(1, len(prompt.split()))
    if isinstance(prompt, tuple):
        return len(prompt)
    contents = (message.get("content") for message in prompt)
    return max(1, sum(len(text.split()) for text in contents if isinstance(text, str)))


def _read_lines(path: Path) -> Iterator[Line]:
    try:
        rows = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read the dataset {path}: {error.strerror}") from None
    for number, row in enumerate(rows, start=1):
        if row.strip():
            yield _parse(row, f"{path} line {number}")


def _parse(row: bytes, where: str) -> Line:
    try:
        line = msgspec.json.decode(row, type=Line)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{where} is not a request: {error}") from None
    if (not line.prompt) == (not line.messages):
        raise ConfigError(f'{where}: give either "prompt" (text or token ids) or "messages"')
    if line.output_len is not None and line.output_len < 1:
        raise ConfigError(f"{where}: output_len ({line.output_len}) is less than 1")
    return line
