"""A config.json becomes a description, in both spellings, or a message that says what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import CONFIG_MAPPING, AutoConfig

from inarch.errors import ModelError, PluginError
from inarch.models.description import Description, Llama3Scaling, YarnScaling
from inarch.models.families import llama
from inarch.models.family import Family, built_in_families, find_family

LLAMA_2_7B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
LLAMA_31_8B = {
    **LLAMA_2_7B,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "num_key_value_heads": 8,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "vocab_size": 128256,
}
MISTRAL_7B = {
    "architectures": ["MistralForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "vocab_size": 32000,
}
QWEN25_7B = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "use_sliding_window": False,
    "vocab_size": 152064,
}
QWEN3_8B = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "head_dim": 128,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "max_position_embeddings": 40960,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "rope_theta": 1000000,
    "sliding_window": None,
    "vocab_size": 151936,
}

# transformers' model types whose config class has a default for every key that its family reads
families = {family.name: family for family in built_in_families()}
# no number of experts; heads that do not divide the hidden size; experts that are not served
WITHOUT = ("dots1", "glm4_moe", "nemotron_h")
WRAPPERS = ("gemma3", "mistral3", "qwen3_5", "qwen3_5_moe")  # their text has a family of its own
MODEL_TYPES = [name for name in families if name in {*CONFIG_MAPPING} - {*WITHOUT, *WRAPPERS}]


def describe(config: dict[str, Any]) -> Description:
    return find_family(config).describe(config)


def elements(description: Description) -> int:
    return sum(parameter.elements for parameter in description.parameters().values())


def windows(description: Description) -> list[int | None]:
    return [layer.mixer.window for layer in description.layers]


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (LLAMA_2_7B, 6_738_415_616),
        (LLAMA_31_8B, 8_030_261_248),
        (MISTRAL_7B, 7_241_732_096),
        (QWEN25_7B, 7_615_616_512),
        (QWEN3_8B, 8_190_735_360),
    ],
    ids=["llama-2", "llama-3.1", "mistral", "qwen2.5", "qwen3"],
)
def test_published_models_have_their_published_size(config: dict[str, Any], published: int) -> None:
    assert elements(describe(config)) == published


def test_every_parameter_has_its_name_in_the_checkpoint() -> None:
    description = describe(QWEN3_8B)
    names = find_family(QWEN3_8B).names(description)
    assert names["layers.35.mixer.qkv.weight"] == (
        "model.layers.35.self_attn.q_proj.weight",
        "model.layers.35.self_attn.k_proj.weight",
        "model.layers.35.self_attn.v_proj.weight",
    )
    assert names["layers.0.mixer.q_norm.weight"] == ("model.layers.0.self_attn.q_norm.weight",)
    assert set(names) == set(description.parameters())


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_missing_keys_mean_what_transformers_makes_of_them(model_type: str) -> None:
    config = AutoConfig.for_model(model_type).to_dict()
    family = families[model_type]
    assert family.describe({}) == family.describe(config)


@pytest.mark.parametrize("config", [LLAMA_31_8B, LLAMA_2_7B, MISTRAL_7B, QWEN3_8B])
def test_the_old_and_the_new_spelling_of_rotary_parameters_are_equal(
    config: dict[str, Any],
) -> None:
    new = dict(config)
    theta, scaling = new.pop("rope_theta", 10000.0), new.pop("rope_scaling", None)
    new["rope_parameters"] = {"rope_type": "default", "rope_theta": theta, **(scaling or {})}
    assert describe(new) == describe(config)


def test_llama_31_scaling_is_read() -> None:
    rotary = describe(LLAMA_31_8B).layers[0].mixer.rotary
    assert rotary.theta == 500_000
    assert rotary.scaling == Llama3Scaling(8.0, 1.0, 4.0, 8192)


def test_yarn_stretches_the_context_and_is_known_by_its_older_key() -> None:
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    description = describe(QWEN25_7B | {"rope_scaling": yarn})
    scaling = description.layers[0].mixer.rotary.scaling
    assert description.context_length == 131072
    assert isinstance(scaling, YarnScaling)
    assert scaling.magnitude == pytest.approx(1.1386, abs=1e-4)


def test_mistral_slides_everywhere_or_nowhere() -> None:
    assert windows(describe(MISTRAL_7B)) == [4096] * 32
    assert windows(describe(MISTRAL_7B | {"sliding_window": None})) == [None] * 32


def test_qwen_slides_only_where_it_is_told_to() -> None:
    slides = QWEN25_7B | {"num_hidden_layers": 3, "sliding_window": 8, "max_window_layers": 2}
    assert windows(describe(slides)) == [None, None, None]
    slides["use_sliding_window"] = True
    assert windows(describe(slides)) == [None, None, 8]
    slides["layer_types"] = ["sliding_attention", "full_attention", "full_attention"]
    assert windows(describe(slides)) == [8, None, None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": "4096"}, "hidden_size must be a whole number of at least 1, found '4096'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be .* found 0"),
        ({"vocab_size": None}, "vocab_size must be .* found None"),
        ({"vocab_size": True}, "vocab_size must be .* found True"),
        ({"num_key_value_heads": 5}, "num_key_value_heads must be a divisor of .*32.* found 5"),
        ({"head_dim": 7}, "head_dim must be even to be rotated, found 7"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a number above 0, found nan"),
        ({"rms_norm_eps": []}, "rms_norm_eps must be a number above 0, found"),
        ({"hidden_act": "relu"}, "hidden_act must be one of silu, .* found 'relu'"),
        ({"hidden_act": {}}, "hidden_act must be one of silu, .* found {}"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false, found 'yes'"),
        ({"rope_scaling": "linear"}, "rope_scaling must be an object, found 'linear'"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling of config.json: factor must be"),
        ({"rope_scaling": {"type": "spiral", "factor": 2.0}}, "rotary scaling 'spiral'"),
        (
            {"rope_parameters": {"full_attention": {"a": 1}, "sliding_attention": {"a": 2}}},
            "layers differently",
        ),
        ({"use_sliding_window": True, "layer_types": ["x"]}, "layer_types must be a list of 36"),
        ({"use_sliding_window": True, "layer_types": [[]] * 36}, "layer_types must be a list"),
        ({"use_sliding_window": True, "max_window_layers": "x"}, "max_window_layers must be"),
    ],
)
def test_a_wrong_value_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        describe(QWEN3_8B | {"sliding_window": 8} | change)


def test_an_unknown_architecture_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"architecture Gpt9.*LlamaForCausalLM.*Qwen3ForCausalLM"):
        find_family({"architectures": ["Gpt9"]})


@pytest.mark.parametrize("architectures", [None, [], "LlamaForCausalLM"])
def test_a_config_without_architectures_is_refused(architectures: Any) -> None:
    with pytest.raises(ModelError, match=r"names no architecture.*LlamaForCausalLM"):
        find_family({"architectures": architectures})


def test_quantized_weights_are_refused_by_their_method() -> None:
    with pytest.raises(ModelError, match=r"quantized \(gptq\)"):
        find_family(LLAMA_2_7B | {"quantization_config": {"quant_method": "gptq"}})


def test_a_plugin_brings_a_family() -> None:
    grown = Family("grown", ("GrownForCausalLM",), llama.describe, llama.FAMILY.names)
    assert find_family({"architectures": ["GrownForCausalLM"]}, [grown]) is grown


def test_two_families_may_not_claim_one_architecture() -> None:
    twin = Family("twin", ("LlamaForCausalLM",), llama.describe, llama.FAMILY.names)
    with pytest.raises(PluginError, match="'llama' and 'twin' both claim LlamaForCausalLM"):
        find_family(LLAMA_2_7B, [twin])
