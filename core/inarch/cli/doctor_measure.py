"""`inarch doctor MODEL --measure`: load a model as for serving, and say what it took."""

from __future__ import annotations

from inarch.cli.tables import print_table
from inarch.config import EngineConfig
from inarch.engine.build import Built, build
from inarch.engine.resolve import resolve
from inarch.plugins import Plugins

MIB = 1 << 20


def measure(config: EngineConfig, plugins: Plugins) -> None:
    """Build the engine as `serve` would, and print its choices. Raises InarchError."""
    resolved, backend = resolve(config, plugins)
    built = build(resolved, backend, plugins)
    try:
        print_table(("model", built.info.name, "why"), _model_rows(built))
        print_table(("memory", "MiB", "where from"), _memory_rows(built))
        rows = [(row.op, row.kernel, str(row.bindings), row.why) for row in built.info.ops]
        print_table(("op", "kernel", "bindings", "why"), rows)
    finally:
        built.device.close()


def _model_rows(built: Built) -> list[tuple[str, str, str]]:
    info, why = built.info, built.reasons
    return [
        ("folder", info.path, ""),
        ("architecture", info.architecture, "config.json"),
        ("dtype", info.dtype, why["dtype"]),
        ("context length", f"{info.context_length} tokens", why["context length"]),
        ("page", f"{info.page_tokens} tokens", why["page size"]),
        ("KV cache", f"{info.kv_tokens} tokens", why["KV pages"]),
        ("KV dtype", info.kv_dtype, why["KV dtype"]),
        ("longest request", f"{info.max_request_tokens} tokens", "context length, or KV cache"),
    ]


def _memory_rows(built: Built) -> list[tuple[str, str, str]]:
    memory = built.memory
    usable = int(memory.total * memory.share)
    rows = [
        ("device", memory.total, f"measured, {built.info.device}"),
        ("usable", usable, f"{memory.share:g} of it: --memory-share, or the device's own"),
        ("weights", memory.weights, "measured, after loading"),
        ("a step", memory.activations, "measured, the peak of the largest step"),
        ("kept", memory.kept, "by captured steps: measured; by attention: computed"),
        ("sampling", memory.sampling, "counts for penalties, per request that can run"),
        ("KV cache", memory.kv, f"{memory.pages} pages of {memory.page_bytes} bytes"),
    ]
    if memory.slots:
        source = f"{memory.slots} recurrent states of {memory.slot_bytes} bytes"
        rows.append(("states", memory.states, source))
    return [(name, f"{size / MIB:.1f}", source) for name, size, source in rows]
