"""`inarch bench serve`, from the command line to the table, against a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from inarch.cli.bench import bench


def serve(*arguments: str) -> Result:
    return CliRunner().invoke(bench, ["serve", "--processes", "1", *arguments])


def fails_with_one_line(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1
    return result.output


def test_a_run_prints_the_figures_and_keeps_them(
    start_stub: Callable[..., Any], tmp_path: Path
) -> None:
    stub = start_stub()
    out, plot = tmp_path / "run.json", tmp_path / "run.png"
    result = serve(
        "--url", stub.url, "--num-requests", "12", "--input-len", "uniform:3-9",
        "--output-len", "5", "--concurrency", "4", "--seed", "3",
        "--output", str(out), "--plot", str(plot),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for word in ("12 of 12", "none failed", "60 tokens in 60 events", "TTFT", "ITL", "TPOT", "E2E"):
        assert word in result.output
    document = json.loads(out.read_text())
    assert document["summary"]["completed"] == 12
    assert document["summary"]["output_tokens"] == 60
    assert document["summary"]["input_tokens"] == 84  # what the server counted: 7 a request
    assert document["config"]["model"] == "stub"
    assert document["config"]["input_len"] == "uniform:3-9"
    assert document["config"]["request_rate"] == "inf"
    assert len(document["requests"]) == 12
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_requests_are_greedy_streamed_and_of_full_length(start_stub: Callable[..., Any]) -> None:
    stub = start_stub()
    serve("--url", f"{stub.url}/v1/", "--num-requests", "2", "--output-len", "5")
    test, *measured = stub.bodies
    assert test["max_tokens"] == 1
    assert len(measured) == 2
    for body in measured:
        assert len(body.pop("prompt").split()) == 128
        assert body == {
            "model": "stub", "max_tokens": 5, "temperature": 0.0, "ignore_eos": True,
            "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip


def test_prompts_are_token_ids_when_the_vocabulary_is_known(start_stub: Callable[..., Any]) -> None:
    stub = start_stub()
    serve("--url", stub.url, "--num-requests", "1", "--vocab-size", "500", "--input-len", "9")
    prompt = stub.bodies[-1]["prompt"]
    assert len(prompt) == 9
    assert all(5 <= token < 495 for token in prompt)


def test_fields_can_be_added_and_left_out(start_stub: Callable[..., Any]) -> None:
    stub = start_stub()
    extra = '{"top_p": 0.5, "stream_options": null}'
    serve("--url", stub.url, "--num-requests", "1", "--no-ignore-eos", "--extra-body", extra)
    assert stub.bodies[-1]["top_p"] == 0.5
    assert not {"stream_options", "ignore_eos"} & stub.bodies[-1].keys()


def test_chat_sends_messages_from_a_dataset(start_stub: Callable[..., Any], tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "hello"}]
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": messages, "output_len": 3}) + '\n{"prompt": "hi"}\n')
    stub = start_stub()
    result = serve("--url", stub.url, "--endpoint", "chat", "--dataset", str(path))
    assert "2 of 2" in result.output
    sent = [(body["messages"], body["max_tokens"]) for body in stub.bodies[1:]]
    assert (messages, 3) in sent
    assert ([{"role": "user", "content": "hi"}], 128) in sent


def test_warm_up_requests_are_sent_first_and_not_counted(start_stub: Callable[..., Any]) -> None:
    stub = start_stub()
    result = serve("--url", stub.url, "--num-requests", "2", "--warmup", "3")
    assert "2 of 2" in result.output
    assert len(stub.bodies) == 1 + 3 + 2


def test_failures_are_counted_and_the_first_is_shown(start_stub: Callable[..., Any]) -> None:
    stub = start_stub(refuse=lambda body: "too long" if body["max_tokens"] > 5 else None)
    result = serve(
        "--url", stub.url, "--num-requests", "20", "--output-len", "uniform:4-7", "--seed", "1"
    )
    assert result.exit_code == 0
    refused = sum(body["max_tokens"] > 5 for body in stub.bodies)
    assert 0 < refused < 20
    assert f"{refused} failed; the first: HTTP 400: too long" in result.output


def test_a_run_in_which_everything_failed_fails(start_stub: Callable[..., Any]) -> None:
    stub = start_stub(refuse=lambda body: "too long" if body["max_tokens"] > 5 else None)
    result = serve("--url", stub.url, "--num-requests", "3")
    assert result.exit_code == 1
    assert "all 3 requests failed; the first: HTTP 400: too long" in result.output


def test_a_server_without_token_counts_is_measured_by_events(
    start_stub: Callable[..., Any],
) -> None:
    result = serve("--url", start_stub(sends_usage=False).url, "--num-requests", "3")
    assert "3 of 3" in result.output
    assert "3 answers without token counts" in result.output


def test_the_named_model_is_asked_for_when_the_server_has_no_list(
    start_stub: Callable[..., Any],
) -> None:
    stub = start_stub(models=None)
    assert serve("--url", stub.url, "--num-requests", "1", "--model", "mine").exit_code == 0
    assert stub.bodies[-1]["model"] == "mine"
    message = fails_with_one_line(serve("--url", stub.url))
    assert "name it with --model" in message


def test_an_unknown_model_is_an_error_that_lists_the_known_ones(
    start_stub: Callable[..., Any],
) -> None:
    stub = start_stub(models=("small", "large"))
    message = fails_with_one_line(serve("--url", stub.url, "--model", "huge"))
    assert "does not serve 'huge'; it serves: small, large" in message
    assert stub.bodies == []


def test_a_missing_key_is_an_error_and_the_key_is_never_written(
    start_stub: Callable[..., Any], tmp_path: Path
) -> None:
    stub, out = start_stub(key="secret-key"), tmp_path / "run.json"
    assert "--api-key" in fails_with_one_line(serve("--url", stub.url))
    result = serve(
        "--url", stub.url, "--api-key", "secret-key", "--num-requests", "1", "--output", str(out)
    )
    assert result.exit_code == 0
    assert "secret-key" not in result.output + out.read_text()


def test_what_would_fail_every_request_is_said_once(start_stub: Callable[..., Any]) -> None:
    stub = start_stub(refuse=lambda body: "unknown field ignore_eos")
    message = fails_with_one_line(serve("--url", stub.url))
    assert "refused a test request: HTTP 400: unknown field ignore_eos" in message
    assert len(stub.bodies) == 1


def test_a_server_that_is_not_there_is_an_error() -> None:
    message = fails_with_one_line(serve("--url", "127.0.0.1:1"))
    assert "cannot reach http://127.0.0.1:1 (Connection refused)" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input-len", "unifrom:1-2"], "'unifrom' is no distribution"),
        (["--output-len", "lognormal:5"], "bad length 'lognormal:5'"),
        (["--shared-prefix", "16"], "bad shared prefix '16'"),
        (["--request-rate", "-1"], "request_rate (-1) is not above 0"),
        (["--timeout", "nan"], "timeout_s (nan) is not above 0"),
        (["--extra-body", "{"], "--extra-body is not JSON"),
        (["--extra-body", "[1]"], "is not a JSON object"),
        (["--endpoint", "chat", "--vocab-size", "9"], "chat takes text"),
        (["--dataset", "none.jsonl", "--input-len", "5"], "brings its own prompts"),
        (["--dataset", "none.jsonl"], "cannot read the dataset none.jsonl"),
        (["--output", "no/such/folder/run.json"], "there is no folder no/such/folder"),
        (["--url", "ftp://x"], "bad address 'ftp://x'"),
    ],
)
def test_a_wrong_option_is_one_clear_line(arguments: list[str], message: str) -> None:
    assert message in fails_with_one_line(serve(*arguments))


def test_messages_need_the_chat_endpoint(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "hello"}]}')
    assert "messages need --endpoint chat" in fails_with_one_line(serve("--dataset", str(path)))


def test_ctrl_c_reports_what_has_finished(start_stub: Callable[..., Any], tmp_path: Path) -> None:
    stub = start_stub(hang_after=1 + 3)  # the test request, then three
    out = tmp_path / "run.json"
    command = [
        sys.executable, "-c", "from inarch.cli.bench import bench; bench()",
        "serve", "--url", stub.url, "--num-requests", "10", "--concurrency", "1",
        "--output-len", "4", "--output", str(out),
    ]  # fmt: skip
    run = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert stub.hanging.wait(60)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the whole group
    printed, complaints = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "3 of 10" in printed
    assert "interrupted: 7 of 10 not finished" in printed
    assert "Traceback" not in complaints
    assert json.loads(out.read_text())["summary"]["completed"] == 3
