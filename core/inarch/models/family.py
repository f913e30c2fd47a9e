"""A family turns a Hugging Face config and its weight names into a description the decoder runs.

Built-in families and those of plugins are found by the architecture that config.json names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from inarch.errors import ModelError, PluginError
from inarch.models.description import Description
from inarch.models.sources import Names


@dataclass(frozen=True)
class Family:
    """architectures: the names in config.json's "architectures" that this family serves.

    describe: the config as a plain dict -> description; missing keys mean the defaults of
    transformers' own config class; raises ModelError for what it cannot say. names: for every
    parameter of the description, the checkpoint's tensors; further entries are ignored.
    """

    name: str
    architectures: tuple[str, ...]
    describe: Callable[[Mapping[str, Any]], Description]
    names: Callable[[Description], Names]


def built_in_families() -> tuple[Family, ...]:
    """The families that come with the core."""
    from inarch.models.families import (
        apertus,
        arcee,
        bert,
        cohere,
        ernie,
        exaone,
        exaone4,
        falcon,
        gemma,
        gemma2,
        gemma3,
        glm,
        gpt2,
        gpt_neox,
        granite,
        hunyuan,
        internlm,
        llama,
        ministral,
        mistral,
        modernbert,
        nemotron,
        olmo,
        olmo2,
        opt,
        phi,
        phi3,
        qwen2,
        qwen3,
        seed_oss,
        smollm3,
        stablelm,
        starcoder2,
    )

    return (
        apertus.FAMILY,
        arcee.FAMILY,
        *bert.FAMILIES,
        cohere.FAMILY,
        cohere.FAMILY_2,
        ernie.FAMILY,
        ernie.FAMILY_HELIUM,
        exaone.FAMILY,
        exaone4.FAMILY,
        falcon.FAMILY,
        gemma.FAMILY,
        gemma2.FAMILY,
        gemma3.FAMILY,
        gemma3.FAMILY_WITH_IMAGES,
        glm.FAMILY,
        glm.FAMILY_0414,
        gpt2.FAMILY,
        gpt_neox.FAMILY,
        granite.FAMILY,
        hunyuan.FAMILY,
        internlm.FAMILY_2,
        internlm.FAMILY_3,
        llama.FAMILY,
        ministral.FAMILY,
        ministral.FAMILY_3,
        ministral.FAMILY_WITH_IMAGES,
        mistral.FAMILY,
        *modernbert.FAMILIES,
        nemotron.FAMILY,
        olmo.FAMILY,
        olmo2.FAMILY,
        olmo2.FAMILY_3,
        opt.FAMILY,
        phi.FAMILY,
        phi3.FAMILY,
        qwen2.FAMILY,
        qwen3.FAMILY,
        seed_oss.FAMILY,
        smollm3.FAMILY,
        stablelm.FAMILY,
        starcoder2.FAMILY,
    )


def find_family(config: Mapping[str, Any], plugin_families: Iterable[Family] = ()) -> Family:
    """The family of a model's config.json.

    Raises ModelError if there is none, or if the weights are stored in a quantized format;
    PluginError if two families claim one architecture.
    """
    known = _by_architecture([*built_in_families(), *plugin_families])
    stated = config.get("architectures")
    architectures = [str(name) for name in stated] if isinstance(stated, list) else []
    if not architectures:
        raise ModelError(
            f'config.json names no architecture: add "architectures", a list with one of '
            f"{', '.join(sorted(known))}"
        )
    from inarch.models.endings import derive

    for architecture in architectures:
        family = known.get(architecture) or derive(architecture, known)
        if family is not None:
            _refuse_quantized(config)
            return family
    raise ModelError(
        f"no installed model family knows the architecture {', '.join(architectures)}. "
        f"Known are {', '.join(sorted(known))}; a plugin may bring more (see "
        "`inarch plugins`)"
    )


def _by_architecture(families: Iterable[Family]) -> dict[str, Family]:
    known: dict[str, Family] = {}
    for family in families:
        for architecture in family.architectures:
            other = known.setdefault(architecture, family)
            if other is not family:
                raise PluginError(
                    f"the model families {other.name!r} and {family.name!r} both claim "
                    f"{architecture}: uninstall the plugin that brings one of them"
                )
    return known


def _refuse_quantized(config: Mapping[str, Any]) -> None:
    quantization = config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise ModelError(
            f"the weights are quantized ({method}), which cannot be loaded yet: take the model's "
            "unquantized version (bfloat16, float16 or float32)"
        )
