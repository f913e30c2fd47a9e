"""Measure the attention kernel's tiles on the GPU at hand, and print the tables of tiles.py anew.

    python backends/triton/bench.py [--json FILE]

Decode is compared with the memory's bandwidth (of a copy, measured first), prefill with torch's own
attention (cuDNN, FlashAttention). Every candidate's output is checked against the reference before it
is timed. Takes about three minutes on one H200, most of it in compiling candidates.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from inarch.hal.attention import AttentionBatch, AttentionSpec
from inarch.hal.device import Device, DeviceInfo, MemoryStats, ReadyTransfer, Transfer
from inarch.hal.kv import KVHeads, KVSpec, KVState
from inarch.hal.ops import OPS
from inarch.hal.reference.attention import ReferenceAttention
from inarch_triton.attention import TritonAttention
from inarch_triton.attention_launch import GLUON
from inarch_triton.kernels import kernels
from inarch_triton.kv import PagedKVStore
from inarch_triton.options import processors
from inarch_triton.tile import Tile
from inarch_triton.tiles import choose_tile

SPEC = AttentionSpec(32, 8, 128, 128, 128**-0.5, torch.bfloat16)
TOKEN_BYTES = 2 * SPEC.kv_heads * SPEC.key_dim * 2
DECODE = list(itertools.product((1, 8, 64, 256), (1024, 8192)))
PREFILL = [(1024, 0), (4096, 0), (16384, 0), (512, 8192)]  # new tokens, cached prefix
COLD_BYTES = 512 << 20  # K and V read in turn, so that none is still in a cache

DECODE_TILES = [  # keys, warps, stages
    (32, 4, 4), (32, 2, 4), (64, 4, 2), (64, 4, 3), (64, 4, 4), (64, 2, 3), (128, 4, 2),
    (128, 8, 2), (128, 8, 3),
]  # fmt: skip
WAVES = (2, 4, 16)  # besides the default
PREFILL_TILES = [  # rows, keys, warps, stages, descriptors
    (128, 64, 8, 2, True), (128, 64, 8, 3, True), (128, 64, 8, 4, True), (128, 128, 8, 2, True),
    (128, 64, 4, 3, True), (64, 64, 4, 3, True), (128, 64, 8, 3, False), (128, 128, 8, 2, False),
    (128, 32, 8, 4, False),
]  # fmt: skip


class GPU(Device):
    """torch's current accelerator, with just what attention needs."""

    def __init__(self) -> None:
        accelerator = torch.accelerator.current_accelerator()
        assert accelerator is not None, "this benchmark needs a GPU"
        self.torch_device = torch.device(accelerator.type, 0)
        properties = torch.cuda.get_device_properties(0)
        arch = f"sm_{properties.major}{properties.minor}"
        if torch.version.hip:
            arch = properties.gcnArchName
        self.info = DeviceInfo(properties.name, arch, properties.total_memory)

    def upload(self, host: np.ndarray) -> Tensor:
        return torch.from_numpy(host.copy()).to(self.torch_device)

    def download(self, tensor: Tensor) -> Transfer:
        return ReadyTransfer(tensor.cpu().numpy())

    def memory(self) -> MemoryStats:
        raise NotImplementedError

    def reset_peak_memory(self) -> None:
        raise NotImplementedError

    def synchronize(self) -> None:
        torch.accelerator.synchronize()


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Of one call, from a captured graph, so that the host's speed does not count: the median."""
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    graph.replay()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return sorted(times)[repeats // 2]


@dataclass
class Problem:
    """Sequences of `new` query tokens over `prefix` cached ones, in randomly scattered pages."""

    device: GPU
    seqs: int
    new: int
    prefix: int
    page_tokens: int
    layers: int

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        length = self.new + self.prefix
        pages = -(-length // self.page_tokens)
        table = 1 + np.random.default_rng(0).permutation(self.seqs * pages).astype(np.int32)
        self.batch = AttentionBatch(
            q_indptr=np.arange(self.seqs + 1, dtype=np.int32) * self.new,
            kv_lens=np.full(self.seqs, length, np.int32),
            rows=np.arange(self.seqs, dtype=np.int32),
            page_table=table.reshape(self.seqs, pages),
        )
        heads = KVHeads(SPEC.kv_heads, SPEC.key_dim, SPEC.value_dim)
        spec = KVSpec((heads,) * self.layers, SPEC.dtype)
        self.store = PagedKVStore(spec, self.page_tokens, self.device.torch_device)
        self.kv: KVState = self.store.allocate(self.seqs * pages + 1)
        for part in itertools.chain(*self.kv):
            part.normal_()
        tokens = self.seqs * self.new
        place, dtype = self.device.torch_device, SPEC.dtype
        heads_of_all = SPEC.q_heads + 2 * SPEC.kv_heads
        projected = torch.randn(tokens, heads_of_all, SPEC.key_dim, device=place, dtype=dtype)
        self.qkv = projected.split([SPEC.q_heads, SPEC.kv_heads, SPEC.kv_heads], 1)

    def run(self, tile: Tile | None) -> Callable[[], Tensor]:
        """All layers once, with this tile or with the table's."""

        def choose(*facts: Any, **options: Any) -> Tile:
            return choose_tile(*facts, **options) if tile is None else tile

        attention = TritonAttention(SPEC, self.store, self.device, choose=choose)
        plan = attention.plan(self.batch).on(self.device)

        def work() -> Tensor:
            for layer in range(self.layers):
                out = attention.run(layer, *self.qkv, self.kv, plan).out
            return out

        return work

    def reference(self) -> Tensor:
        attention = ReferenceAttention(SPEC, self.store, self.device)
        plan = attention.plan(self.batch).on(self.device)
        return attention.run(self.layers - 1, *self.qkv, self.kv, plan).out

    @property
    def default(self) -> Tile:
        crowd = self.seqs * SPEC.kv_heads / processors(self.device.torch_device)
        rows, long = (16, False) if self.new == 1 else (128, True)
        arch, page = self.device.info.arch, self.page_tokens
        return choose_tile(arch, SPEC, page, rows, long=long, crowd=crowd, gluon=GLUON)


def checked(problem: Problem, tiles: list[Tile]) -> list[Tile]:
    """Those of `tiles` that compile and agree with the reference."""
    expected = problem.reference().float()
    good = []
    for tile in tiles:
        try:
            error = (problem.run(tile)().float() - expected).abs().max().item()
        except Exception as trouble:  # a candidate may need more than the device has
            print(f"  not possible: {tile}: {type(trouble).__name__}: {str(trouble)[:90]}")
            continue
        if error < 2e-2:
            good.append(tile)
        else:
            print(f"  WRONG by {error:.3g}: {tile}")
    return good


def describe(tile: Tile) -> str:
    kind = "specialized" if tile.specialized else "tma" if tile.descriptors else "ptr"
    return f"{tile.rows}x{tile.keys} w{tile.warps} s{tile.stages} v{tile.waves} {kind}"


def bench_decode(device: GPU, copy_rate: float) -> Iterator[dict[str, Any]]:
    for page in (16, 64):
        small = Problem(device, 3, 1, 1000, page, layers=1)
        candidates = [
            dataclasses.replace(small.default, keys=k, warps=w, stages=s)
            for k, w, s in DECODE_TILES
        ]
        candidates = checked(small, [small.default, *candidates])
        for seqs, context in DECODE:
            size = seqs * context * TOKEN_BYTES
            problem = Problem(
                device, seqs, 1, context - 1, page, max(2, min(96, COLD_BYTES // size))
            )
            times = {t: seconds(problem.run(t)) / problem.layers for t in candidates}
            best = min(times, key=lambda tile: times[tile])
            for waves in WAVES:
                tile = dataclasses.replace(best, waves=waves)
                times[tile] = seconds(problem.run(tile)) / problem.layers
            yield report("decode", (seqs, context, page), times, small.default, size, copy_rate)
            del problem
            torch.cuda.empty_cache()


def bench_prefill(device: GPU) -> Iterator[dict[str, Any]]:
    for page in (16, 64, 128):
        small = Problem(device, 2, 300, 77, page, layers=1)
        candidates = [
            Tile(r, k, w, s, waves=2, chunk=1024, descriptors=d)
            for r, k, w, s, d in PREFILL_TILES
            if not d or k <= page
        ]
        candidates = checked(small, list(dict.fromkeys([small.default, *candidates])))
        for new, prefix in PREFILL:
            problem = Problem(device, 1, new, prefix, page, layers=1)
            times = {tile: seconds(problem.run(tile)) for tile in candidates}
            pairs = new * prefix + new * (new + 1) / 2
            work = 4 * pairs * SPEC.q_heads * SPEC.key_dim
            yield report("prefill", (new, prefix, page), times, small.default, work, 0.0)


def report(
    kind: str,
    shape: tuple[int, ...],
    times: dict[Tile, float],
    default: Tile,
    work: float,
    peak: float,
) -> dict[str, Any]:
    """Print one line: the table's tile, the best, and the three next to it."""
    order = sorted(times, key=lambda tile: times[tile])
    unit = "TB/s" if kind == "decode" else "TFLOP/s"
    rate = {tile: work / times[tile] / 1e12 for tile in order}
    share = f" = {rate[order[0]] / peak * 1e12:4.0%} of a copy" if peak else ""
    ours = (
        f"{times[default] * 1e6:9.1f} us {rate[default]:7.2f} {unit}" if default in times else "-"
    )
    print(
        f"{kind:8}{shape!s:20} table {ours} | best {times[order[0]] * 1e6:9.1f} us "
        f"{rate[order[0]]:7.2f} {unit}{share}  {describe(order[0])} | then "
        + ", ".join(f"{describe(t)} +{times[t] / times[order[0]] - 1:.0%}" for t in order[1:4]),
        flush=True,
    )
    named = {describe(tile): times[tile] for tile in order}
    return {"kind": kind, "shape": shape, "default": describe(default), "seconds": named}


def bench_torch(device: GPU) -> Iterator[dict[str, Any]]:
    """The same prefills without pages: what torch's own kernels reach."""
    for new, prefix in PREFILL:
        if prefix:
            continue
        shape = (1, SPEC.q_heads, new, SPEC.key_dim)
        q, k, v = (
            torch.randn(shape, device=device.torch_device, dtype=SPEC.dtype) for _ in range(3)
        )
        k, v = (x[:, : SPEC.kv_heads].contiguous() for x in (k, v))
        work = 4 * new * (new + 1) / 2 * SPEC.q_heads * SPEC.key_dim
        for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
            try:
                with sdpa_kernel(backend):
                    time = seconds(
                        lambda q=q, k=k, v=v: F.scaled_dot_product_attention(
                            q, k, v, is_causal=True, enable_gqa=True
                        )
                    )
            except RuntimeError as trouble:
                print(f"torch {backend.name}: {str(trouble)[:90]}")
                continue
            rate = work / time / 1e12
            print(f"torch   ({new}, 0) {backend.name:16} {time * 1e6:9.1f} us {rate:7.2f} TFLOP/s")
            yield {"kind": backend.name, "shape": (new, 0), "seconds": time}


def bench_small_ops(device: GPU, copy_rate: float) -> Iterator[dict[str, Any]]:
    """The fused small ops of an 8B model beside the reference's."""
    ours = {kernel.op: kernel.load() for kernel in kernels(device.info.arch)}
    place, dtype = device.torch_device, SPEC.dtype
    for tokens in (1, 64, 512, 8192):
        x, residual = (torch.randn(tokens, 4096, device=place, dtype=dtype) for _ in range(2))
        gates = torch.randn(tokens, 28672, device=place, dtype=dtype)
        q, k, _ = torch.randn(tokens, 48, 128, device=place, dtype=dtype).split([32, 8, 8], 1)
        weight = torch.ones(4096, device=place, dtype=dtype)
        positions = torch.arange(tokens, device=place)
        table = torch.randn(8192, 128, device=place)
        calls = {
            "add_rms_norm": ((x, residual, weight, 1e-5), 8 * x.numel()),
            "rope": ((q, k, positions, table), 4 * (q.numel() + k.numel())),
            "silu_mul": ((gates,), 3 * gates.numel()),
        }
        for op, (args, size) in calls.items():
            mine = seconds(lambda op=op, args=args: ours[op](*args))
            plain = seconds(lambda op=op, args=args: OPS[op](*args))
            share = size / mine / copy_rate
            print(
                f"{op:14}{tokens:6} tokens {mine * 1e6:8.1f} us, {share:4.0%} of a copy's rate; "
                f"reference {plain * 1e6:8.1f} us"
            )
            yield {"kind": op, "shape": (tokens,), "seconds": mine, "reference": plain}


def measure_copy(device: GPU) -> float:
    """Bytes a second, read and written."""
    source = torch.empty(2 << 30, dtype=torch.uint8, device=device.torch_device)
    target = torch.empty_like(source)
    return 2 * source.numel() / seconds(lambda: target.copy_(source))


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="also write every measurement to this file")
    options = parser.parse_args()
    device = GPU()
    copy_rate = measure_copy(device)
    print(f"{device.info.name} ({device.info.arch}), torch {torch.__version__}: a copy moves "
          f"{copy_rate / 1e12:.2f} TB/s")  # fmt: skip
    results = [
        *bench_torch(device),
        *bench_prefill(device),
        *bench_decode(device, copy_rate),
        *bench_small_ops(device, copy_rate),
    ]
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"device": device.info.name, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
