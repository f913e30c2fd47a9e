"""The soak, as far as it can be tried without a GPU: what it asks, what it blames, and a short run."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from .scripts import CI, script

asked, watch, soak = script("soak_questions"), script("soak_watch"), script("gpu_soak")
RIGHT = [asked.Answer((5, 6, 7), "abc", "length")]
IDLE = {
    "inarch:engine_alive": 1.0, "sglang:num_running_reqs": 0.0, "sglang:num_queue_reqs": 0.0,
    "inarch:kv_pages_used": 0.0, "inarch:kv_pages_cached": 9.0,
}  # fmt: skip
BUSY = {
    "sglang:num_retracted_requests_total": 3.0,
    "inarch:steps_total": 9.0,
    "sglang:cached_tokens_total": 1.0,
}


def result(*token_ids: int, text: str = "abc", logprobs: object = (), **more: object) -> dict:
    meta = {"finish_reason": {"type": "length"}, "output_token_logprobs": logprobs}
    return {"output_ids": list(token_ids), "text": text, "meta_info": meta, **more}


def test_questions_are_the_same_every_time_and_of_every_kind():
    pool = asked.questions(128, vocabulary=100, longest=200, seed=1)
    assert pool == asked.questions(128, vocabulary=100, longest=200, seed=1)
    assert pool != asked.questions(128, vocabulary=100, longest=200, seed=2)
    assert all(0 < len(q.prompt) <= 200 and max(q.prompt) < 100 for q in pool)
    names = {name for q in pool for name in q.sampling}
    assert names >= {"sampling_seed", "n", "stop", "top_p", "top_k", "min_p", "presence_penalty"}
    assert all("sampling_seed" in q.sampling or not q.sampling["temperature"] for q in pool)
    begins = [q.prompt[:40] for q in pool]
    assert any(begins.count(each) > 5 for each in begins), "prefixes are shared"
    assert {q.logprobs for q in pool} == {None, 0, 4}


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (result(5, 6, 7), None),
        (result(5, 9, 7), "token 1 is 9 instead of 6"),
        (result(5, 6), "2 tokens instead of 3"),
        (result(5, 6, 7, text="abd"), "'abd'"),
        ([result(5, 6, 7)] * 2, "2 samples instead of 1"),
        (result(5, 6, 7, logprobs=[[-0.5, 5, None]]), None),
        (result(5, 6, 7, logprobs=[[None, 5, None]]), "log-probability None"),
        (result(5, 6, 7, logprobs=[[-9999.0, 5, None]]), "log-probability -9999"),
    ],
)
def test_a_wrong_answer_is_told_from_a_right_one(found, why):
    fault = asked.fault(found, RIGHT)
    assert fault is None if why is None else why in fault


def test_the_beginning_of_an_answer_is_judged_as_far_as_it_goes():
    assert asked.early_fault(result(5, 6), RIGHT) is None
    assert "token 1 is 8" in asked.early_fault(result(5, 8, index=0), RIGHT)
    two = [RIGHT[0], asked.Answer((1, 2), "x", "stop")]
    assert asked.early_fault(result(1, index=1), two) is None


@pytest.mark.parametrize("name", [name for name in IDLE if not name.endswith("cached")])
def test_what_an_idle_server_still_holds_is_named(name):
    assert watch.unfinished(IDLE) == []
    assert len(watch.unfinished(IDLE | {name: 1.0 - IDLE[name]})) == 1


def judged(host: list[int], numbers: dict[str, float] = BUSY, left: int = 1):
    seen = watch.Watch(pid=0, on_device=False)
    seen.samples = [watch.Sample(float(i), value, None) for i, value in enumerate(host)]
    tally = soak.Tally(left=left)
    return soak.judge(tally, seen, numbers, seconds=len(host)), tally


def test_memory_may_grow_until_it_has_settled_and_no_more():
    flat = [1 << 30] * 60
    rising = [(1 << 30) + (i << 23) for i in range(60)]
    assert judged(rising + [rising[-1]] * 60)[1].faults == {}
    seen, tally = judged(flat + rising)
    assert set(tally.faults) == {"memory"}
    assert seen["grown"]["host"] > 100 << 20
    assert seen["grown"]["device"] is None


def test_a_run_that_tried_too_little_fails():
    idle = BUSY | {"sglang:num_retracted_requests_total": 0.0}
    assert set(judged([1] * 20, idle)[1].faults) == {"too easy"}
    assert set(judged([1] * 20, left=0)[1].faults) == {"too easy"}


def test_this_process_has_memory():
    import os

    sample = watch.Watch(os.getpid(), on_device=False).sample()
    assert sample.host > 10 << 20
    assert sample.device is None


@pytest.mark.timeout(240)
def test_a_short_soak_on_the_reference_finds_nothing_wrong(tmp_path):
    command = [sys.executable, str(CI / "gpu_soak.py"), "--backend", "reference"]
    command += ["--minutes", "0.1", "--clients", "40", "--questions", "10", "--kv-tokens", "1024"]
    done = subprocess.run([*command, "--out", tmp_path], capture_output=True, text=True)
    said = json.loads((tmp_path / "soak.json").read_text())
    # Whether requests must be retracted in so short a time depends on the machine.
    assert set(said["faults"]) <= {"too easy"}, done.stdout + done.stderr
    assert done.returncode == bool(said["faults"])
    assert said["whole"] > 10
    assert said["left"]
    assert set(dataclasses.asdict(watch.Sample(0.0, 0, None))) == set(said["samples"][0])
