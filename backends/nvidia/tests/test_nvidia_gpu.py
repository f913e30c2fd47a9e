"""On a GPU: logits of whole models against transformers, graphs, and that no op is left behind."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator

import pytest
import torch

from inarch.config import EngineConfig
from inarch.engine.engine import Engine
from inarch.hal.reference.executor import EagerExecutor
from inarch.sampling import SamplingParams

from .random_models import MODELS, VOCABULARY, Saved, load, load_stepped, make

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs an NVIDIA GPU: ci/gpu runs this file on one"
)
GREEDY = SamplingParams(temperature=0, max_tokens=48, ignore_eos=True)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Saved]:
    """Each model of MODELS, made once, on the GPU."""
    made: dict[str, Saved] = {}

    def get(name: str) -> Saved:
        if name not in made:
            made[name] = make(name, tmp_path_factory.mktemp(name))
            made[name].model.to("cuda")
        return made[name]

    return get


@pytest.fixture
def device():
    from inarch_nvidia.device import NvidiaDevice

    return NvidiaDevice(0)


@pytest.fixture
def start(saved) -> Iterator[Callable[..., Engine]]:
    def start(name: str = "llama", **options) -> Engine:
        options = {"backend": "nvidia", "kv_tokens": 65536, "max_running_requests": 64} | options
        return Engine(EngineConfig(model=str(saved(name).folder), **options))

    yield start
    gc.collect()
    torch.cuda.empty_cache()


def prompt(length: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(VOCABULARY), k=length)


def divergence(truth: torch.Tensor, logits: torch.Tensor) -> float:
    """KL divergence in nats of the distributions that two rows of logits stand for."""
    log_p, log_q = truth.double().log_softmax(-1), logits.double().cpu().log_softmax(-1)
    return float((log_p.exp() * (log_p - log_q)).sum())


def skip_without_fp8(device):
    for dtype, support in device.kv_dtypes(torch.bfloat16):
        if dtype == torch.float8_e4m3fn and not support:
            pytest.skip(support.why)


@pytest.mark.parametrize("poison", [False, True], ids=["", "poisoned pages"])
@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_transformers(saved, device, name, poison):
    check_logits(saved, device, name, poison, None, 1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_logits_over_fp8_pages_are_close_to_those_of_transformers(saved, device, name):
    """The reference over such pages diverges by up to 9e-4 on a few such prompts."""
    skip_without_fp8(device)
    check_logits(saved, device, name, True, torch.float8_e4m3fn, 4e-3)


def check_logits(saved, device, name, poison, stored, near):
    """Prompts cut into odd chunks, mixed with decodes; unwritten memory holds NaN."""
    tokens = {row: prompt(150 + 37 * row, row) for row in range(4)}
    expected = {row: saved(name).logits(ids) for row, ids in tokens.items()}
    ours = load(saved(name).folder, device, torch.bfloat16, stored=stored)
    if poison:
        for k, v in ours._kv:
            k.fill_(torch.nan)
            v.fill_(torch.nan)
    done = dict.fromkeys(tokens, 0)
    chunks = random.Random(0)
    while chunks_now := {
        row: chunks.choice((1, 1, 2, 17, 64, 70))
        for row, ids in tokens.items()
        if done[row] < len(ids)
    }:
        step = {row: tokens[row][done[row] : done[row] + size] for row, size in chunks_now.items()}
        for row, logits in ours.step(step).items():
            done[row] += len(step[row])
            assert divergence(expected[row][done[row] - 1], logits) < near


@pytest.mark.parametrize("name", MODELS)
def test_a_replayed_graph_computes_what_the_eager_step_does(saved, device, name):
    executor = device.executor()
    eager, graphed = (
        load_stepped(saved(name).folder, device, torch.bfloat16, each)
        for each in (EagerExecutor(device), executor)
    )
    prompts = {row: prompt(60 + 5 * row, row) for row in range(8)}
    eager.step(prompts)
    graphed.step(prompts)
    for rows in (8, 8, 2, 8, 4, 8, 2, 1, 4, 1):  # lengths cross the border of a page
        step = {row: prompt(1, row) for row in range(rows)}
        expected, found = eager.step(step), graphed.step(step)
        for row in range(rows):
            torch.testing.assert_close(found[row], expected[row], rtol=0, atol=1e-3)
    assert executor.captured == 5, "the prompts, and decodes of 8, 4, 2 and 1"


# Steps of one bucket: what the rows of each append.
MIXED = [
    {0: 100, 1: 70, 2: 30},
    {3: 200},
    {0: 1, 1: 1, 2: 1, 3: 1, 4: 190, 5: 20},
    {0: 1, 1: 1, 2: 2, 3: 17, 5: 180},
    {**dict.fromkeys(range(6), 1), **dict.fromkeys(range(6, 30), 8)},
]


@pytest.mark.parametrize("name", MODELS)
def test_replayed_steps_with_prompts_compute_what_eager_steps_do(saved, device, name):
    executor = device.executor()
    eager, graphed = (
        load_stepped(saved(name).folder, device, torch.float32, each)
        for each in (EagerExecutor(device), executor)
    )
    for number, sizes in enumerate(MIXED):
        step = {row: prompt(size, 100 * number + row) for row, size in sizes.items()}
        expected, found = eager.step(step), graphed.step(step)
        for row in step:
            torch.testing.assert_close(found[row], expected[row], rtol=0, atol=1e-4)
    assert executor.captured == 1


def test_a_replayed_step_is_bitwise_the_eager_one_of_its_bucket(saved, device):
    """A step runs as it comes where its bucket is met first, and is replayed elsewhere."""
    step = {row: prompt(size, row) for row, size in MIXED[0].items()}
    folder = saved("llama").folder
    first, second = (
        load_stepped(folder, device, torch.bfloat16, device.executor()) for _ in range(2)
    )
    second.step({9: prompt(200, 9)})
    expected, found = first.step(step), second.step(step)
    for row in step:
        assert torch.equal(found[row], expected[row])


def test_what_was_prepared_while_idle_is_not_captured_again(start):
    prompts = [prompt(length, length) for length in (5, 40, 100, 150)]
    with start(max_running_requests=8, max_step_tokens=256) as engine:
        expected = [answer.token_ids for answer in engine.generate(prompts, GREEDY)]
    with start(max_running_requests=8, max_step_tokens=256) as engine:
        while engine._core.prepare():
            pass
        executor = engine._core._runner._executor
        before = executor.captured
        found = [answer.token_ids for answer in engine.generate(prompts, GREEDY)]
        assert executor.captured == before
        assert engine.stats().steps <= len(prompts) + GREEDY.max_tokens + 2
    assert found == expected


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, "bfloat16") for name in MODELS), ("llama", "float16"), ("qwen3", "float32")],
)
def test_no_op_is_left_to_the_reference(start, name, dtype):
    with start(name, strict=True, dtype=dtype) as engine:
        params = SamplingParams(max_tokens=4, seed=1, logprobs=3, frequency_penalty=0.5, top_k=20)
        answer = engine.generate([1, 2, 3], params)[0]
    assert len(answer.token_ids) == 4


def test_fp8_pages_take_half_the_memory_and_leave_no_op_to_the_reference(start, device):
    skip_without_fp8(device)
    taken = {}
    for kv_dtype in ("auto", "fp8"):
        with start(kv_dtype=kv_dtype, strict=True) as engine:
            taken[engine.info.kv_dtype] = engine.info.memory["kv"]
            assert len(engine.generate(prompt(200, 0), GREEDY)[0].token_ids) == 48
    assert taken["bfloat16"] == 2 * taken["float8_e4m3fn"]
