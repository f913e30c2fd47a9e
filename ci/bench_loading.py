"""What loading a checkpoint takes of the host's memory, against the checkpoint's size.

    python ci/bench_loading.py [--gb 4] [--kind safetensors|bin] [--shards 8] [--dtype bfloat16]

Writes a checkpoint of about that size in bfloat16 to a temporary folder and loads it on the
reference device in a child process. A mapped file's pages count as resident while they are mapped,
although the system takes them back whenever it needs room; so two peaks are printed: of memory that
is the process's own (RssAnon and RssShmem of /proc/PID/status, read every 2 ms) and of all that was
resident (VmHWM), both less what the child held before it opened the checkpoint. Linux only.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

HIDDEN, INTERMEDIATE, VOCABULARY = 2048, 8192, 8_000
LAYER_BYTES = 2 * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INTERMEDIATE)  # of bfloat16


@dataclass(frozen=True)
class Peaks:
    """Bytes."""

    size: int  # of the tensors in the files
    own: int
    resident: int
    seconds: float


def write_checkpoint(folder: Path, size: int, shards: int, kind: str) -> int:
    """A Llama of about `size` bytes in `shards` files; returns its real size."""
    from transformers import LlamaConfig

    layers = max(1, round((size - 4 * HIDDEN * VOCABULARY) / LAYER_BYTES))
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=16,
        max_position_embeddings=2048,
        dtype="bfloat16",
    )
    config.save_pretrained(folder)
    return _write_shards(folder, _shapes(layers), shards, kind)


def _shapes(layers: int) -> dict[str, tuple[int, ...]]:
    square, wide = (HIDDEN, HIDDEN), (INTERMEDIATE, HIDDEN)
    layer = {
        "input_layernorm": (HIDDEN,),
        "post_attention_layernorm": (HIDDEN,),
        **{f"self_attn.{name}_proj": square for name in "qkvo"},
        "mlp.gate_proj": wide,
        "mlp.up_proj": wide,
        "mlp.down_proj": wide[::-1],
    }
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for index in range(layers):
        shapes |= {f"model.layers.{index}.{name}.weight": shape for name, shape in layer.items()}
    return shapes | {"lm_head.weight": (VOCABULARY, HIDDEN)}


def _write_shards(folder: Path, shapes: dict[str, tuple[int, ...]], shards: int, kind: str) -> int:
    from safetensors.torch import save_file

    single = "model.safetensors" if kind == "safetensors" else "pytorch_model.bin"
    stem, _, ending = single.rpartition(".")
    names, weight_map, total = list(shapes), dict[str, str](), 0
    for shard in range(shards):
        file = f"{stem}-{shard + 1:05}-of-{shards:05}.{ending}"
        own = names[len(names) * shard // shards : len(names) * (shard + 1) // shards]
        tensors = {name: torch.ones(shapes[name], dtype=torch.bfloat16) for name in own}
        total += sum(tensor.nbytes for tensor in tensors.values())
        weight_map |= dict.fromkeys(own, file)
        save_file(tensors, folder / file) if kind == "safetensors" else torch.save(
            tensors, folder / file
        )
    (folder / f"{single}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return total


def measure(folder: Path, size: int, dtype: str = "bfloat16") -> Peaks:
    """Load the folder's checkpoint in a child and watch the child's memory."""
    command = [sys.executable, __file__, "--child", str(folder), "--dtype", dtype]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        raise RuntimeError(f"the child that loads failed:\n{child.stderr}")
    found = json.loads(child.stdout.splitlines()[-1])
    return Peaks(size, found["own"], found["resident"], found["seconds"])


def load_and_watch(folder: Path, dtype: torch.dtype) -> dict[str, float]:
    """In the child: load, and say what memory that took at most."""
    from inarch.hal.dispatch import Dispatcher
    from inarch.hal.reference.device import ReferenceDevice
    from inarch.hal.reference.kv import ReferenceKVStore
    from inarch.models.checkpoint import Checkpoint
    from inarch.models.decoder import kv_spec
    from inarch.models.family import find_family
    from inarch.models.loading import load_decoder

    torch.ones(8, 8) @ torch.ones(8, 8)  # the libraries behind it take memory of their own, once
    before, peak, loaded = _status(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not loaded.is_set():
            now = _status()
            peak = max(peak, now["RssAnon"] + now["RssShmem"])
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.monotonic()
    try:
        checkpoint, device = Checkpoint(folder), ReferenceDevice()
        family = find_family(checkpoint.config)
        description = family.describe(checkpoint.config)
        store = ReferenceKVStore(kv_spec(description, dtype), 16, device.torch_device)
        names = family.names(description)
        decoder = load_decoder(description, names, checkpoint, Dispatcher(), store, device, dtype)
    finally:
        seconds = time.monotonic() - started
        loaded.set()
        watcher.join()
    assert decoder is not None  # held until the last look
    return {
        "own": peak - before["RssAnon"] - before["RssShmem"],
        "resident": _status()["VmHWM"] - before["VmRSS"],
        "seconds": seconds,
    }


def _status() -> dict[str, int]:
    """Bytes, of the lines of /proc/self/status that are in kB."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if line[-1] == "kB"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=4.0, help="size of the checkpoint, 10^9 bytes")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--kind", choices=["safetensors", "bin"], default="safetensors")
    parser.add_argument("--dtype", default="bfloat16", help="of the computation")
    parser.add_argument("--json", action="store_true", help="print bytes and seconds as JSON")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(load_and_watch(arguments.child, getattr(torch, arguments.dtype))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_checkpoint(folder, int(arguments.gb * 1e9), arguments.shards, arguments.kind)
        found = measure(folder, size, arguments.dtype)
    if arguments.json:
        print(json.dumps(asdict(found)))
        return
    print(f"{arguments.kind}, {arguments.shards} files, computed in {arguments.dtype}")
    print(f"{platform.machine()}, torch {torch.__version__}, {datetime.date.today()}")
    print(f"checkpoint     {size / 1e9:6.2f} GB, loaded in {found.seconds:.1f} s")
    print(f"peak, own      {found.own / 1e9:6.2f} GB  {found.own / size:7.1%}  (limit 115 %)")
    print(f"peak, resident {found.resident / 1e9:6.2f} GB  {found.resident / size:7.1%}")


if __name__ == "__main__":
    main()
