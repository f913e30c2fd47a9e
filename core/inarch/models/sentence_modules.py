"""Reads what sentence-transformers keeps beside a model: how its vectors are made.

modules.json lists modules in order, each with a folder of its own: the model itself, the pooling, layers
that follow it, and whether vectors have length 1. config_sentence_transformers.json names prompts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inarch.errors import ModelError
from inarch.models.checkpoint import read_json
from inarch.models.config_json import Config
from inarch.models.description.pooling import Dense, PooledHead, Pooling, PoolingKind

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
LIMITS = "sentence_bert_config.json"
KINDS: Mapping[str, PoolingKind] = {
    "cls": "first",
    "lasttoken": "last",
    "mean": "mean",
    "mean_sqrt_len_tokens": "sqrt_mean",
    "weightedmean": "weighted_mean",
    "max": "max",
}
# Written before pooling_mode was.
FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
ACTIVATIONS = {
    "Identity": "identity",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
}
HARMLESS = ("Transformer", "Dropout", "LogitScore")


@dataclass(frozen=True)
class SentenceModules:
    """head: what follows the model. folders: of each of its layers."""

    head: PooledHead
    folders: tuple[Path, ...]


def read_modules(folder: Path) -> SentenceModules | None:
    """None if the folder has no modules, or none that pools. Raises ModelError."""
    pooling, layers, folders, normalize = None, [], [], False
    for kind, place in _modules(folder):
        if kind == "Pooling":
            pooling = _pooling(place)
        elif kind == "Dense":
            layers.append(_dense(place))
            folders.append(place)
        elif kind == "Normalize":
            normalize = True
        elif kind not in HARMLESS:
            raise ModelError(
                f"{folder / MODULES} asks for the module {kind}, which is not supported: Pooling, "
                "Dense, Normalize and LogitScore are"
            )
    if pooling is None:
        return None
    return SentenceModules(PooledHead(pooling, tuple(layers), normalize), tuple(folders))


def read_words(folder: Path) -> tuple[int, ...]:
    """The tokens by which a reranker says yes and no, if it is a language model that is asked so."""
    for kind, place in _modules(folder):
        if kind == "LogitScore":
            values = read_json(place / "config.json")
            words = tuple(values.get(key) for key in ("true_token_id", "false_token_id"))
            if not all(isinstance(word, int) for word in words):
                raise ModelError(
                    f"{place / 'config.json'}: both a true and a false token are needed"
                )
            return words  # type: ignore[return-value]  # both are numbers
    return ()


def read_limit(folder: Path) -> int | None:
    """Tokens beyond which the model's makers cut a text, special tokens included."""
    if not (folder / LIMITS).is_file():
        return None
    return Config(read_json(folder / LIMITS), str(folder / LIMITS)).optional_integer(
        "max_seq_length"
    )


def read_prompts(folder: Path) -> tuple[dict[str, str], str | None]:
    """Texts to put before an input by name, and the name of the one that is the default."""
    if not (folder / PROMPTS).is_file():
        return {}, None
    values = read_json(folder / PROMPTS)
    prompts = values.get("prompts") or {}
    default = values.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(p, str) for p in prompts.values()):
        raise ModelError(f"{folder / PROMPTS}: prompts must be texts by name")
    if default is not None and default not in prompts:
        raise ModelError(f"{folder / PROMPTS}: there is no prompt {default!r}, the default")
    return prompts, default


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """Kind and folder of each module, in order."""
    file = folder / MODULES
    if not file.is_file():
        return []
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
        return [
            (str(one["type"]).rpartition(".")[2], _inside(folder, str(one["path"])))
            for one in sorted(listed, key=lambda one: int(one["idx"]))
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{file} is not a list of modules: {error!r}") from None


def _inside(folder: Path, path: str) -> Path:
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ModelError(f"{folder / MODULES} names a folder outside its own: {path}")
    return folder / path


def _pooling(folder: Path) -> Pooling:
    values = read_json(folder / "config.json")
    stated = values.get("pooling_mode")
    if stated is None:
        stated = [mode for flag, mode in FLAGS.items() if values.get(flag)] or ["mean"]
    modes = stated if isinstance(stated, list) else [stated]
    if len(modes) != 1 or modes[0] not in KINDS:
        raise ModelError(
            f"{folder / 'config.json'}: pools by {', '.join(map(str, modes))}; one of "
            f"{', '.join(KINDS)} is supported"
        )
    if values.get("include_prompt") is False:
        raise ModelError(
            f"{folder / 'config.json'}: include_prompt is false, but prompts cannot be left out of "
            "the pooling yet"
        )
    return Pooling(KINDS[modes[0]])


def _dense(folder: Path) -> Dense:
    config = Config(read_json(folder / "config.json"), str(folder / "config.json"))
    if config.get("use_residual"):
        raise ModelError(f"{folder / 'config.json'}: use_residual is not supported")
    stated = _class_name(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    if stated not in ACTIVATIONS:
        raise config.error("activation_function", f"one of {', '.join(ACTIVATIONS)}")
    return Dense(config.integer("out_features"), config.flag("bias", True), ACTIVATIONS[stated])


def _class_name(value: Any) -> str:
    return "Identity" if value is None else str(value).rpartition(".")[2]


def dense_tensors(modules: SentenceModules) -> dict[str, tuple[str, ...]]:
    """Canonical parameter -> tensor, in the words of `Checkpoint`: by folder and name."""
    return {
        f"pooled.{index}.{kind}": (f"{folder.name}/linear.{kind}",)
        for index, folder in enumerate(modules.folders)
        for kind in ("weight", "bias")
    }
