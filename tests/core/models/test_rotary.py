"""Rotary tables are transformers', and stay exact where float32 angles would not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import Qwen2Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from inarch.models.description import Rotary
from inarch.models.families import qwen2
from inarch.models.rotary import rotary_table

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    "parameters",
    [
        LLAMA3,
        {"rope_type": "linear", "factor": 3.0},
        YARN,
        YARN | {"truncate": False},
        YARN | {"beta_fast": 16.0, "beta_slow": 2.0},
        YARN | {"attention_factor": 0.7},
        YARN | {"mscale": 1.0, "mscale_all_dim": 0.5},
        YARN | {"factor": 1.0},
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
    rotary = qwen2.describe(config.to_dict()).layers[0].mixer.rotary
    angles = 7 * frequencies
    expected = torch.cat((angles.cos(), angles.sin())) * magnitude
    torch.testing.assert_close(rotary_table(rotary, 8)[7], expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("position", [0, 1, 4095, 100_000])
def test_far_positions_are_as_exact_as_near_ones(position: int) -> None:
    table = rotary_table(Rotary(dim=8, theta=10_000.0), 100_001)
    angles = [position * 10_000.0 ** (-i / 4) for i in range(4)]
    expected = [*map(math.cos, angles), *map(math.sin, angles)]
    assert table[position].tolist() == pytest.approx(expected, abs=1e-7)
