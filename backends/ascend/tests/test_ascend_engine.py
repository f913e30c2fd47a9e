"""The whole engine on the simulated NPU: the tokens of the reference backend, in whatever steps."""

from __future__ import annotations

import gc
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from inarch.config import EngineConfig
from inarch.engine.engine import Engine
from inarch.hal.device import Device
from inarch.sampling import SamplingParams

HERE = Path(__file__).parent
VOCABULARY = 304
GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "max_position_embeddings": 1024,
    "bos_token_id": None,
    "eos_token_id": None,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MODELS = {
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {}),
    "qwen3-windows": (
        Qwen3Config,
        Qwen3ForCausalLM,
        {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 1},
    ),
    "qwen3-moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM, EXPERTS),
}

Start = Callable[..., Engine]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of each of MODELS, made once; other names are the engine's own."""
    made: dict[str, str] = {}

    def get(name: str) -> str:
        if name in MODELS and name not in made:
            made[name] = str(make(name, tmp_path_factory.mktemp(name)))
        return made.get(name, name)

    return get


def make(name: str, folder: Path) -> Path:
    config_class, model_class, own = MODELS[name]
    torch.manual_seed(sum(name.encode()))
    model = model_class(config_class(**(SHAPE | own))).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.normal_(mean=float("norm" in key), std=0.1)
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({}))
    return folder


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def start(
    npu: Device,
    float32_attention: None,
    folders: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> Start:
    monkeypatch.syspath_prepend(HERE / "installed")  # the metadata of the simulated backend

    def start(name: str, backend: str = "ascend", **options: object) -> Engine:
        options = {
            "dtype": "float32", "page_size": 128, "kv_tokens": 2048, "max_running_requests": 8,
        } | options  # fmt: skip
        return Engine(EngineConfig(model=folders(name), backend=backend, **options))  # type: ignore[arg-type]

    return start


def prompt(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(VOCABULARY), k=length)


PROMPTS = [prompt(length, length) for length in (1, 17, 75, 200, 140)]


@pytest.mark.parametrize("name", [*MODELS, "inarch-tiny"])
def test_greedy_tokens_are_those_of_the_reference(start: Start, name: str) -> None:
    """Prompts in chunks beside decodes, then the same over the cached prefixes, in replayed graphs."""
    with start(name, "reference") as engine:
        expected = tokens(engine, PROMPTS)
    with start(name, max_step_tokens=90) as engine:
        assert not engine.info.reference_ops
        assert tokens(engine, PROMPTS) == expected
        again = engine.generate(PROMPTS, GREEDY)
        assert [answer.token_ids for answer in again] == expected
        assert [answer.cached_tokens for answer in again] == [0, 0, 0, 128, 128]
        assert engine._core._runner._executor.captured >= 2  # type: ignore[attr-defined]


def tokens(engine: Engine, prompts: Sequence[list[int]]) -> list[object]:
    return [answer.token_ids for answer in engine.generate(list(prompts), GREEDY)]


def test_retraction_loses_no_token(start: Start) -> None:
    prompts = [prompt(100, seed) for seed in range(5)]
    params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    with start("qwen3", "reference") as engine:
        expected = [answer.token_ids for answer in engine.generate(prompts, params)]
    with start("qwen3", kv_tokens=4 * 128) as engine:
        assert [answer.token_ids for answer in engine.generate(prompts, params)] == expected
        assert engine.stats().retractions > 0


def test_sampling_with_everything_on_gives_the_answers_of_the_reference(start: Start) -> None:
    params = SamplingParams(
        temperature=0.9, top_k=20, top_p=0.9, min_p=0.01, seed=4, max_tokens=16, min_tokens=5,
        repetition_penalty=1.2, presence_penalty=0.3, logprobs=3, logit_bias={3: 2.0},
    )  # fmt: skip
    answers = []
    for backend in ("reference", "ascend"):
        with start("qwen3", backend) as engine:
            answers.append([answer.token_ids for answer in engine.generate(PROMPTS, params)])
    assert answers[0] == answers[1]


@pytest.mark.parametrize("quantization", ["none", "int8", "int4"])
def test_in_bfloat16_log_probabilities_are_near_those_of_float32(
    start: Start, quantization: str
) -> None:
    """What an NPU computes in: neither attention nor quantized weights take a wider dtype there."""
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
    found = []
    for backend, dtype in (("reference", "float32"), ("ascend", "bfloat16")):
        with start("qwen3", backend, dtype=dtype, quantization=quantization) as engine:
            (answer,) = engine.generate([prompt(90)], params)
            found.append([told.logprob for told in answer.prompt_logprobs])
    assert engine.info.reference_ops == ()
    assert len(found[0]) == 89
    assert max(abs(a - b) for a, b in zip(*found, strict=True)) < 0.25
