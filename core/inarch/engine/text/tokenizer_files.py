"""A model folder's tokenizer, out of the files that its makers left there.

A front end starts in a fraction of a second because tokenizer.json is read by the `tokenizers` library
alone; torch and transformers stay away unless a folder has nothing but an older format.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from inarch.errors import ModelError

ADDED_TOKEN_FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")


@dataclass(frozen=True)
class TokenizerFiles:
    """special_tokens: role -> text, such as "bos_token": "<s>". config: tokenizer_config.json."""

    backend: Backend
    special_tokens: Mapping[str, str]
    eos_token_ids: tuple[int, ...]  # every token that ends an answer
    config: Mapping[str, Any]


def read_tokenizer_files(folder: Path) -> TokenizerFiles:
    """Raises ModelError if the folder has no usable tokenizer."""
    config = _read_json(folder / "tokenizer_config.json")
    special_tokens = _special_tokens(_read_json(folder / "special_tokens_map.json") | config)
    if (folder / "tokenizer.json").is_file():
        backend = _read_backend(folder / "tokenizer.json", config)
    else:
        backend, known = _convert(folder)
        special_tokens = known | special_tokens
    eos = special_tokens.get("eos_token")
    if config.get("add_eos_token") is True and (folder / "modules.json").is_file():
        _end_texts(backend, eos)
    _mark_special(backend, special_tokens.values())
    ends = _eos_token_ids(folder, id_of(backend, eos))
    return TokenizerFiles(backend, special_tokens, ends, config)


def id_of(backend: Backend, token: str | None) -> int | None:
    return None if token is None else backend.token_to_id(token)


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a file, empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not readable JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def _read_backend(path: Path, config: Mapping[str, Any]) -> Backend:
    try:
        backend = Backend.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        raise ModelError(f"{path} is not a usable tokenizer: {error}") from None
    # What a trainer may have left in the file: prompts are neither cut nor filled up.
    backend.no_truncation()
    backend.no_padding()
    _add_missing(backend, config.get("added_tokens_decoder"))
    return backend


def _add_missing(backend: Backend, added: Any) -> None:
    """Add the tokens of tokenizer_config.json that tokenizer.json lacks, in order of their ids."""
    from tokenizers import AddedToken

    for _, entry in sorted((added or {}).items(), key=lambda item: int(item[0])):
        if backend.token_to_id(entry["content"]) is None:
            flags = {key: bool(entry.get(key, False)) for key in ADDED_TOKEN_FLAGS}
            backend.add_tokens([AddedToken(entry["content"], **flags)])


def _end_texts(backend: Backend, eos: str | None) -> None:
    """Put the token that ends a text behind each, as makers of embedding models expect it who let
    transformers add it; tokenizer.json need not say so."""
    from tokenizers.processors import TemplateProcessing

    around = backend.encode("")
    if eos is None or eos in around.tokens[-1:]:
        return
    before, ids = around.tokens, [(token, backend.token_to_id(token)) for token in around.tokens]
    single, second = [*before, "$A", eos], [*before, "$B", eos]
    backend.post_processor = TemplateProcessing(
        single=single,
        pair=[*single, *second],
        special_tokens=[*ids, (eos, backend.token_to_id(eos))],
    )


def _mark_special(backend: Backend, tokens: Iterable[str]) -> None:
    """Make sure that tokens with a role are skipped as special, whatever tokenizer.json says."""
    special = {t.content for t in backend.get_added_tokens_decoder().values() if t.special}
    known = [token for token in tokens if backend.token_to_id(token) is not None]
    backend.add_special_tokens([token for token in known if token not in special])


def _convert(folder: Path) -> tuple[Backend, dict[str, str]]:
    """A tokenizer of an older format, by way of transformers."""
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # anything, from a missing file to a missing package
        raise ModelError(
            f"{folder} has no tokenizer.json, and transformers finds no other tokenizer in it: "
            + " ".join(str(error).split())
        ) from None
    backend = getattr(loaded, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            f"{folder} has no tokenizer.json, and its {type(loaded).__name__} cannot be turned "
            "into one: use a copy of the model that has the file"
        )
    return backend, _special_tokens(loaded.special_tokens_map)


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Role -> text of the special tokens that have a role, each written as text or as object."""
    tokens = {key: value for key, value in config.items() if key.endswith("_token")}
    if isinstance(extra := config.get("extra_special_tokens"), dict):
        tokens |= extra
    texts = {key: v.get("content") if isinstance(v, dict) else v for key, v in tokens.items()}
    return {key: text for key, text in texts.items() if isinstance(text, str)}


def _eos_token_ids(folder: Path, tokenizer_eos: int | None) -> tuple[int, ...]:
    """Every token that ends an answer; a chat model often has several."""
    declared = _read_json(folder / "generation_config.json").get("eos_token_id")
    if declared is None:
        declared = _read_json(folder / "config.json").get("eos_token_id")
    ids = list(declared) if isinstance(declared, list) else [declared]
    return tuple(dict.fromkeys(i for i in [*ids, tokenizer_eos] if isinstance(i, int)))
