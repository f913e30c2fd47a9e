"""The whole engine on models with recurrent states: what is cached is used, and changes no token."""

from __future__ import annotations

import gc
import random
import shutil
from pathlib import Path

import msgspec
import pytest

from inarch.config import EngineConfig
from inarch.engine import memory, states
from inarch.engine.engine import Engine
from inarch.grammar import Grammar
from inarch.sampling import SamplingParams

from .test_engine import GREEDY, Served, Start, oracle, random_prompt
from .test_prompt_logprobs import asking, check_answer

HYBRID = "qwen3-next-dense"
MODELS = [("mamba2", 1), (HYBRID, 16), ("falcon-h1", 16), ("kimi-linear", 4)]

FAKE = Path(__file__).parents[2] / "fake_accelerator"


def slots_of(engine: Engine) -> tuple[int, int, int]:
    """Slots that there are, that could be had, and checkpoints."""
    found = engine.stats()
    total = found.state_slots_total
    return total, total - found.state_slots_used, found.state_checkpoints


@pytest.mark.parametrize(("model", "page_size"), MODELS)
def test_greedy_tokens_are_those_of_transformers(
    start: Start, served: Served, model: str, page_size: int
) -> None:
    """Prompts in odd chunks; the same once more from the cache; then with the answers and more."""
    prompts = [random_prompt(length, length) for length in (1, 16, 17, 75)]
    with start(model, page_size=page_size, max_step_tokens=13) as engine:
        first, again = engine.generate(prompts, GREEDY), engine.generate(prompts, GREEDY)
        turns = [p + list(a.token_ids) + [5, 6] for p, a in zip(prompts, first, strict=True)]
        second = engine.generate(turns, GREEDY)
        total, room, _ = slots_of(engine)
    for prompt, answer, repeated in zip(prompts, first, again, strict=True):
        assert list(answer.token_ids) == oracle(served(model), prompt)
        assert repeated.token_ids == answer.token_ids
        assert repeated.cached_tokens == (len(prompt) - 1) // page_size * page_size
    for turn, answer in zip(turns, second, strict=True):
        assert list(answer.token_ids) == oracle(served(model), turn)
        assert answer.cached_tokens == (len(turn) - 3) // page_size * page_size
    assert room == total, "no request holds a state any more"


def test_without_a_prefix_cache_nothing_is_left_behind(start: Start) -> None:
    prompt = random_prompt(75)
    with start(HYBRID, prefix_cache=False) as engine, start(HYBRID) as caching:
        answers = [engine.generate(prompt, GREEDY)[0] for _ in range(2)]
        assert slots_of(engine)[2] == 0
        expected = [caching.generate(prompt, GREEDY)[0] for _ in range(2)]
    assert [answer.cached_tokens for answer in answers] == [0, 0]
    assert [answer.cached_tokens for answer in expected] == [0, 64]
    assert len({answer.token_ids for answer in (*answers, *expected)}) == 1


def test_where_a_second_prompt_departs_a_third_one_goes_on(start: Start, served: Served) -> None:
    shared = random_prompt(100)
    prompts = [shared + random_prompt(30, seed) for seed in (1, 2, 3)]
    with start(HYBRID) as engine:
        answers = [engine.generate(prompt, GREEDY)[0] for prompt in prompts]
    assert [answer.cached_tokens for answer in answers] == [0, 0, 96]
    for prompt, answer in zip(prompts, answers, strict=True):
        assert list(answer.token_ids) == oracle(served(HYBRID), prompt)


