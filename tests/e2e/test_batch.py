"""`inarch batch` as a user runs it: every request answered once, whatever interrupts it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from .process import INARCH, eventually


def request(name: str, question: str = "What is 2 + 3?", **body: Any) -> dict[str, Any]:
    asked = {"messages": [{"role": "user", "content": question}], "temperature": 0, **body}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": asked}


def written(folder: Path, *requests: dict[str, Any]) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in requests))
    return path


def run(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [INARCH, "batch", str(path), *options],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def answers(path: Path) -> dict[str, dict[str, Any]]:
    text = path.with_name("questions.answers.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    found = {line["custom_id"]: line["response"] for line in lines}
    assert len(found) == len(lines), "something was answered twice"
    return found


def test_every_request_has_its_answer_and_a_wrong_one_its_refusal(tmp_path: Path) -> None:
    sums = [request(f"sum {i}", f"What is {i} + 1?") for i in range(9)]
    wrong = [request("empty", messages=[]), request("streams", stream=True)]
    path = written(tmp_path, *sums, *wrong, {**request("gets"), "method": "GET"})
    done = run(path)
    assert done.returncode == 0, done.stderr
    assert "12 answers, 3 of them refusals" in done.stderr
    found = answers(path)
    for i in range(9):
        body = found[f"sum {i}"]["body"]
        assert body["choices"][0]["message"]["content"] == f"{i} + 1 = {i + 1}."
    for name in ("empty", "streams", "gets"):
        assert found[name]["status_code"] == 400
        assert found[name]["body"]["error"]["message"]


def test_an_interrupted_batch_goes_on_where_it_was(tmp_path: Path) -> None:
    path = written(tmp_path, *(request(f"{i}", max_tokens=60, ignore_eos=True) for i in range(400)))
    output = path.with_name("questions.answers.jsonl")
    process = subprocess.Popen([INARCH, "batch", str(path)], stderr=subprocess.DEVNULL)
    eventually(lambda: output.is_file() and output.stat().st_size > 0)
    process.kill()
    process.wait()
    before = output.read_text()
    assert 0 < before.count("\n") < 400
    output.write_text(before + '{"custom_id": "399", "respo')  # cut off in the midst of a line
    path = written(tmp_path, *(request(f"{i}") for i in range(400)))
    done = run(path)
    assert done.returncode == 0, done.stderr
    assert output.read_text().startswith(before)
    assert set(answers(path)) == {str(i) for i in range(400)}
    assert "0 answers" in run(path).stderr


def test_a_wrong_line_is_named_before_anything_is_loaded(tmp_path: Path) -> None:
    path = written(tmp_path, request("a"), request("a"))
    done = run(path, "--load-format", "dummy")
    assert done.returncode == 1
    assert "line 2: custom_id 'a' was there before" in done.stderr
    assert "Traceback" not in done.stderr
    path.write_text('{"custom_id": "a"}\n')
    assert "line 1: " in run(path).stderr


def test_a_file_that_is_something_else_is_not_written_to(tmp_path: Path) -> None:
    path = written(tmp_path, request("a"))
    other = tmp_path / "other.txt"
    other.write_text("dear diary\n")
    done = run(path, "--output", str(other))
    assert done.returncode == 1
    assert "no answer of a batch" in done.stderr
    assert other.read_text() == "dear diary\n"
