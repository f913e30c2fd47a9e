"""Log-probabilities of prompts and of named tokens, against transformers' logits."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from inarch.config import EngineConfig
from inarch.engine.answers import Answer
from inarch.engine.engine import Engine
from inarch.engine.outputs import TokenLogprob
from inarch.errors import InvalidRequestError
from inarch.sampling import SamplingParams

from ..models.oracle import Saved
from ..models.zoo.example import SMALL

Start = Callable[..., Engine]
Served = Callable[[str], Saved]
NAMED = (7, 3, 99)
LENGTHS = (1, 2, 16, 17, 75)


def random_prompt(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(int(SMALL["vocab_size"])), k=length)


def asking(top: int = 3, **other: object) -> SamplingParams:
    given = {"max_tokens": 4, "temperature": 0, "ignore_eos": True, "logprob_token_ids": NAMED}
    return SamplingParams(prompt_logprobs=top, **(given | other))  # type: ignore[arg-type]


def check(
    entries: tuple[TokenLogprob, ...], tokens: list[int], first: int, said: torch.Tensor, top: int
) -> None:
    """Entries are those of tokens [first, first + N), each about the logits before it."""
    logprobs = torch.log_softmax(said, -1)
    for entry, place in zip(entries, range(first, len(tokens)), strict=True):
        row = logprobs[place - 1]
        assert entry.token_id == tokens[place]
        assert entry.logprob == pytest.approx(float(row[tokens[place]]), abs=2e-4)
        assert list(entry.wanted) == pytest.approx([float(row[i]) for i in NAMED], abs=2e-4)
        values, _ = row.topk(top)
        assert [value for _, value in entry.top] == pytest.approx(values.tolist(), abs=2e-4)
        assert all(value == pytest.approx(float(row[i]), abs=2e-4) for i, value in entry.top)


def check_answer(
    answer: Answer, prompt: list[int], saved: Saved, start: int = 0, top: int = 3
) -> None:
    check(answer.prompt_logprobs, prompt, max(start, 1), saved.logits(prompt), top)


@pytest.mark.parametrize("prefix_cache", [True, False])
@pytest.mark.parametrize("family", ["llama", "mistral-window", "qwen2"])
def test_they_are_those_of_transformers_however_prompts_are_cut_and_batched(
    start: Start, served: Served, family: str, prefix_cache: bool
) -> None:
    prompts = [random_prompt(length, length) for length in LENGTHS]
    with start(family, max_step_tokens=13, prefix_cache=prefix_cache) as engine:
        for _ in range(2):  # the second time every prompt is in the cache
            for prompt, answer in zip(prompts, engine.generate(prompts, asking()), strict=True):
                check_answer(answer, prompt, served(family))


def test_the_cache_serves_the_part_of_a_prompt_that_is_not_asked_about(
    start: Start, served: Served
) -> None:
    prompt = random_prompt(150)
    with start(page_size=16) as engine:
        engine.generate(prompt, asking())
        for first in (0, 1, 64, 65, 149, 150, 1000):
            answer = engine.generate(prompt, asking(logprob_start=first))[0]
            check_answer(answer, prompt, served("llama"), start=min(first, 150))
            assert answer.cached_tokens == min(max(first - 1, 0), 149) // 16 * 16


def test_only_those_who_ask_compute_their_prompt_again(start: Start, served: Served) -> None:
    prompt = random_prompt(150)
    with start(page_size=16) as engine:
        engine.generate(prompt, asking())
        asked, other = engine.generate(
            [prompt, prompt], [asking(logprob_token_ids=()), SamplingParams(max_tokens=1)]
        )
        assert (asked.cached_tokens, other.cached_tokens) == (0, 144)
        assert other.prompt_logprobs == ()


def test_each_of_several_samples_tells_of_the_prompt(start: Start, served: Served) -> None:
    prompt = random_prompt(30)
    with start() as engine:
        answers = engine.generate(prompt, asking(n=3, temperature=1.0, seed=1))
    assert len({answer.token_ids for answer in answers}) == 3
    for answer in answers:
        check_answer(answer, prompt, served("llama"))


def test_asking_changes_no_token(start: Start) -> None:
    prompts = [random_prompt(length, length) for length in LENGTHS]
    plain = SamplingParams(max_tokens=20, seed=1, ignore_eos=True)
    with start(max_step_tokens=29, prefix_cache=False) as engine:
        expected = [answer.token_ids for answer in engine.generate(prompts, plain)]
        asked = engine.generate(prompts, asking(max_tokens=20, temperature=1.0, seed=1))
    assert [answer.token_ids for answer in asked] == expected


def test_they_survive_a_retraction(start: Start, served: Served) -> None:
    """Memory for little more than one of the requests, each of which grows."""
    prompts = [random_prompt(60, seed) for seed in range(6)]
    with start(page_size=4, kv_tokens=160, max_step_tokens=17) as engine:
        answers = engine.generate(prompts, asking(max_tokens=60))
        assert engine.stats().retractions > 0
    for prompt, answer in zip(prompts, answers, strict=True):
        check_answer(answer, prompt, served("llama"))


def test_named_tokens_are_told_at_every_place_of_the_answer(start: Start, served: Served) -> None:
    prompts = [random_prompt(length, length) for length in LENGTHS]
    with start() as engine:
        params = [asking(logprobs=count % 3) for count in range(len(prompts))]
        answers = engine.generate(prompts, params)
    for count, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        tokens = prompt + list(answer.token_ids)
        check(answer.logprobs, tokens, len(prompt), served("llama").logits(tokens), count % 3)


def test_with_no_token_wanted_the_prompt_alone_is_told_and_cached(
    start: Start, served: Served
) -> None:
    prompt = random_prompt(40)
    with start(page_size=4) as engine:
        answer = engine.generate(prompt, asking(max_tokens=0, logprobs=1))[0]
        assert (answer.token_ids, answer.text, answer.finish_reason) == ((), "", "length")
        assert answer.logprobs == ()
        check_answer(answer, prompt, served("llama"))
        assert engine.generate(prompt, SamplingParams(max_tokens=1))[0].cached_tokens == 36


def test_a_prompt_as_long_as_the_context_can_be_scored_but_not_continued(
    start: Start, served: Served
) -> None:
    prompt = random_prompt(64)
    with start(context_length=64) as engine:
        check_answer(engine.generate(prompt, asking(max_tokens=0))[0], prompt, served("llama"))
        with pytest.raises(InvalidRequestError, match="64 tokens"):
            engine.generate(prompt, asking())


def test_the_bundled_model_says_what_transformers_says() -> None:
    """Real text and a real vocabulary, in float32, with more of it asked for than rows fit a step."""
    transformers = pytest.importorskip("transformers")
    config = EngineConfig(
        dtype="float32", backend="reference", kv_tokens=2048, max_running_requests=4
    )
    with Engine(config) as engine:
        text = "The capital of France is Paris. The days of the week are Monday, Tuesday and so on."
        prompt = engine.tokenizer.encode(text)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            engine.config.model, dtype=torch.float32
        )
        answer = engine.generate(text, asking(top=5, logprobs=5, max_tokens=8))[0]
    tokens = prompt + list(answer.token_ids)
    with torch.inference_mode():
        said = model(torch.tensor([tokens])).logits[0]
    check(answer.prompt_logprobs, prompt, 1, said, 5)
    check(answer.logprobs, tokens, len(prompt), said, 5)
    total = sum(entry.logprob for entry in answer.logprobs)
    assert answer.cumulative_logprob == pytest.approx(total)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"prompt_logprobs": 21}, "prompt_logprobs must be between 0 and 20, got 21"),
        ({"logprob_start": -1}, "logprob_start"),
        ({"logprob_token_ids": (1,)}, "needs logprobs or prompt_logprobs"),
        ({"logprobs": 0, "logprob_token_ids": (101,)}, "token id 101 is outside the vocabulary"),
        ({"logprobs": 0, "logprob_token_ids": (1,) * 1025}, "at most 1024"),
    ],
)
def test_what_cannot_be_told_is_refused(params: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        SamplingParams(**params).check(101)  # type: ignore[arg-type]
