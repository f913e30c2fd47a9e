"""A family turns a Hugging Face config and its weight names into a description the decoder runs.

Built-in families and those of plugins are found by the architecture that config.json names.
"""

from __future__ import annotations

import importlib
import pkgutil
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
    """The families that come with the core: all that modules of `families` hold, alone or in tuples.

    A new file there is all that a new family takes.
    """
    from inarch.models import families

    found: dict[int, Family] = {}
    for module in sorted(pkgutil.iter_modules(families.__path__), key=lambda info: info.name):
        held = vars(importlib.import_module(f"{families.__name__}.{module.name}")).values()
        for value in held:
            members = value if isinstance(value, tuple) else (value,)
            found |= {id(member): member for member in members if isinstance(member, Family)}
    return tuple(found.values())


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
