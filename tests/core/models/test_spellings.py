"""What published configs say, in the keys they say it with, is what transformers reads in them."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig

from inarch.errors import ModelError
from inarch.models.description import Description, LinearScaling, YarnScaling
from inarch.models.family import built_in_families

FAMILIES = {family.name: family for family in built_in_families()}
THREE = {"num_hidden_layers": 3, "sliding_window": 512}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192}
PUBLISHED: list[tuple[str, dict[str, Any]]] = [
    ("apertus", {"rope_scaling": YARN, "rope_theta": 12_000_000}),
    ("cohere2", THREE | {"sliding_window_pattern": 2, "rope_theta": 50_000}),
    ("exaone4", THREE | {"sliding_window_pattern": 2}),
    ("gemma", {"hidden_act": "gelu", "head_dim": 64}),
    ("gemma2", THREE),
    (
        "gemma3_text",
        {"sliding_window_pattern": 2, "rope_theta": 500_000, "rope_local_base_freq": 20_000.0}
        | {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "num_hidden_layers": 4},
    ),
    ("glm", {"partial_rotary_factor": 0.25, "rope_theta": 20_000}),
    ("gpt_neox", {"rotary_pct": 0.5, "rotary_emb_base": 20_000}),
    ("gpt2", {"n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 77, "n_inner": 99}),
    ("ministral", THREE | {"sliding_window": None}),
    ("nemotron", {"partial_rotary_factor": 0.25}),
    ("olmo3", {"rope_scaling": YARN, "num_hidden_layers": 8}),
    ("phi", {"partial_rotary_factor": 0.4, "hidden_size": 2560, "num_attention_heads": 32}),
    ("smollm3", {"no_rope_layer_interval": 3, "use_sliding_window": True, "sliding_window": 9}),
    ("stablelm", {"partial_rotary_factor": 0.5}),
]


def describe(family: str, values: dict[str, Any]) -> Description:
    return FAMILIES[family].describe(values)


@pytest.mark.parametrize(
    ("family", "values"), PUBLISHED, ids=[f"{name}-{'-'.join(keys)}" for name, keys in PUBLISHED]
)
def test_a_config_means_what_transformers_makes_of_it(family: str, values: dict[str, Any]) -> None:
    theirs = AutoConfig.for_model(family, **values).to_dict()
    description = describe(family, values)
    assert description == describe(family, theirs)
    assert description != describe(family, {}), "it says something"


def test_layers_of_gemma_3_that_slide_rotate_by_a_theta_of_their_own() -> None:
    _, values = next(case for case in PUBLISHED if case[0] == "gemma3_text")
    sliding, full, *_ = (layer.mixer for layer in describe("gemma3_text", values).layers)
    assert (sliding.window, sliding.rotary.theta, sliding.rotary.scaling) == (4096, 20_000, None)
    assert (full.window, full.rotary.theta) == (None, 500_000)
    assert full.rotary.scaling == LinearScaling(8.0)


def test_letters_say_which_layers_of_exaone_4_slide_and_the_last_sees_all() -> None:
    layers = describe("exaone4", {"num_hidden_layers": 5, "sliding_window_pattern": "LLG"}).layers
    assert [layer.mixer.window for layer in layers] == [4096, 4096, None, 4096, None]


def test_layers_of_olmo_3_that_slide_are_not_stretched() -> None:
    layers = describe("olmo3", {"rope_scaling": YARN, "num_hidden_layers": 8}).layers
    stretched = [isinstance(layer.mixer.rotary.scaling, YarnScaling) for layer in layers]
    assert stretched == [False, False, False, True] * 2


@pytest.mark.parametrize(
    ("family", "values", "message"),
    [
        ("apertus", {"hidden_act": "silu"}, "hidden_act must be 'xielu'.* others are not served"),
        ("exaone4", {"sliding_window_pattern": "LX"}, "sliding_window_pattern must be .*letters"),
        ("falcon", {"alibi": True}, "alibi must be False, since others are not served, found True"),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention must be"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping must be None"),
        ("gemma2", {"final_logit_softcapping": 0}, "final_logit_softcapping must be a number"),
        (
            "glm",
            {"partial_rotary_factor": 1.5},
            "partial_rotary_factor must be a share of head_dim",
        ),
        ("gpt2", {"n_head": 5}, "n_head must be a divisor of n_embd .768., found 5"),
        ("gpt2", {"activation_function": "mish"}, "activation_function must be one of silu"),
        ("mistral3", {"text_config": {"model_type": "x"}}, "model_type must be 'mistral' or"),
        ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before must be True"),
        ("smollm3", {"no_rope_layers": [1, 2]}, "no_rope_layers must be a list of 36 out of 0, 1"),
        ("stablelm", {"qk_layernorm": True}, "qk_layernorm must be False"),
    ],
)
def test_what_would_change_the_answer_is_refused(
    family: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        describe(family, values)
