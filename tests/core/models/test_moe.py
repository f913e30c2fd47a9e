"""Mixtures of experts from config and checkpoint to the decoder: sizes, formats, kernels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from inarch.errors import ModelError, UnsupportedError
from inarch.hal.dispatch import REFERENCE, Dispatcher
from inarch.hal.experts import ExpertsSpec, ExpertWeights
from inarch.hal.op import Kernel
from inarch.hal.ops.activation import silu_mul
from inarch.hal.reference.attention import ReferenceAttention
from inarch.hal.reference.device import ReferenceDevice
from inarch.hal.reference.experts import ComposedExperts
from inarch.hal.reference.grouped_linear import ReferenceGroupedLinear
from inarch.hal.reference.kv import ReferenceKVStore
from inarch.models.checkpoint import SINGLE, Checkpoint
from inarch.models.decoder import Decoder, kv_spec
from inarch.models.description import MixtureOfExperts
from inarch.models.family import find_family
from inarch.models.loading import load_decoder

from .oracle import Saved, load, make

PROMPT = [5, 17, 42, 99, 3, 60, 61, 62]


def logits(folder: Path, **how: Any) -> Tensor:
    return load(folder, **how).step({0: PROMPT})[0]


def elements(config: dict[str, Any]) -> int:
    description = find_family(config).describe(config)
    return sum(parameter.elements for parameter in description.parameters().values())


PUBLISHED = {
    "mixtral-8x7b": (
        {"architectures": ["MixtralForCausalLM"], "num_local_experts": 8},
        46_702_792_704,
    ),
    "qwen3-30b-a3b": (
        {
            "architectures": ["Qwen3MoeForCausalLM"],
            "head_dim": 128,
            "num_hidden_layers": 48,
            "num_experts": 128,
        },
        30_532_122_624,
    ),
    "qwen1.5-moe-a2.7b": ({"architectures": ["Qwen2MoeForCausalLM"]}, 14_315_784_192),
    "gpt-oss-20b": (
        {
            "architectures": ["GptOssForCausalLM"],
            "num_hidden_layers": 24,
            "num_local_experts": 32,
            "quantization_config": {"quant_method": "mxfp4"},
        },
        20_914_757_184,
    ),
    "olmoe-7b": (
        {"architectures": ["OlmoeForCausalLM"], "intermediate_size": 1024},
        6_919_161_856,
    ),
    "phi-3.5-moe": (
        {
            "architectures": ["PhimoeForCausalLM"],
            "attention_bias": True,
            "lm_head_bias": True,
        },
        41_873_153_344,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_size(name: str) -> None:
    config, published = PUBLISHED[name]
    assert elements(config) == published


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_experts_per_tok": 9}, "num_experts_per_tok must be at most .* 8, found 9"),
        ({"num_local_experts": 0}, "num_local_experts must be a whole number .* found 0"),
        ({"hidden_act": "relu"}, "hidden_act must be one of silu"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, r"quantized \(mxfp4\)"),
    ],
)
def test_a_wrong_value_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        elements({"architectures": ["MixtralForCausalLM"]} | change)


def test_other_quantizations_of_gpt_oss_are_refused() -> None:
    config = {
        "architectures": ["GptOssForCausalLM"],
        "quantization_config": {"quant_method": "awq"},
    }
    with pytest.raises(ModelError, match=r"quantized \(awq\)"):
        elements(config)


def test_experts_that_were_saved_as_a_stack_are_the_same(
    saved: Callable[[str], Saved], tmp_path: Path
) -> None:
    apart = saved("qwen2-moe")
    apart.model.save_pretrained(tmp_path, save_original_format=False)
    assert "model.layers.0.mlp.experts.gate_up_proj" in load_file(tmp_path / SINGLE)
    assert torch.equal(logits(tmp_path), logits(apart.folder))


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    folder = make("mixtral", tmp_path).folder
    tensors = load_file(folder / SINGLE)
    lost = "model.layers.1.block_sparse_moe.experts.3.w2.weight"
    del tensors[lost]
    save_file(tensors, folder / SINGLE)
    with pytest.raises(ModelError, match=f"lacks 1 .*: {lost}"):
        load(folder)


class CountedLinear(ReferenceGroupedLinear):
    capturable = True
    calls = 0

    def apply(self, *args: Any) -> Tensor:
        CountedLinear.calls += 1
        return super().apply(*args)


class WholeExperts:
    """A layer's experts in one: every expert on every token."""

    capturable = True

    def prepack(self, spec: ExpertsSpec, weights: ExpertWeights) -> ExpertWeights:
        return weights

    def apply(self, x: Tensor, experts: Tensor, weights: Tensor, packed: ExpertWeights) -> Tensor:
        hidden = silu_mul(torch.einsum("th,eih->tei", x, packed.gate_up))
        given = torch.einsum("tei,ehi->teh", hidden, packed.down)
        share = torch.zeros(len(x), len(packed.down)).scatter_(1, experts, weights)
        return torch.einsum("teh,te->th", given, share)


