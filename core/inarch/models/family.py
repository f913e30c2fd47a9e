"""A family turns a Hugging Face config and its weight names into a description the decoder runs.

Built-in families and those of plugins are found by the architecture that config.json names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
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
    parameter of the description, the checkpoint's tensors; further entries are ignored. quantized:
    the "quant_method" of checkpoints that can be loaded although they are quantized.
    """

    name: str
    architectures: tuple[str, ...]
    describe: Callable[[Mapping[str, Any]], Description]
    names: Callable[[Description], Names]
    quantized: tuple[str, ...] = ()


def built_in_families() -> tuple[Family, ...]:
    """The families that come with the core."""
    from inarch.models.families import (
        apertus,
        arcee,
        bert,
        cohere,
        deepseek,
        deepseek_v2,
        ernie,
        ernie4_5_moe,
        exaone,
        exaone4,
        falcon,
        gemma,
        gemma2,
        gemma3,
        glm,
        glm4_moe,
        glm4_moe_lite,
        gpt2,
        gpt_neox,
        gpt_oss,
        granite,
        granite_moe,
        hunyuan,
        internlm,
        llama,
        llama4,
        minicpm3,
        minimax_m2,
        ministral,
        mistral,
        mixtral,
        modernbert,
        nemotron,
        olmo,
        olmo2,
        olmoe,
        opt,
        phi,
        phi3,
        phimoe,
        qwen2,
        qwen2_moe,
        qwen3,
        qwen3_moe,
        seed_oss,
        smollm3,
        stablelm,
        starcoder2,
        youtu,
    )

    return (
        apertus.FAMILY,
        arcee.FAMILY,
        *bert.FAMILIES,
        cohere.FAMILY,
        cohere.FAMILY_2,
        deepseek.FAMILY,
        deepseek_v2.FAMILY,
        ernie.FAMILY,
        ernie.FAMILY_HELIUM,
        ernie4_5_moe.FAMILY,
        exaone.FAMILY,
        exaone4.FAMILY,
        falcon.FAMILY,
        gemma.FAMILY,
        gemma2.FAMILY,
        gemma3.FAMILY,
        gemma3.FAMILY_WITH_IMAGES,
        glm.FAMILY,
        glm.FAMILY_0414,
        glm4_moe.FAMILY,
        glm4_moe.FAMILY_DOTS,
        glm4_moe_lite.FAMILY,
        gpt2.FAMILY,
        gpt_neox.FAMILY,
        gpt_oss.FAMILY,
        granite.FAMILY,
        granite_moe.FAMILY,
        hunyuan.FAMILY,
        internlm.FAMILY_2,
        internlm.FAMILY_3,
        llama.FAMILY,
        llama4.FAMILY,
        minicpm3.FAMILY,
        minimax_m2.FAMILY,
        ministral.FAMILY,
        ministral.FAMILY_3,
        ministral.FAMILY_WITH_IMAGES,
        mistral.FAMILY,
        mixtral.FAMILY,
        *modernbert.FAMILIES,
        nemotron.FAMILY,
        olmo.FAMILY,
        olmo2.FAMILY,
        olmo2.FAMILY_3,
        olmoe.FAMILY,
        opt.FAMILY,
        phi.FAMILY,
        phi3.FAMILY,
        phimoe.FAMILY,
        qwen2.FAMILY,
        qwen2_moe.FAMILY,
        qwen3.FAMILY,
        qwen3_moe.FAMILY,
        seed_oss.FAMILY,
        smollm3.FAMILY,
        stablelm.FAMILY,
        starcoder2.FAMILY,
        youtu.FAMILY,
    )


def family_of(config: Mapping[str, Any], plugin_families: Iterable[Family] = ()) -> Family | None:
    """The family of a model's config.json, or None. PluginError if two claim one architecture."""
    from inarch.models.endings import derive

    known = _by_architecture([*built_in_families(), *plugin_families])
    found = (known.get(name) or derive(name, known) for name in _architectures(config))
    return next((family for family in found if family is not None), None)


def find_family(config: Mapping[str, Any], plugin_families: Iterable[Family] = ()) -> Family:
    """The family of a model's config.json.

    Raises ModelError if there is none, or if the weights are stored in a quantized format;
    PluginError if two families claim one architecture.
    """
    families = list(plugin_families)
    family = family_of(config, families)
    if family is None:
        known = ", ".join(sorted(_by_architecture([*built_in_families(), *families])))
        raise ModelError(
            f"{no_family(config)}. Known are {known}; a plugin may bring more (see `inarch plugins`)"
        )
    refuse_quantized(config, family.quantized)
    return family


def no_family(config: Mapping[str, Any]) -> str:
    """What to say of a config that belongs to no family."""
    architectures = ", ".join(_architectures(config))
    if architectures:
        return f"no installed model family knows the architecture {architectures}"
    return 'config.json names no architecture ("architectures" must be a list with its name)'


def _architectures(config: Mapping[str, Any]) -> list[str]:
    stated = config.get("architectures")
    return [str(name) for name in stated] if isinstance(stated, list) else []


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


def refuse_quantized(config: Mapping[str, Any], loadable: Collection[str] = ()) -> None:
    """Raise ModelError for weights in a quantized format other than those."""
    quantization = config.get("quantization_config")
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    if quantization and method not in loadable:
        raise ModelError(
            f"the weights are quantized ({method}), which cannot be loaded yet: take the model's "
            "unquantized version (bfloat16, float16 or float32)"
        )
