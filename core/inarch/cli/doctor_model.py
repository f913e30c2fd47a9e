"""`inarch doctor MODEL`: how a model would be served, and where each choice comes from."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inarch.cli.tables import print_table
from inarch.config import EngineConfig
from inarch.engine.choices import dtype_name
from inarch.engine.outlook import Outlook, foresee
from inarch.engine.preparation import quantization_scheme
from inarch.engine.resolve import resolve
from inarch.engine.text.recognition import recognise_formats
from inarch.engine.text.tokenizer import Tokenizer
from inarch.errors import InarchError, ModelError
from inarch.hal.backend import Backend
from inarch.models.checkpoint import read_json
from inarch.models.model import Blueprint
from inarch.plugins import Plugins

GIB, KIB = 1 << 30, 1 << 10
Row = tuple[str, str, str]


def look_at(config: EngineConfig, plugins: Plugins) -> Iterator[str]:
    """Say how the model would be served without loading it; yield what stands in the way.

    Raises InarchError if it cannot be served at all.
    """
    alone = Path(config.model or "").is_file()
    with _folder_of(config) as looked_at:
        resolved, backend = _resolve(looked_at, plugins)
        outlook = foresee(resolved, backend, plugins)
        try:
            print_table(
                ("model", str(resolved.served_model_name), "why"), _model_rows(resolved, outlook)
            )
            if not alone:
                print_table(("text", "", "why"), _text_rows(resolved, outlook))
            print_table(("memory", "GiB", "where from"), _memory_rows(resolved, outlook))
            rows = [(op, kernel, str(count), why) for op, kernel, count, why in outlook.ops]
            print_table(("op", "kernel", "bindings", "why"), rows)
            yield from _troubles(outlook)
        finally:
            outlook.prepared.device.close()


@contextmanager
def _folder_of(config: EngineConfig) -> Iterator[EngineConfig]:
    """A configuration whose model may also be a config.json alone, which is then put in a folder."""
    path = Path(config.model or "")
    if path.suffix != ".json" or path.is_dir():
        yield config
        return
    read_json(path)  # an error then names this file, not the copy
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, Path(folder, "config.json"))
        name = config.served_model_name or str(path)
        try:
            yield dataclasses.replace(config, model=folder, served_model_name=name)
        except ModelError as error:
            raise ModelError(str(error).replace(folder, str(path.parent))) from error


def _resolve(config: EngineConfig, plugins: Plugins) -> tuple[EngineConfig, Backend]:
    """As for serving, but for the weights: without any, or on the hub, the model is looked at alone."""
    found, backend = resolve(dataclasses.replace(config, load_format="dummy"), plugins)
    folder = Path(str(found.model))
    if config.load_format == "dummy" or not _has_weights(folder):
        return found, backend
    return dataclasses.replace(found, load_format=config.load_format), backend


def _has_weights(folder: Path) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in ("*.safetensors*", "*.bin*"))


def _model_rows(config: EngineConfig, outlook: Outlook) -> list[Row]:
    ready, survey = outlook.prepared, outlook.survey
    checkpoint, chosen = ready.checkpoint, ready.chosen
    why, layout = chosen.reasons, ready.store.layout
    dtype, kv_dtype = dtype_name(chosen.dtype), dtype_name(chosen.kv_dtype)
    return [
        ("architecture", ", ".join(checkpoint.config.get("architectures", ())), "config.json"),
        ("gives", _given(ready.blueprint), "the architecture, and modules.json if there is one"),
        ("run by", survey.implementation, "--model-impl"),
        ("weights", f"{_count(survey.parameters)} in {dtype}", why["dtype"]),
        ("stored", *_stored(outlook)),
        ("quantization", *_quantization(checkpoint.config, config)),
        *_layer_rows(survey.layers),
        *(("positions", rotation, "") for rotation in survey.positions),
        ("context length", f"{chosen.context:,} tokens", why["context length"]),
        ("KV cache", *_kv_cache(outlook.token_bytes, kv_dtype, why["KV dtype"])),
        ("page", f"{layout.page_tokens} tokens", why["page size"]),
        *(("note", note, "") for note in outlook.notes),
    ]


def _kv_cache(token_bytes: float, dtype: str, why: str) -> tuple[str, str]:
    if not token_bytes:
        return "none", "no layer keeps anything of each token"
    return f"{token_bytes / KIB:,.1f} KiB a token in {dtype}", why


def _given(blueprint: Blueprint) -> str:
    head = blueprint.pooled
    if head is None:
        return "text"
    each = ", of each token" if head.pooling.kind == "each" else ""
    if head.labels:
        count = len(head.labels)
        return f"scores of {count} labels{each}" if count > 1 else f"a score{each}"
    length = ", of length 1" if head.normalize else ""
    return f"vectors of {head.outputs(blueprint.hidden)}{each}{length}"


def _stored(outlook: Outlook) -> tuple[str, str]:
    """What the headers of the weight files say."""
    checkpoint = outlook.prepared.checkpoint
    if not _has_weights(checkpoint.folder):
        return "no weights here", "the config alone was looked at"
    return f"{len(checkpoint.names()):,} tensors", outlook.survey.stored


def _quantization(model: Mapping[str, Any], config: EngineConfig) -> tuple[str, str]:
    """How weights are stored, and who says so."""
    scheme, section = quantization_scheme(config), model.get("quantization_config")
    if scheme is not None:
        return f"{scheme}, of linear layers and experts", "--quantization"
    method = section.get("quant_method") if isinstance(section, Mapping) else "none"
    return str(method), "config.json"


def _layer_rows(layers: tuple[str, ...]) -> Iterator[Row]:
    """Equal layers in one row, however they alternate."""
    for kind in dict.fromkeys(layers):
        places = [i for i, layer in enumerate(layers) if layer == kind]
        yield "layers", f"{len(places)} x {kind}", f"layers {_ranges(places)}"


def _ranges(numbers: list[int]) -> str:
    """0-3, 5, 7-8; the first few where there are many."""
    runs = [
        [number for _, number in run]
        for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])
    ]
    told = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ", ".join(told[:4]) + (" ..." if len(told) > 4 else "")


def _text_rows(config: EngineConfig, outlook: Outlook) -> list[Row]:
    """The tokenizer, and for what generates text what the chat template tells of its formats."""
    try:
        tokenizer = Tokenizer.load(Path(str(config.model)), chat_template=config.chat_template)
    except InarchError as error:
        return [("tokenizer", "none: prompts must be token ids", str(error))]
    rows = [("tokenizer", f"{tokenizer.vocab_size:,} tokens", "")]
    if outlook.prepared.blueprint.pooled is not None:
        return rows
    if not tokenizer.has_chat_template:
        return [*rows, ("chat template", "none: completions only", "--chat-template gives one")]
    formats, by = recognise_formats(config, tokenizer), "told by the chat template"
    variables = tokenizer.chat_template.variables
    return [
        *rows,
        ("chat template", "knows tools" if "tools" in variables else "knows no tools", ""),
        ("calls of tools", formats.tools.name if formats.tools else "none", by),
        ("reasoning", formats.reasoning.name if formats.reasoning else "none", by),
    ]


def _memory_rows(config: EngineConfig, outlook: Outlook) -> list[Row]:
    context = outlook.prepared.chosen.context
    quantized = config.quantization != "none"
    stored = "as --quantization says" if quantized else "parameters times the size of the dtype"
    rows = [
        ("device", outlook.total, f"measured, {outlook.prepared.device.info.name}"),
        ("usable", outlook.usable, f"--memory-share {outlook.share:g}, less what is in use"),
        ("weights", outlook.survey.weight_bytes, stored),
        ("sampling", outlook.sampling, "counts for penalties, per request that can run"),
        ("one context", int(context * outlook.token_bytes), f"KV of {context:,} tokens"),
    ]
    if outlook.state_bytes:
        source = "recurrent: of each request, and of each checkpoint"
        rows.append(("one state", outlook.state_bytes, source))
    rows.append(_left(outlook))
    return [(name, f"{size / GIB:.3f}", source) for name, size, source in rows]


def _left(outlook: Outlook) -> tuple[str, int, str]:
    """Tokens and states share what is left."""
    left, token, state = outlook.left, outlook.token_bytes, outlook.state_bytes
    if not token:
        room = f"room for {left // state:,} states, less what a step takes (see --measure)"
        return "left for states", left, room
    taken = "what states and a step take" if state else "what a step takes"
    room = f"room for {int(left / token):,} tokens, less {taken} (see --measure)"
    return "left for KV", left, room


def _troubles(outlook: Outlook) -> Iterator[str]:
    if outlook.left >= outlook.prepared.store.layout.page_bytes + outlook.state_bytes:
        return
    needed = outlook.survey.weight_bytes + outlook.sampling
    yield (
        f"weights and sampling need {needed / GIB:.2f} GiB, more than the "
        f"{outlook.usable / GIB:.2f} GiB that may be used of {outlook.prepared.device.info.name}: "
        "free memory, raise --memory-share, or take a smaller model or --dtype"
    )


def _count(parameters: int) -> str:
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if parameters >= size:
            return f"{parameters / size:.2f} {name} parameters"
    return f"{parameters:,} parameters"
