"""The native API through every layer: sessions, scores, pauses and ends, on the bundled model."""

from __future__ import annotations

import gzip
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .process import ServerProcess, eventually

GREEDY = {"temperature": 0, "max_new_tokens": 12, "ignore_eos": True}
TURNS = ["Once upon a time there was ", " She said: ", " And then ", " In the end "]


def generate(server: ServerProcess, prompt: Any, **options: Any) -> Any:
    kind = "input_ids" if isinstance(prompt[0], int) else "text"
    return server.post("/generate", {kind: prompt, "sampling_params": GREEDY, **options})


def test_a_session_says_what_resent_prompts_say(server: ServerProcess) -> None:
    session = server.post("/open_session", {})
    said: list[int] = []
    before: str | None = None
    for text in TURNS:
        where = {"id": session, "rid": before}
        turn = generate(server, text, session_params=where)
        ids = server.post("/v1/tokenize", {"prompt": text, "add_special_tokens": before is None})
        whole = generate(server, said + ids["tokens"])
        assert turn["output_ids"] == whole["output_ids"]
        assert turn["meta_info"]["prompt_tokens"] == whole["meta_info"]["prompt_tokens"]
        said += ids["tokens"] + turn["output_ids"]
        before = turn["meta_info"]["id"]
    server.post("/close_session", {"session_id": session})


def test_a_text_scores_as_it_was_generated(server: ServerProcess) -> None:
    """The log-probabilities of an answer are those of the same tokens as part of a prompt."""
    asked = {"return_logprob": True, "top_logprobs_num": 2}
    first = generate(server, TURNS[0], logprob_start_len=0, **asked)
    meta = first["meta_info"]
    prompt = [token for _, token, _ in meta["input_token_logprobs"]]
    scored = generate(
        server, prompt + first["output_ids"], logprob_start_len=len(prompt) - 1,
        sampling_params={"max_new_tokens": 0}, **asked,
    )["meta_info"]  # fmt: skip
    _, *after = scored["input_token_logprobs"]
    assert [token for _, token, _ in after] == first["output_ids"]
    expected = [logprob for logprob, _, _ in meta["output_token_logprobs"]]
    assert [logprob for logprob, _, _ in after] == pytest.approx(expected, abs=0.05)  # bfloat16
    assert scored["completion_tokens"] == 0


@pytest.mark.parametrize("mode", ["retract", "in_place"])
def test_answers_go_on_after_a_pause(server: ServerProcess, mode: str) -> None:
    long = {**GREEDY, "max_new_tokens": 300}
    whole = generate(server, "Tell me", sampling_params=long)["text"]
    with ThreadPoolExecutor() as pool:
        task = pool.submit(generate, server, "Tell me", sampling_params=long)
        eventually(lambda: server.metric("sglang:num_running_reqs") == 1)
        server.post("/pause_generation", {"mode": mode})
        assert server.ask("GET", "/health_generate")[0] == 200
        time.sleep(0.2)
        assert not task.done()
        server.post("/continue_generation", {})
        assert task.result()["text"] == whole


def test_a_request_is_ended_by_its_name_with_what_it_has_said(server: ServerProcess) -> None:
    long = {**GREEDY, "max_new_tokens": 1500}
    with ThreadPoolExecutor() as pool:
        task = pool.submit(generate, server, ["a", "b"], rid="job", sampling_params=long)
        eventually(lambda: server.ask("GET", "/v1/loads")[1]["loads"][0]["num_running_reqs"] == 2)
        server.post("/abort_request", {"rid": "job"})
        for result in task.result():
            assert result["meta_info"]["finish_reason"]["type"] == "abort"
            assert len(result["output_ids"]) == result["meta_info"]["completion_tokens"]


def test_a_profile_can_be_read(server: ServerProcess) -> None:
    path = Path(server.post("/start_profile", {"num_steps": 3, "profile_name": "e2e"})["path"])
    generate(server, "Hello")
    eventually(path.exists)
    with gzip.open(path) as file:
        assert json.load(file)["traceEvents"]
    path.unlink()


def test_a_flush_forgets_prompts(server: ServerProcess) -> None:
    prompt = "A prompt of some length, which fills more than a single page of the cache. " * 2
    generate(server, prompt)
    assert generate(server, prompt)["meta_info"]["cached_tokens"] > 0
    assert server.post("/flush_cache", {})["pages"] > 0
    assert generate(server, prompt)["meta_info"]["cached_tokens"] == 0