class CapturableAttention(ReferenceAttention):
    capturable = True


PARTS = Kernel("grouped_linear", "counted", CountedLinear)
WHOLE = Kernel("experts", "whole", WholeExperts)
ATTENTION = Kernel("attention", "capturable", CapturableAttention)


def decoder(folder: Path, dispatcher: Dispatcher) -> Decoder:
    checkpoint, device, dtype = Checkpoint(folder), ReferenceDevice(), torch.float32
    family = find_family(checkpoint.config)
    description = family.describe(checkpoint.config)
    store = ReferenceKVStore(kv_spec(description, dtype), 16, device.torch_device)
    names = family.names(description)
    return load_decoder(description, names, checkpoint, dispatcher, store, device, dtype)


def test_a_backend_may_bring_the_grouped_product_alone(saved: Callable[[str], Saved]) -> None:
    model = saved("qwen2-moe")
    CountedLinear.calls = 0
    found = logits(model.folder, kernels=[PARTS])
    assert CountedLinear.calls == 4  # two in each of two layers
    torch.testing.assert_close(found, model.logits(PROMPT)[-1], rtol=0, atol=2e-4)


def test_a_backend_may_bring_the_experts_as_a_whole(saved: Callable[[str], Saved]) -> None:
    model = saved("qwen2-moe")
    CountedLinear.calls = 0
    found = logits(model.folder, kernels=[PARTS, WHOLE])
    assert CountedLinear.calls == 0
    torch.testing.assert_close(found, model.logits(PROMPT)[-1], rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("kernels", "capturable"),
    [([], False), ([ATTENTION], False), ([ATTENTION, PARTS], True), ([ATTENTION, WHOLE], True)],
)
def test_a_step_is_captured_only_if_its_experts_can_be(
    saved: Callable[[str], Saved], kernels: list[Kernel], capturable: bool
) -> None:
    assert decoder(saved("mixtral").folder, Dispatcher(kernels)).capturable is capturable
    dense = decoder(saved("llama").folder, Dispatcher(kernels))
    assert dense.capturable is (ATTENTION in kernels)


def test_strict_asks_for_a_grouped_product_but_not_for_the_whole(
    saved: Callable[[str], Saved],
) -> None:
    dispatcher = Dispatcher([PARTS])
    decoder(saved("mixtral").folder, dispatcher)
    chosen = {choice.op: choice.kernel for choice in dispatcher.choices}
    assert chosen["experts"] == "parts"
    assert chosen["grouped_linear"] == "counted"
    assert chosen["route"] == REFERENCE
    spec = ExpertsSpec(4, 2, 8, 8, torch.float32)
    strict = Dispatcher(strict=True)
    made = strict.select("experts", lambda: None, composite=True, **vars(spec))
    assert made is not None
    with pytest.raises(UnsupportedError, match="grouped_linear would run on the reference"):
        strict.select("grouped_linear", ReferenceGroupedLinear, experts=4)


def test_the_reference_keeps_experts_as_they_were_loaded() -> None:
    linear = ReferenceGroupedLinear()
    experts = ComposedExperts(linear, linear, silu_mul)
    spec = ExpertsSpec(3, 2, 8, 4, torch.float32)
    weights = ExpertWeights(torch.zeros(3, 8, 8), torch.zeros(3, 8, 4))
    packed = experts.prepack(spec, weights)
    assert packed.gate_up[0] is weights.gate_up
    assert packed.down[0] is weights.down


def test_a_router_may_be_more_precise_than_the_model(saved: Callable[[str], Saved]) -> None:
    folder = saved("glm4-moe").folder
    description = find_family(Checkpoint(folder).config).describe(Checkpoint(folder).config)
    spec = description.layers[1].feed_forward
    assert isinstance(spec, MixtureOfExperts)
    assert spec.router.parameters(64, 6)["weight"].dtype == "float32"
    assert logits(folder, dtype=torch.bfloat16).isfinite().all()
