"""`inarch batch` as a user runs it: every request answered once, whatever interrupts it."""

from __future__ import annotations

import fcntl
import json
import random
import signal
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


def asked(url: str, name: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": name, "method": "POST", "url": url, "body": body}


def test_every_kind_of_request_is_answered_as_openai_does(tmp_path: Path) -> None:
    question = [{"role": "user", "content": "What is 2 + 3?"}]
    path = written(
        tmp_path,
        asked("/v1/chat/completions", "chat", messages=question, temperature=0),
        asked("/v1/completions", "text", prompt="Once", max_tokens=3, logprobs=1),
        asked("/v1/embeddings", "vector", input=["one", "two"]),
        asked("/v1/responses", "response", input="What is 2 + 3?", temperature=0),
        asked("/v1/moderations", "other", input="Hi"),
    )
    done = run(path)
    assert done.returncode == 0, done.stderr
    for line in path.with_name("questions.answers.jsonl").read_text().splitlines():
        answer = json.loads(line)
        assert set(answer) == {"id", "custom_id", "response", "error"}
        assert answer["error"] is None
        assert answer["id"].startswith("batch_req_")
        assert set(answer["response"]) == {"status_code", "request_id", "body"}
    found = {name: response["body"] for name, response in answers(path).items()}
    assert found["chat"]["choices"][0]["message"]["content"] == "2 + 3 = 5."
    assert found["chat"]["usage"]["completion_tokens"] > 3
    assert found["text"]["object"] == "text_completion"
    assert len(found["text"]["choices"][0]["logprobs"]["tokens"]) == 3
    assert [len(one["embedding"]) > 8 for one in found["vector"]["data"]] == [True, True]
    assert found["response"]["output"][0]["content"][0]["text"] == "2 + 3 = 5."
    assert "/v1/moderations" in found["other"]["error"]["message"]


SEED = random.randrange(2**32)


def whole_lines(output: Path) -> str:
    text = output.read_text()
    return text[: text.rfind("\n") + 1]


def heed_ctrl_c() -> None:
    """As in a terminal: what runs in the background of a script ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_batch_that_is_killed_again_and_again_goes_on_where_it_was(tmp_path: Path) -> None:
    dice, asked = random.Random(SEED), 120
    lines = [request(f"{i}", max_tokens=20, ignore_eos=True) for i in range(asked)]
    path = written(tmp_path, *lines)
    output = path.with_name("questions.answers.jsonl")
    output.touch()
    for sent in (signal.SIGKILL, signal.SIGINT):
        before = whole_lines(output)
        most = before.count("\n") + dice.randrange(1, asked // 4)
        slowly = [INARCH, "batch", str(path), "--max-running-requests", "4"]
        process = subprocess.Popen(
            slowly, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c
        )
        eventually(lambda: output.read_bytes().count(b"\n") >= most)  # noqa: B023
        process.send_signal(sent)
        told = process.communicate()[1]
        if sent == signal.SIGINT:
            there = output.read_bytes().count(b"\n")
            assert f"{there} of {asked} answers are in {output}; the same command" in told
        assert output.read_text().startswith(before), f"seed {SEED}"
        if dice.random() < 0.5:  # cut off in the midst of a line
            with output.open("ab") as file:
                file.write(b'{"custom_id": "119", "respo')
    before = whole_lines(output)
    assert 0 < before.count("\n") < asked
    done = run(written(tmp_path, *(request(f"{i}") for i in range(asked))))
    assert done.returncode == 0, done.stderr
    assert output.read_text().startswith(before), f"seed {SEED}"
    assert set(answers(path)) == {str(i) for i in range(asked)}, f"seed {SEED}"
    assert "0 answers" in run(path).stderr


def test_two_do_not_write_to_one_file(tmp_path: Path) -> None:
    path = written(tmp_path, request("a"))
    with path.with_name("questions.answers.jsonl").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        done = run(path)
    assert done.returncode == 1
    assert "another inarch batch is writing to it" in done.stderr


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
