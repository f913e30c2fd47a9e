"""Published models have as many parameters as their publishers say, down to the last one."""

from __future__ import annotations

from typing import Any

import pytest

from inarch.models.family import find_family


def config(
    architecture: str,
    hidden: int,
    intermediate: int,
    layers: int,
    heads: tuple[int, int],
    vocabulary: int,
    **more: Any,
) -> dict[str, Any]:
    """heads: of queries, and of keys and values."""
    return {
        "architectures": [architecture],
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "vocab_size": vocabulary,
        **more,
    }


TIED = {"tie_word_embeddings": True}
PUBLISHED = {
    "apertus-8b": (
        config("ApertusForCausalLM", 4096, 21504, 32, (32, 8), 131072),
        8_053_338_176 + 2 * 32,  # constants of xIELU, which publishers do not count
    ),
    "command-r": (
        config("CohereForCausalLM", 8192, 22528, 40, (64, 64), 256000),
        34_980_831_232,
    ),
    "command-r7b": (
        config("Cohere2ForCausalLM", 4096, 14336, 32, (32, 8), 256000),
        8_028_033_024,
    ),
    "ernie-4.5-0.3b": (
        config("Ernie4_5ForCausalLM", 1024, 3072, 18, (16, 2), 103424),
        360_748_032,
    ),
    "exaone-3.5-2.4b": (
        config("ExaoneForCausalLM", 2560, 7168, 30, (32, 8), 102400, num_layers=30),
        2_405_327_360,
    ),
    "exaone-4-1.2b": (
        config("Exaone4ForCausalLM", 2048, 4096, 30, (32, 8), 102400, **TIED),
        1_279_391_488,
    ),
    "falcon-7b": (
        config("FalconForCausalLM", 4544, 0, 32, (71, 0), 65024),
        6_921_720_704,
    ),
    "gemma-2b": (
        config("GemmaForCausalLM", 2048, 16384, 18, (8, 1), 256000),
        2_506_172_416,
    ),
    "gemma-2-9b": (
        config("Gemma2ForCausalLM", 3584, 14336, 42, (16, 8), 256000),
        9_241_705_984,
    ),
    "glm-4-9b": (
        config("GlmForCausalLM", 4096, 13696, 40, (32, 2), 151552),
        9_399_951_360,
    ),
    "glm-4-9b-0414": (
        config("Glm4ForCausalLM", 4096, 13696, 40, (32, 2), 151552),
        9_400_279_040,
    ),
    "gpt2": ({"architectures": ["GPT2LMHeadModel"]}, 124_439_808),
    "granite-3.1-2b": (
        config("GraniteForCausalLM", 2048, 8192, 40, (32, 8), 49155, **TIED),
        2_533_531_648,
    ),
    "internlm2-7b": (
        config("InternLM2ForCausalLM", 4096, 14336, 32, (32, 8), 92544, bias=False),
        7_737_708_544,
    ),
    "internlm3-8b": (
        config("InternLM3ForCausalLM", 4096, 10240, 48, (32, 2), 128512),
        8_804_241_408,
    ),
    "ministral-8b": (
        config("MinistralForCausalLM", 4096, 12288, 36, (32, 8), 131072),
        8_019_808_256,
    ),
    "olmo-1b": (
        config("OlmoForCausalLM", 2048, 8192, 16, (16, 16), 50304, **TIED),
        1_176_764_416,
    ),
    "olmo-2-7b": (
        config("Olmo2ForCausalLM", 4096, 11008, 32, (32, 32), 100352),
        7_298_617_344,
    ),
    "phi-2": (
        config("PhiForCausalLM", 2560, 10240, 32, (32, 32), 51200),
        2_779_683_840,
    ),
    "phi-3-mini": (
        config("Phi3ForCausalLM", 3072, 8192, 32, (32, 32), 32064),
        3_821_079_552,
    ),
    "phi-4": (
        config("Phi3ForCausalLM", 5120, 17920, 40, (40, 10), 100352),
        14_659_507_200,
    ),
    "pythia-70m": (
        config("GPTNeoXForCausalLM", 512, 2048, 6, (8, 8), 50304),
        70_426_624,
    ),
    "seed-oss-36b": (
        config("SeedOssForCausalLM", 5120, 27648, 64, (80, 8), 155136),
        36_151_104_512,
    ),
    "smollm3-3b": (
        config("SmolLM3ForCausalLM", 2048, 11008, 36, (16, 4), 128256),
        3_075_098_624,
    ),
    "stablelm-3b-4e1t": (
        config("StableLmForCausalLM", 2560, 6912, 32, (32, 32), 50304),
        2_795_443_200,
    ),
    "starcoder2-3b": (
        config("Starcoder2ForCausalLM", 3072, 12288, 30, (24, 2), 49152),
        3_030_371_328,
    ),
}


@pytest.mark.parametrize(("values", "published"), PUBLISHED.values(), ids=PUBLISHED)
def test_a_published_model_has_its_published_size_and_a_name_for_every_parameter(
    values: dict[str, Any], published: int
) -> None:
    family = find_family(values)
    description = family.describe(values)
    parameters = description.parameters()
    assert sum(parameter.elements for parameter in parameters.values()) == published
    assert set(parameters) <= set(family.names(description))
