"""Time attention and the ops against the torch reference, and against what memory and cores give.

    python backends/intel_cpu/bench.py [--threads N] [--seconds S]

Run it on an idle machine. Prints the best of the calls that fit in S seconds each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from inarch.hal.attention import AttentionBatch, AttentionSpec
from inarch.hal.kv import KVHeads, KVSpec
from inarch.hal.ops import OPS
from inarch.hal.reference.attention import ReferenceAttention
from inarch.hal.reference.device import ReferenceDevice
from inarch.hal.reference.kv import ReferenceKVStore
from inarch_intel_cpu.attention import CpuAttention
from inarch_intel_cpu.kernels import kernels
from inarch_intel_cpu.kv import CpuKVStore
from inarch_intel_cpu.native import native

PAGE = 32
DTYPES = (torch.float32, torch.bfloat16)
# What: q heads, KV heads, head size, query tokens and keys of each sequence, sequences.
ATTENTION = {
    "decode 1 x 4096": (14, 2, 64, 1, 4096, 1),
    "decode 16 x 1024": (14, 2, 64, 1, 1024, 16),
    "decode 8 x 4096, 128 wide": (32, 8, 128, 1, 4096, 8),
    "prefill 1024": (14, 2, 64, 1024, 1024, 1),
    "extend 256 of 4096": (14, 2, 64, 256, 4096, 1),
}


def best(call: Callable[[], object], seconds: float) -> float:
    call()
    found, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(found) < 3:
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    return min(found)


def batch_of(queries: int, keys: int, seqs: int) -> tuple[AttentionBatch, int]:
    """Sequences whose pages lie in no order."""
    pages = -(-keys // PAGE)
    ids = np.random.default_rng(0).permutation(pages * seqs).astype(np.int32) + 1
    indptr = np.arange(0, queries * seqs + 1, queries, dtype=np.int32)
    lengths, rows = np.full(seqs, keys, np.int32), np.arange(seqs, dtype=np.int32)
    return AttentionBatch(indptr, lengths, rows, ids.reshape(seqs, pages)), pages * seqs + 1


def attention(dtype: torch.dtype, sizes: tuple[int, ...], seconds: float) -> tuple[float, float]:
    """Seconds that our attention takes, and the reference's."""
    heads, kv_heads, dim, queries, keys, seqs = sizes
    spec = AttentionSpec(heads, kv_heads, dim, dim, dim**-0.5, dtype)
    kept = KVSpec((KVHeads(kv_heads, dim, dim),), dtype)
    batch, pages = batch_of(queries, keys, seqs)
    device, own = ReferenceDevice(), native()
    q, k, v = (torch.randn(queries * seqs, n, dim).to(dtype) for n in (heads, kv_heads, kv_heads))
    found = []
    for make, store in (
        (lambda *a: CpuAttention(*a, native=own, turns=()), CpuKVStore(kept, PAGE, own)),
        (ReferenceAttention, ReferenceKVStore(kept, PAGE, device.torch_device)),
    ):
        kv = store.allocate(pages)
        for part in kv[0]:
            part.copy_(torch.rand(part.shape))
        running = make(spec, store, device)
        plan = running.plan(batch).on(device)
        found.append(best(lambda: running.run(0, q, k, v, kv, plan), seconds))  # noqa: B023
    return found[0], found[1]


def op_cases() -> dict[str, tuple[object, ...]]:
    """Arguments of the ops, 16 tokens of a model of 896 features and 151,936 words."""
    x, weight, logits = torch.randn(16, 896), torch.randn(896), torch.randn(16, 151_936)
    one = torch.ones(16)
    qk = torch.randn(16, 14, 64), torch.randn(16, 2, 64), torch.arange(16), torch.randn(64, 64)
    return {
        "rms_norm": (x, weight, 1e-6),
        "add_rms_norm": (x, x.clone(), weight, 1e-6),
        "silu_mul": (torch.randn(16, 9728),),
        "rope": qk,
        "greedy": (logits,),
        "sample": (logits, one, one / 2),
        "sample, top_k and top_p": (logits, one, one / 2, one.int() * 40, one * 0.9),
        "logprobs": (logits, torch.arange(16), 5),
        **recurrent_cases(8, 1, "8 decodes"),
        **recurrent_cases(1, 256, "prompt of 256"),
    }


def recurrent_cases(runs: int, length: int, name: str) -> dict[str, tuple[object, ...]]:
    """Mixers of 8 key and 16 value heads of 128 features, and of 32 heads of 64 with 128 states."""

    def given(*shape: int) -> torch.Tensor:
        return torch.randn(runs, length, *shape)

    slots = torch.arange(1, runs + 1), torch.arange(1, runs + 1)
    keys, rates, steps = given(8, 128), given(16).sigmoid(), given(32).abs() / 9
    delta = (keys, keys, given(16, 128), -rates.unsqueeze(-1), rates, torch.randn(9, 16, 128, 128))
    space = (given(32, 64), steps, -torch.rand(32), given(1, 128), given(1, 128), torch.rand(32))
    ones = [torch.ones(1)] * 3
    return {
        f"causal_conv, {name}": (
            given(4096),
            torch.randn(4096, 4),
            None,
            torch.randn(9, 3, 4096),
            *slots,
        ),
        f"gated_delta_rule, {name}": (*delta, *slots),
        f"state_space_scan, {name}": (*space, torch.randn(9, 32, 64, 128), *slots),
        f"xielu, {name}": (given(9728), *ones, -1e-6 * torch.ones(1)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=0.3)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    native().set_threads(asked.threads)
    print(f"{ReferenceDevice().info.name}, {native().variant}, {asked.threads} threads")
    large = torch.rand(64 << 20)
    print(f"memory: {large.nbytes / best(large.sum, asked.seconds) / 1e9:.0f} GB/s read")
    for dtype in DTYPES:
        a = torch.rand(1024, 1024).to(dtype)
        rate = 2 * 1024**3 / best(lambda: a @ a, asked.seconds) / 1e9  # noqa: B023
        print(f"torch's product of {dtype}: {rate:.0f} GFLOP/s")
    for name, sizes in ATTENTION.items():
        heads, kv_heads, dim, queries, keys, seqs = sizes
        for dtype in DTYPES:
            ours, other = attention(dtype, sizes, asked.seconds)
            rate = seqs * keys * kv_heads * 2 * dim * dtype.itemsize / ours / 1e9
            seen = queries * keys - queries * (queries - 1) / 2
            flops = 4 * seqs * heads * dim * seen / ours / 1e9
            print(
                f"{name:28}{str(dtype)[6:]:10}{ours * 1e6:9.0f} us{rate:7.1f} GB/s{flops:7.0f} GFLOP/s"
                f"  reference {other * 1e6:9.0f} us, {other / ours:.1f} times"
            )
    table = {kernel.op: kernel.load() for kernel in kernels(native())}
    for name, arguments in op_cases().items():
        op = name.partition(",")[0]
        ours, other = (best(lambda: f(*arguments), asked.seconds) for f in (table[op], OPS[op]))  # noqa: B023
        print(
            f"{name:32}float32   {ours * 1e6:9.1f} us  reference {other * 1e6:9.1f} us, "
            f"{other / ours:.1f} times"
        )


if __name__ == "__main__":
    with torch.inference_mode():
        main()
