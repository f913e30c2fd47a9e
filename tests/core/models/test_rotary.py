"""Rotary tables are transformers', and stay exact where float32 angles would not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import Phi3Config, PretrainedConfig, Qwen2Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

from inarch.errors import ModelError
from inarch.models.description import Description, Rotary
from inarch.models.families import phi3, qwen2
from inarch.models.rotary import rotary_table

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0 + i / 10 for i in range(8)],
    "long_factor": [1.5 + 2.0 * i for i in range(8)],
}


@pytest.mark.parametrize(
    "parameters",
    [
        LLAMA3,
        {"rope_type": "linear", "factor": 3.0},
        {"rope_type": "dynamic", "factor": 3.0},
        {"rope_type": "proportional", "factor": 2.0, "partial_rotary_factor": 0.25},
        YARN,
        YARN | {"truncate": False},
        YARN | {"beta_fast": 16.0, "beta_slow": 2.0},
        YARN | {"attention_factor": 0.7},
        YARN | {"mscale": 1.0, "mscale_all_dim": 0.5},
        YARN | {"factor": 1.0},
        YARN | {"partial_rotary_factor": 0.5},
    ],
    ids=lambda parameters: "-".join(map(str, parameters.values())),
)
def test_scaled_rotations_are_those_of_transformers(parameters: dict[str, Any]) -> None:
    config = Qwen2Config(
        hidden_size=512,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=16384,
        rope_parameters=parameters | {"rope_theta": 500_000.0},
    )
    frequencies, magnitude = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config)
    rotary = qwen2.FAMILY.describe(config.to_dict()).layers[0].mixer.rotary
    angles = 7 * frequencies
    expected = torch.cat((angles.cos(), angles.sin())) * magnitude
    torch.testing.assert_close(rotary_table(rotary, 8)[7], expected, rtol=0, atol=3e-6)


def phi(**changes: Any) -> PretrainedConfig:
    """Heads of 16 features, 64 positions once, 256 now."""
    return Phi3Config(
        hidden_size=64,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_hidden_layers=1,
        max_position_embeddings=256,
        original_max_position_embeddings=64,
        pad_token_id=None,
        **changes,
    )


def described(config: PretrainedConfig) -> Description:
    return phi3.FAMILY.describe(config.to_dict())


@pytest.mark.parametrize("length", [1, 64, 65, 256])
@pytest.mark.parametrize("changes", [{}, {"attention_factor": 1.7}, {"factor": 8.0}], ids=str)
def test_longrope_takes_the_factors_of_a_sequences_length(
    length: int, changes: dict[str, float]
) -> None:
    config = phi(rope_parameters=LONGROPE | changes | {"rope_theta": 10_000.0})
    cos, sin = Phi3RotaryEmbedding(config)(torch.zeros(1), torch.arange(length)[None])
    expected = torch.cat((cos[0, :, :8], sin[0, :, :8]), dim=-1)
    description = described(config)
    assert description.long_from == 64
    start = description.context_length if length > 64 else 0
    found = rotary_table(description.layers[0].mixer.rotary, description.context_length)
    torch.testing.assert_close(found[start : start + length], expected, rtol=0, atol=2e-5)


def test_longrope_within_the_original_context_has_one_table() -> None:
    config = phi(rope_parameters=LONGROPE | {"rope_theta": 10_000.0})
    description = phi3.FAMILY.describe(config.to_dict() | {"max_position_embeddings": 64})
    assert description.long_from is None
    assert len(rotary_table(description.layers[0].mixer.rotary, 64)) == 64


@pytest.mark.parametrize("kind", ["su", "yarn", "longrope"])
def test_longrope_is_known_by_the_names_it_had(kind: str) -> None:
    new = described(phi(rope_parameters=LONGROPE | {"rope_theta": 10_000.0}))
    values = phi().to_dict()
    del values["rope_parameters"]
    scaling = {"type": kind, **{k: v for k, v in LONGROPE.items() if k != "rope_type"}}
    assert phi3.FAMILY.describe(values | {"rope_scaling": scaling}) == new


@pytest.mark.parametrize("factors", [[1.0] * 7, [1.0] * 7 + [0], "1", None])
def test_factors_that_do_not_fit_the_rotation_are_refused(factors: Any) -> None:
    values = phi().to_dict() | {"rope_parameters": LONGROPE | {"long_factor": factors}}
    with pytest.raises(ModelError, match="long_factor must be a list of 8 numbers above 0"):
        phi3.FAMILY.describe(values)


def test_text_has_equal_positions_in_all_sections_of_mrope() -> None:
    plain = qwen2.FAMILY.describe({})
    sections = {"type": "mrope", "mrope_section": [16, 24, 24]}
    assert qwen2.FAMILY.describe({"rope_scaling": sections}) == plain
    assert qwen2.FAMILY.describe({"rope_scaling": sections | {"type": "default"}}) == plain


def test_a_fixed_alpha_stretches_the_base() -> None:
    scaling = {"type": "dynamic", "alpha": 1000.0, "factor": 1.0}
    rotary = qwen2.FAMILY.describe({"rope_scaling": scaling}).layers[0].mixer.rotary
    assert rotary.theta == pytest.approx(10_000.0 * 1000.0 ** (128 / 126))


def test_layer_types_that_rotate_alike_need_no_family_that_tells_them_apart() -> None:
    own = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}
    both = {"full_attention": own, "sliding_attention": own}
    assert qwen2.FAMILY.describe({"rope_parameters": both}) == qwen2.FAMILY.describe(
        {"rope_parameters": own}
    )


@pytest.mark.parametrize("position", [0, 1, 4095, 100_000])
def test_far_positions_are_as_exact_as_near_ones(position: int) -> None:
    table = rotary_table(Rotary(dim=8, theta=10_000.0), 100_001)
    angles = [position * 10_000.0 ** (-i / 4) for i in range(4)]
    expected = [*map(math.cos, angles), *map(math.sin, angles)]
    assert table[position].tolist() == pytest.approx(expected, abs=1e-7)
