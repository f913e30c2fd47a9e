"""The files of a batch, as an interruption leaves them: what is done stays done, and is done once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inarch.errors import InarchError
from inarch_server.batch.files import Answers, read_requests


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def lines(path: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]


def test_an_answer_is_in_the_file_at_once(path: Path) -> None:
    answers = Answers(path)
    answers.add("one", 200, {"text": "ü"})
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["response"]["body"] == {"text": "ü"}
    answers.close()


def test_a_line_that_was_cut_off_is_dropped_and_answered_again(path: Path) -> None:
    answers = Answers(path)
    for name in ("one", "two"):
        answers.add(name, 200, {})
    answers.close()
    path.write_bytes(path.read_bytes()[:-9])
    answers = Answers(path)
    assert answers.done == {"one"}
    answers.add("two", 200, {})
    answers.close()
    assert lines(path) == ["one", "two"]


def test_a_whole_object_without_its_line_end_counts_as_cut_off(path: Path) -> None:
    """Else the next answer would stand behind it on the same line."""
    answers = Answers(path)
    answers.add("one", 200, {})
    answers.close()
    path.write_bytes(path.read_bytes()[:-1])
    answers = Answers(path)
    assert answers.done == set()
    answers.add("one", 200, {})
    answers.close()
    assert lines(path) == ["one"]


def test_who_is_second_to_open_the_answers_is_told_so(path: Path) -> None:
    first = Answers(path)
    with pytest.raises(InarchError, match="another inarch batch is writing to it"):
        Answers(path)
    first.close()
    Answers(path).close()


def test_a_name_that_comes_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    line = json.dumps({"custom_id": "one", "url": "/v1/completions", "body": {}}) + "\n"
    questions.write_text(line + "\n" + line)
    with pytest.raises(InarchError, match="line 3: custom_id 'one' was there before"):
        list(read_requests(questions))
