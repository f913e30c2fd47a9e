"""Families with latent attention: published sizes, what is kept of a token, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    DeepseekV3ForCausalLM,
    Glm4MoeLiteForCausalLM,
)

from inarch.errors import ModelError
from inarch.hal.reference.kv import ReferenceKVStore
from inarch.models.decoder import kv_spec
from inarch.models.family import find_family

from .test_families import describe, elements

YARN = {
    "beta_fast": 32,
    "beta_slow": 1,
    "factor": 40,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 4096,
    "type": "yarn",
}
DEEPSEEK_V3 = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "attention_bias": False,
    "ep_size": 1,
    "first_k_dense_replace": 3,
    "hidden_act": "silu",
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v3",
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-06,
    "rope_scaling": YARN,
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "v_head_dim": 128,
    "vocab_size": 129280,
}
KIMI_K2 = {
    **DEEPSEEK_V3,
    "first_k_dense_replace": 1,
    "max_position_embeddings": 131072,
    "model_type": "kimi_k2",
    "n_group": 1,
    "n_routed_experts": 384,
    "num_attention_heads": 64,
    "num_key_value_heads": 64,
    "num_nextn_predict_layers": 0,
    "rope_scaling": {**YARN, "beta_fast": 1.0, "factor": 32.0},
    "rope_theta": 50000.0,
    "routed_scaling_factor": 2.827,
    "topk_group": 1,
    "vocab_size": 163840,
}
DEEPSEEK_V2 = {
    **DEEPSEEK_V3,
    "architectures": ["DeepseekV2ForCausalLM"],
    "first_k_dense_replace": 1,
    "hidden_size": 5120,
    "intermediate_size": 12288,
    "model_type": "deepseek_v2",
    "moe_intermediate_size": 1536,
    "n_routed_experts": 160,
    "n_shared_experts": 2,
    "norm_topk_prob": False,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 60,
    "rope_scaling": {**YARN, "mscale": 0.707, "mscale_all_dim": 0.707},
    "routed_scaling_factor": 16.0,
    "scoring_func": "softmax",
    "topk_group": 3,
    "topk_method": "group_limited_greedy",
    "vocab_size": 102400,
}
DEEPSEEK_V2_LITE = {
    **DEEPSEEK_V2,
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "n_group": 1,
    "n_routed_experts": 64,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "num_key_value_heads": 16,
    "q_lora_rank": None,
    "routed_scaling_factor": 1.0,
    "topk_group": 1,
    "topk_method": "greedy",
}
# As published; of V3 without the routers' corrections, which count as no parameters.
PUBLISHED = {
    "DeepSeek-V3": (DEEPSEEK_V3, 671_026_404_352 + 58 * 256),
    "DeepSeek-V2": (DEEPSEEK_V2, 235_741_434_880),
    "DeepSeek-V2-Lite": (DEEPSEEK_V2_LITE, 15_706_484_224),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_size(name: str) -> None:
    config, published = PUBLISHED[name]
    assert elements(describe(config)) == published


@pytest.mark.parametrize("model_class", [DeepseekV3ForCausalLM, Glm4MoeLiteForCausalLM])
def test_models_have_the_size_that_transformers_gives_them(model_class: Any) -> None:
    config = KIMI_K2 if model_class is DeepseekV3ForCausalLM else {}
    with torch.device("meta"):
        model = model_class(model_class.config_class(**config))
    ours = describe({"architectures": [model_class.__name__], **config})
    assert elements(ours) == sum(tensor.numel() for tensor in model.state_dict().values())


@pytest.mark.parametrize(("config", "layers"), [(DEEPSEEK_V3, 61), (DEEPSEEK_V2_LITE, 27)])
def test_of_a_token_each_layer_keeps_one_row_of_576_numbers(
    config: dict[str, Any], layers: int
) -> None:
    spec = kv_spec(describe(config), torch.bfloat16)
    store = ReferenceKVStore(spec, 16, torch.device("cpu"))
    assert store.layout.page_bytes == 16 * layers * 576 * 2
    pages = store.allocate(3)
    assert sum(part.nbytes for layer in pages for part in layer) == 3 * store.layout.page_bytes


@pytest.mark.parametrize("config", [DEEPSEEK_V3, DEEPSEEK_V2_LITE], ids=["v3", "v2-lite"])
def test_every_parameter_has_its_name_in_the_checkpoint(config: dict[str, Any]) -> None:
    description = describe(config)
    names = find_family(config).names(description)
    queries = "q_proj" if config["q_lora_rank"] is None else "q_a_proj"
    assert names["layers.9.mixer.down.weight"] == (
        f"model.layers.9.self_attn.{queries}.weight",
        "model.layers.9.self_attn.kv_a_proj_with_mqa.weight",
    )
    assert set(names) >= set(description.parameters())
    assert all(names[parameter] for parameter in description.parameters())


def test_a_stretched_context_sharpens_the_softmax() -> None:
    """By (0.1 * mscale_all_dim * ln(factor) + 1) squared, as in DeepSeek's own code."""
    assert describe(DEEPSEEK_V3).layers[0].mixer.scale == pytest.approx(0.1352337788608801)
    plain = describe({**DEEPSEEK_V3, "rope_scaling": None})
    assert plain.layers[0].mixer.scale == pytest.approx(192**-0.5)


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (DEEPSEEK_V3, {"index_topk": 2048}, "sparse attention"),
        (DEEPSEEK_V3, {"scoring_func": "softmax"}, "scoring_func must be 'sigmoid'"),
        (DEEPSEEK_V3, {"topk_method": "greedy"}, "topk_method must be 'noaux_tc'"),
        (DEEPSEEK_V3, {"n_group": 7}, "n_group must be a divisor of the number of experts, 256"),
        (DEEPSEEK_V3, {"topk_group": 9}, "topk_group must be at most the 8 groups"),
        (DEEPSEEK_V3, {"first_k_dense_replace": -1}, "first_k_dense_replace must be a whole"),
        (DEEPSEEK_V3, {"moe_layer_freq": 2}, "moe_layer_freq must be 1"),
        (DEEPSEEK_V3, {"qk_rope_head_dim": 63}, "qk_rope_head_dim must be even"),
        (DEEPSEEK_V2, {"norm_topk_prob": True}, "norm_topk_prob must be False"),
        (
            DEEPSEEK_V2,
            {"topk_method": "noaux_tc"},
            "topk_method must be 'greedy' or 'group_limited",
        ),
        (DEEPSEEK_V2, {"mlp_bias": True}, "mlp_bias must be False"),
        (DEEPSEEK_V2_LITE, {"attention_bias": True}, "attention_bias with q_lora_rank null"),
        (DEEPSEEK_V3, {"quantization_config": {"quant_method": "fp8"}}, r"quantized \(fp8\)"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) and len(value) == 1 else "",
)
def test_what_is_not_served_is_refused_by_name(
    config: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        describe({**config, **change})
