"""The engine on an accelerator that answers late, captures, pads and poisons: the same tokens.

The sentences of test_engine.py hold here too, and are run again; what follows them is about being
one step late, which a CPU never is.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from inarch.sampling import SamplingParams

from .test_engine import (
    FAMILIES,
    GREEDY,
    Served,
    Start,
    oracle,
    random_prompt,
    test_a_request_ends_at_a_stop_token_but_not_before_min_tokens,
    test_a_stop_string_ends_the_text_across_token_borders,
    test_leaving_a_stream_early_frees_its_memory,
    test_logit_bias_forces_and_forbids,
    test_logprobs_are_those_of_transformers,
    test_repetition_is_penalized_over_prompt_and_output,
    test_requests_that_share_a_new_prefix_compute_it_once,
    test_the_answer_ends_where_the_context_does,
)
from .test_prompt_logprobs import (
    test_asking_changes_no_token,
    test_named_tokens_are_told_at_every_place_of_the_answer,
    test_they_are_those_of_transformers_however_prompts_are_cut_and_batched,
)

__all__ = [
    "test_a_request_ends_at_a_stop_token_but_not_before_min_tokens",
    "test_a_stop_string_ends_the_text_across_token_borders",
    "test_asking_changes_no_token",
    "test_leaving_a_stream_early_frees_its_memory",
    "test_logit_bias_forces_and_forbids",
    "test_logprobs_are_those_of_transformers",
    "test_named_tokens_are_told_at_every_place_of_the_answer",
    "test_repetition_is_penalized_over_prompt_and_output",
    "test_requests_that_share_a_new_prefix_compute_it_once",
    "test_the_answer_ends_where_the_context_does",
    "test_they_are_those_of_transformers_however_prompts_are_cut_and_batched",
]


FAKE = Path(__file__).parents[2] / "fake_accelerator"


@pytest.fixture
def start(start: Start, monkeypatch: pytest.MonkeyPatch) -> Start:
    monkeypatch.syspath_prepend(FAKE)
    monkeypatch.syspath_prepend(FAKE / "installed")  # its metadata
    return lambda name="llama", **options: start(name, **{"backend": "fake"} | options)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_those_of_transformers(start: Start, served: Served, family: str) -> None:
    prompts = [random_prompt(length, length) for length in (1, 16, 17, 75, 200)]
    with start(family, max_step_tokens=13) as engine:
        answers = engine.generate(prompts, GREEDY)
        again = engine.generate(prompts, GREEDY)
    assert [answer.cached_tokens for answer in again] == [0, 0, 0, 0, 128]
    for prompt, answer, second in zip(prompts, answers, again, strict=True):
        assert list(answer.token_ids) == oracle(served(family), prompt)
        assert answer.token_ids == second.token_ids


def test_retraction_loses_no_token_although_one_is_in_flight(start: Start, served: Served) -> None:
    prompts = [random_prompt(100, seed) for seed in range(6)]
    params = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True)
    with start(kv_tokens=5 * 128) as engine:
        answers = engine.generate(prompts, params)
        assert engine.stats().retractions > 0
    for prompt, answer in zip(prompts, answers, strict=True):
        assert list(answer.token_ids) == oracle(served("llama"), prompt)


def test_sampling_with_everything_on_gives_the_answers_of_the_cpu(start: Start) -> None:
    params = SamplingParams(
        temperature=0.9, top_k=20, top_p=0.9, min_p=0.01, seed=4, max_tokens=20, min_tokens=5,
        repetition_penalty=1.2, presence_penalty=0.3, logprobs=3, logit_bias={3: 2.0},
    )  # fmt: skip
    prompts = [random_prompt(length, length) for length in (1, 17, 75, 200)]
    answers = []
    for backend in ("reference", "fake"):
        with start(backend=backend, page_size=128) as engine:
            answers.append([answer.token_ids for answer in engine.generate(prompts, params)])
            answers.append([engine.generate(prompt, params)[0].token_ids for prompt in prompts])
    assert all(each == answers[0] for each in answers)


def test_min_tokens_counts_the_token_in_flight(start: Start) -> None:
    """The stop token is the likeliest by far: it comes right after five others, not a step later."""
    params = SamplingParams(
        temperature=0, max_tokens=20, min_tokens=5, stop_token_ids=(17,), logit_bias={17: 100.0}
    )
    with start() as engine:
        tokens = engine.generate(random_prompt(10), params)[0].token_ids
    assert [token == 17 for token in tokens] == [False] * 5 + [True]


def test_decodes_are_replayed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    from inarch_fake.device import FakeDevice
    from inarch_fake.executor import FakeExecutor

    executor = FakeExecutor()
    monkeypatch.setattr(FakeDevice, "executor", lambda self: executor)
    with start() as engine:
        engine.generate([random_prompt(5), random_prompt(6), random_prompt(7)], GREEDY)
    assert executor.replays >= 60


def test_memory_is_measured_when_no_size_is_given(start: Start) -> None:
    with start(kv_tokens=None) as engine:
        assert engine.info.memory["activations"] > 0
        assert engine.info.memory["kept"] > 0, "what its captured steps need"
        assert engine.info.kv_tokens >= engine.info.context_length


def test_the_next_step_is_launched_before_the_last_one_is_read(start: Start) -> None:
    """Tokens are one step late: when the first is out, the second is computed already."""
    with start() as engine:
        outputs = engine.stream(random_prompt(10), GREEDY)
        next(outputs)
        (request,) = engine._core._requests.values()
        assert (len(request.output), request.in_flight) == (1, 1)
        outputs.close()


@pytest.mark.parametrize("retract", [False, True])
def test_a_pause_lets_no_further_step_begin_and_loses_none_in_flight(
    start: Start, served: Served, retract: bool
) -> None:
    prompt = random_prompt(40)
    with start() as engine:
        outputs = engine.stream(prompt, GREEDY)
        tokens = list(next(outputs).token_ids)
        engine._core.pause(retract=retract)
        before = engine.stats().steps
        while engine._core.has_work:
            engine._step()
        assert engine.stats().steps - before <= 1
        engine._core.proceed()
        tokens += [token for output in outputs for token in output.token_ids]
    assert tokens == oracle(served("llama"), prompt)