def test_long_prompts_leave_states_on_their_way(
    start: Start, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However they are cut: at the end of a chunk as in its middle."""
    monkeypatch.setattr(states, "SPACING", 32)
    prompt = random_prompt(150)
    for step_tokens in (200, 32, 13):
        with start("mamba2", max_step_tokens=step_tokens) as engine:
            engine.generate(prompt, GREEDY)
            departs = [prompt[:at] + random_prompt(20, at) for at in (40, 70, 130)]
            answers = engine.generate(departs, GREEDY)
        assert [answer.cached_tokens for answer in answers] == [32, 64, 128]
        for depart, answer in zip(departs, answers, strict=True):
            assert list(answer.token_ids) == oracle(served("mamba2"), depart)


def test_samples_of_one_prompt_compute_it_once(start: Start, served: Served) -> None:
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, n=4)
    prompt = random_prompt(50)
    with start(HYBRID) as engine:
        answers = engine.generate(prompt, params)
        assert engine.stats().cached_tokens == 3 * 48
    for answer in answers:
        assert list(answer.token_ids) == oracle(served(HYBRID), prompt, 8)


def test_retraction_under_memory_pressure_loses_no_token(start: Start, served: Served) -> None:
    prompts = [random_prompt(30, seed) for seed in range(8)]
    with start(HYBRID, kv_tokens=256) as engine:
        answers = engine.generate(prompts, GREEDY)
        assert engine.stats().retractions > 0
        total, room, _ = slots_of(engine)
        assert room == total
    for prompt, answer in zip(prompts, answers, strict=True):
        assert list(answer.token_ids) == oracle(served(HYBRID), prompt)


def test_with_few_slots_requests_wait_for_none_and_checkpoints_go(
    start: Start, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One slot a request is enough for right answers, only not for a cache beside them."""
    monkeypatch.setattr(memory, "USEFUL_STATES", 1)
    chance = random.Random(1)
    shared = random_prompt(60)
    prompts = [shared[: chance.randint(1, 60)] + random_prompt(5, seed) for seed in range(12)]
    with start("mamba2", max_running_requests=3, max_step_tokens=17) as engine:
        assert slots_of(engine)[0] == 3
        answers = engine.generate(prompts, GREEDY) + engine.generate(prompts, GREEDY)
        assert slots_of(engine)[:2] == (3, 3)
    for prompt, answer in zip(prompts * 2, answers, strict=True):
        assert list(answer.token_ids) == oracle(served("mamba2"), prompt)


def test_as_many_requests_run_as_have_room_for_a_state(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device with room for some 40 states, where nobody said how many should run."""
    monkeypatch.syspath_prepend(FAKE)
    monkeypatch.syspath_prepend(FAKE / "installed")  # its metadata
    from inarch_fake.backend import FakeBackend
    from inarch_fake.device import FakeDevice

    options = {"backend": "fake", "max_running_requests": None, "kv_tokens": None}
    with start("mamba2", **options, max_step_tokens=256) as engine:
        parts = engine.info.memory
        needed = sum(parts[name] for name in ("weights", "activations", "kept", "sampling"))
        room = 40 * parts["states"] // (slots_of(engine)[0] + 1)
    del engine
    gc.collect()
    total = int((needed + room) / FakeDevice.memory_share)
    monkeypatch.setattr(FakeBackend, "open", lambda self, index: FakeDevice(total))
    with start("mamba2", **options, max_step_tokens=256) as engine:
        running = engine.info.max_running_requests
        assert 20 < running < 60
        assert slots_of(engine)[0] == running
        prompts = [random_prompt(9, seed) for seed in range(running + 9)]
        params = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)
        assert len(engine.generate(prompts, params)) == len(prompts)


def test_prompts_may_be_asked_for_their_log_probabilities(start: Start, served: Served) -> None:
    prompts = [random_prompt(length, length) for length in (1, 16, 75)]
    with start(HYBRID, max_step_tokens=13) as engine:
        for _ in range(2):
            for prompt, answer in zip(prompts, engine.generate(prompts, asking()), strict=True):
                check_answer(answer, prompt, served(HYBRID))
        late = engine.generate(prompts[2], asking(logprob_start=70))[0]
        check_answer(late, prompts[2], served(HYBRID), start=70)
        assert late.cached_tokens == 64


def test_a_stream_that_is_left_gives_its_state_back(start: Start) -> None:
    with start(HYBRID) as engine:
        outputs = engine.stream(random_prompt(40), GREEDY)
        next(outputs)
        total, room, _ = slots_of(engine)
        assert room < total
        outputs.close()
        total, room, checkpoints = slots_of(engine)
        assert room == total
        assert checkpoints > 0, "what it has computed can be used again"


@pytest.mark.parametrize("page_size", [1, 4])
def test_tokens_that_a_grammar_forces_change_no_answer(
    served: Served, page_size: int, tmp_path: Path
) -> None:
    pytest.importorskip("llguidance")
    held = SamplingParams(
        temperature=0, max_tokens=60, grammar=Grammar(kind="regex", source="([ab]cdefg){6}")
    )
    prompt = random_prompt(9)
    folder = shutil.copytree(served(HYBRID).folder, tmp_path / "model")
    (folder / "generation_config.json").write_text('{"eos_token_id": 100}')
    config = EngineConfig(
        model=str(folder), backend="reference", kv_tokens=4096, page_size=page_size
    )
    with Engine(config) as engine:
        jumped = engine.generate(prompt, held)[0]
        steps = engine.stats().steps
        sampled = engine.generate(prompt, msgspec.structs.replace(held, logprobs=0))[0]
        assert steps < engine.stats().steps - steps
        turn = prompt + list(jumped.token_ids) + [3]
        assert engine.generate(turn, GREEDY)[0].cached_tokens > len(prompt)
    assert jumped.token_ids == sampled.token_ids


@pytest.mark.parametrize("model", ["mamba2", HYBRID])
def test_on_an_accelerator_decodes_are_replayed_and_answers_are_the_same(
    start: Start, served: Served, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(FAKE)
    monkeypatch.syspath_prepend(FAKE / "installed")  # its metadata
    from inarch_fake.device import FakeDevice
    from inarch_fake.executor import FakeExecutor

    executor = FakeExecutor()
    monkeypatch.setattr(FakeDevice, "executor", lambda self: executor)
    params = msgspec.structs.replace(GREEDY, max_tokens=16)
    prompts = [random_prompt(length, length) for length in (1, 17, 150)]
    with start(model, backend="fake", max_step_tokens=29) as engine:
        answers, again = engine.generate(prompts, params), engine.generate(prompts, params)
    assert executor.replays >= 20
    assert [answer.cached_tokens for answer in again] == [0, 0, 128]
    for prompt, answer, repeated in zip(prompts, answers, again, strict=True):
        assert list(answer.token_ids) == oracle(served(model), prompt, 16)
        assert answer.token_ids == repeated.token_ids
