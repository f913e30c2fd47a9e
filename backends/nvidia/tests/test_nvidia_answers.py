"""What the engine promises of an answer, on a GPU: it is the same whatever goes on beside it.

In float32 that is a promise of every backend, so the reference is held to it here as well, at a
smaller size: the tests themselves are tried on every machine.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from inarch.config import EngineConfig
from inarch.engine.engine import Engine
from inarch.sampling import SamplingParams

from .random_models import MODELS, VOCABULARY, make

GPU = torch.cuda.is_available()
BACKENDS = [
    "reference",
    pytest.param(
        "nvidia",
        marks=pytest.mark.skipif(not GPU, reason="needs an NVIDIA GPU: ci/gpu runs this on one"),
    ),
]
FULL = {"reference": 12, "nvidia": 256}  # requests of a full batch
GREEDY = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
KINDS = [
    {"temperature": 0.8},
    {"top_p": 0.9},
    {"top_k": 20, "temperature": 1.4},
    {"min_p": 0.05, "frequency_penalty": 0.5},
    {"temperature": 0.0, "repetition_penalty": 1.2},
]

Start = Callable[..., Engine]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of each of MODELS, made once."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = make(name, tmp_path_factory.mktemp(name)).folder
        return made[name]

    return get


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(folders, backend: str) -> Iterator[Start]:
    """An engine in float32 with the backend at hand and room for everybody, unless told otherwise."""

    def start(name: str | None = "llama", **options: object) -> Engine:
        model = None if name is None else str(folders(name))
        usual = {"kv_tokens": 65536, "max_running_requests": 256, "dtype": "float32"}
        return Engine(EngineConfig(model=model, **({"backend": backend} | usual | options)))

    yield start
    gc.collect()
    if GPU:
        torch.cuda.empty_cache()


def prompt(length: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(VOCABULARY), k=length)


def sampled(count: int, tokens: int = 24) -> list[SamplingParams]:
    return [
        SamplingParams(max_tokens=tokens, ignore_eos=True, seed=seed, **KINDS[seed % len(KINDS)])
        for seed in range(count)
    ]


def tokens(
    engine: Engine, prompts: Sequence[object], params: object = GREEDY
) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in engine.generate(prompts, params)]


@pytest.mark.parametrize("name", MODELS)
def test_greedy_tokens_are_those_of_the_reference(start: Start, name: str) -> None:
    prompts = [prompt(length, length) for length in (1, 17, 64, 65, 200)]
    with start(name, backend="reference", page_size=64) as engine:
        expected = tokens(engine, prompts)
    with start(name) as engine:
        assert tokens(engine, prompts) == expected


def test_the_bundled_model_says_what_it_says_on_the_reference(start: Start) -> None:
    prompts = [
        "The capital of France is",
        "List the days of the week.",
        "One day a fox",
        "Count from one to ten: one, two,",
        "A " * 300,
    ]
    with start(None, backend="reference") as engine:
        expected = engine.generate(prompts, GREEDY)
    with start(None) as engine:
        found = engine.generate(prompts, GREEDY)
    assert [a.token_ids for a in found] == [a.token_ids for a in expected]
    assert [a.text for a in found] == [a.text for a in expected]


@pytest.mark.parametrize("name", ["llama", "mistral-window", "qwen3"])
def test_a_seeded_answer_is_the_same_alone_and_in_a_full_batch(
    start: Start, backend: str, name: str
) -> None:
    count = FULL[backend]
    prompts = [prompt(10 + seed % 60, seed) for seed in range(count)]
    params = sampled(count)
    with start(name) as engine:
        together = tokens(engine, prompts, params)
        for i in (0, 1, 2, count // 2 + 1, count - 1):
            assert tokens(engine, [prompts[i]], params[i]) == [together[i]], i


@pytest.mark.parametrize("seqs", [1, 7, 256])
def test_in_bfloat16_an_answer_does_not_depend_on_what_its_neighbours_say(
    start: Start, backend: str, seqs: int
) -> None:
    """Lengths, and with them kernels and the order of every sum, are the same; the texts are not.

    More is not promised in 16 bits: another batch size may round otherwise.
    """
    count = min(seqs, FULL[backend])
    lengths, ours = [20 + 3 * (i % 30) for i in range(count)], count // 3
    params = sampled(count)

    def answer(engine: Engine, neighbours: int) -> tuple[int, ...]:
        prompts = [prompt(length, neighbours + i) for i, length in enumerate(lengths)]
        prompts[ours] = prompt(lengths[ours], -1)
        return tokens(engine, prompts, params)[ours]

    with start(dtype="bfloat16", prefix_cache=False) as engine:
        answer(engine, 10_000)  # graphs are captured, so that every later step is a replay
        assert answer(engine, 20_000) == answer(engine, 30_000)


def test_a_cached_prefix_changes_no_token(start: Start) -> None:
    shared = prompt(200, 0)
    prompts = [shared + prompt(30 + i, i) for i in range(4)]
    with start(prefix_cache=False) as engine:
        fresh = tokens(engine, prompts)
        assert engine.stats().cached_tokens == 0
    with start() as engine:
        one_by_one = [tokens(engine, [each])[0] for each in prompts]
        assert engine.stats().cached_tokens >= 3 * 128
        again = engine.generate(prompts, GREEDY)
    assert one_by_one == fresh
    assert [answer.token_ids for answer in again] == fresh
    assert all(answer.cached_tokens >= 128 for answer in again)


@pytest.mark.parametrize("name", ["llama", "mistral-window"])
def test_a_prompt_cut_into_chunks_beside_decodes_changes_no_token(start: Start, name: str) -> None:
    prompts = [prompt(length, length) for length in (1, 300, 5, 130, 64)]
    with start(name, prefix_cache=False) as engine:
        whole = tokens(engine, prompts)
        steps = engine.stats().steps
    # The budget is never less than the requests that may run.
    with start(name, prefix_cache=False, max_step_tokens=48, max_running_requests=8) as engine:
        assert tokens(engine, prompts) == whole
        assert engine.stats().steps >= steps + 500 // 48 - 1


@pytest.mark.parametrize("params", [GREEDY, None], ids=["greedy", "seeded"])
def test_retraction_changes_no_token(start: Start, params: SamplingParams | None) -> None:
    prompts = [prompt(128, 0) + prompt(50, seed) for seed in range(16)]
    wanted = [params] * 16 if params else sampled(16, tokens=48)
    with start(prefix_cache=False) as engine:
        free = tokens(engine, prompts, wanted)
    with start(kv_tokens=640) as engine:
        squeezed = tokens(engine, prompts, wanted)
        assert engine.stats().retractions > 0
    assert squeezed == free


@pytest.mark.parametrize("name", ["llama", "mistral-window"])
def test_either_side_goes_on_from_what_the_other_has_prefilled(
    start: Start, backend: str, name: str
) -> None:
    text, one_token = prompt(300, 3), SamplingParams(temperature=0, max_tokens=1)
    with start(name, backend="reference", page_size=16) as engine:
        (expected,) = tokens(engine, [text])
    for first, second in ((backend, "reference"), ("reference", backend)):
        with start(name, backend=first) as engine:
            (begun,) = engine.generate(text, one_token)
            prefix = engine.export_prefix(text)
        with start(name, backend=second) as engine:
            cached = engine.import_prefix(prefix)
            (answer,) = engine.generate([*text, *begun.token_ids], GREEDY)
        assert answer.cached_tokens == cached >= 256
        assert (*begun.token_ids, *answer.token_ids)[: len(expected)] == expected
