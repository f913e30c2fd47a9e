"""Measure linear layers of few tokens on the GPU at hand: what linear_tiles.py is made from.

    python backends/triton/bench_linear.py [--candidates] [--shapes NAME,...] [--tokens M,...]

Prints, for each layer of an 8B model and each number of tokens, the time of torch's product, that of
the tile which the table chooses, and with --candidates those of the others, best first. Weights are
read in turn, so that none is still in a cache; launches are those of a captured graph. Every result
is compared with torch's before it is timed. Half a minute on one H200; minutes with --candidates.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.hal.linear import LinearSpec
from inarch_triton.linear import PackedLinear, TritonLinear, multiply
from inarch_triton.linear_tiles import LinearTile
from inarch_triton.options import pdl

SHAPES = {
    "qkv": (6144, 4096),
    "out": (4096, 4096),
    "gate_up": (28672, 4096),
    "down": (4096, 14336),
    "head": (128256, 4096),
}
TOKENS = (1, 8, 16, 32, 64)
COLD_BYTES = 400 << 20  # of weights read in turn
LAUNCHES = 24  # at least, in one graph
TOLERANCE = 0.05  # of outputs near 1
SIDES = [  # rows, depth, warps
    (64, 128, 4), (64, 64, 4), (64, 256, 4), (32, 256, 4), (16, 256, 2), (128, 64, 4), (128, 128, 8),
]  # fmt: skip


def candidates(tokens: int) -> Iterator[LinearTile]:
    size = max(16, 1 << (tokens - 1).bit_length())
    for (rows, depth, warps), stages, splits in itertools.product(SIDES, (3, 4, 6), (1, 2, 4)):
        if stages * (rows + size) * depth * 2 <= 200 << 10:
            yield LinearTile(rows, depth, size, warps, stages, splits)


def seconds(call: Callable[[], object]) -> float:
    """The median of 7 replays."""
    call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    graph.replay()
    times = []
    for _ in range(7):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / 1000)
    return sorted(times)[3]


def in_turn(multiply: Callable[[Tensor], Tensor], weights: list[Tensor]) -> float:
    """Seconds of one product."""
    rounds = -(-LAUNCHES // len(weights))
    return seconds(lambda: [multiply(w) for w in weights * rounds]) / (rounds * len(weights))


def measure(name: str, tokens: int, arch: str, *, every: bool) -> None:
    outputs, inputs = SHAPES[name]
    size = outputs * inputs * 2
    weights = [
        torch.randn(outputs, inputs, device="cuda", dtype=torch.bfloat16) * inputs**-0.5
        for _ in range(max(1, COLD_BYTES // size))
    ]
    x = torch.randn(tokens, inputs, device="cuda", dtype=torch.bfloat16)
    theirs = in_turn(lambda w: F.linear(x, w), weights)
    print(f"{name:8} {tokens:4} tokens: torch {describe(theirs, size)}", flush=True)
    packed = TritonLinear(arch).prepack(LinearSpec(outputs, inputs, x.dtype), weights[0], None)
    chosen = next((tile for tile in packed.tiles if tokens <= tile.tokens), None)
    found = {}
    for tile in dict.fromkeys([chosen, *(candidates(tokens) if every else ())]):
        if tile is not None:
            found[tile] = time_of(tile, x, weights, early=pdl(arch))
    for tile in sorted(found, key=lambda tile: found[tile])[:6]:
        mark = "  (the table's)" if tile == chosen else ""
        print(
            f"    {describe(found[tile], size)} x{theirs / found[tile]:.2f} {tile}{mark}",
            flush=True,
        )


def time_of(tile: LinearTile, x: Tensor, weights: list[Tensor], *, early: bool) -> float:
    """Seconds; infinite where the device refuses the tile."""
    counters = torch.zeros(len(weights[0]), dtype=torch.int32, device=x.device)

    def ours(weight: Tensor) -> Tensor:
        return multiply(x, PackedLinear(weight, None, (), counters), tile, pdl=early)

    try:
        error = (ours(weights[0]).float() - F.linear(x, weights[0]).float()).abs().max().item()
    except Exception as refusal:  # of Triton, in classes of its own
        print(f"    {tile}: {refusal}")
        return float("inf")
    assert error < TOLERANCE, (tile, error)
    return in_turn(ours, weights)


def describe(time: float, size: int) -> str:
    return f"{time * 1e6:6.1f} us {size / time / 1e12:5.2f} TB/s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", action="store_true")
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--tokens", default=",".join(map(str, TOKENS)))
    options = parser.parse_args()
    properties = torch.cuda.get_device_properties(0)
    arch = (
        properties.gcnArchName if torch.version.hip else f"sm_{properties.major}{properties.minor}"
    )
    print(properties.name, torch.__version__)
    for name, tokens in itertools.product(options.shapes.split(","), options.tokens.split(",")):
        measure(name, int(tokens), arch, every=options.candidates)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
