"""Compile every kernel for GPUs that are not here, and print what each of them needs, as JSON.

A program of its own: within the tests Triton's interpreter stands in for its compiler.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon._runtime import GluonASTSource

from inarch.hal.attention import AttentionSpec
from inarch_triton import (
    activation,
    attention_launch,
    grouped_linear,
    hopper,
    kv,
    layer_norm,
    linear,
    linear_tiles,
    logprobs,
    norm,
    penalties,
    rotary,
    rotary_write,
    sampling,
    sampling_kernel,
    survey,
    tiles,
    token_mask,
)
from inarch_triton.attention_kernel import attention_kernel, merge_kernel
from inarch_triton.grouped_linear_kernel import grouped_linear_kernel
from inarch_triton.hopper_kernel import SWIZZLED, hopper_attention_kernel
from inarch_triton.kernels import carries_fnuz, keeps_fp8
from inarch_triton.linear_kernel import linear_kernel
from inarch_triton.options import FUSED, options_for, pdl

FP8 = torch.float8_e4m3fn
NAMES = {
    torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32", FP8: "fp8e4nv",
}  # fmt: skip
LLAMA = AttentionSpec(32, 8, 128, 128, 0.09, torch.bfloat16)
ROPE = {
    **dict.fromkeys(("q", "k", "q_weight", "k_weight"), "*bf16"),
    **{"positions": "*i64", "cos_sin": "*fp32", "eps": "fp32"},
    **dict.fromkeys(("q_token", "q_head", "k_token", "k_head"), "i32"),
}


@dataclass(frozen=True)
class Source:
    """A kernel, the types of its arguments ("*bf16", "i32"; None where None is passed), constants."""

    name: str
    kernel: Any
    types: Mapping[str, str | None]
    constants: Mapping[str, Any]
    options: Mapping[str, Any]


def attention_source(
    arch: str,
    spec: AttentionSpec,
    page_tokens: int,
    *,
    long: bool,
    tree: bool = False,
    shared: bool = False,
    stored: torch.dtype | None = None,
    crowd: float = 1.0,
) -> Source:
    """shared: of many query tokens, those over a shared prefix; of few, those over the rest."""
    group = spec.q_heads // spec.kv_heads
    rows = tiles.long_rows(group, spec) if long else tiles.short_rows(group, 16 if tree else 1, 1)
    tile = tiles.choose_tile(arch, spec, page_tokens, rows, long=long, stored=stored, crowd=crowd)
    tile = tiles.for_shared_prefixes(tile) if shared and long else tile
    parts = "*fp32" if shared and not long else None
    kind, kept = NAMES[spec.dtype], kept_name(arch, stored or spec.dtype)
    pages = "*i16" if tile.pairs else f"*{kept}"
    if tile.descriptors:
        pages = f"tensordesc<{kept}[{tile.keys}, {spec.key_dim}]>"
    types = {
        "q": f"*{kind}", "k_pages": pages, "v_pages": pages, "table": "*i32", "items": "*i32",
        "tree": "*i64" if tree else None, "members": "*i32" if shared and long else None,
        "sinks": "*fp32" if spec.sinks else None, "out": f"*{kind}", "lse": None,
        "parts": "*fp32", "part_lse": "*fp32", "counters": "*i32",
        "shared_parts": parts, "shared_lse": parts,
        "q_token": "i32", "q_head": "i32", "table_row": "i32", "scale": "fp32", "cap": "fp32",
    }  # fmt: skip
    features = [f"D{spec.key_dim}", f"page{page_tokens}", kind]
    features += [f"over {kept}"] if stored else []
    features += [] if crowd == 1 else [f"crowd {crowd}"]
    features += ["long" if long else "short"]
    features += [
        n for n, on in {"tree": tree, "window": spec.window, "cap": spec.softcap}.items() if on
    ]
    constants = attention_launch.attention_constants(
        spec, tile, page_tokens, tree=tree, sinks=spec.sinks, lse=False,
        gathered=shared and long, shared_rows=64 if shared and not long else 0,
        merged_rows=0 if long or tree or not tiles.publishes(arch) else tiles.padded(group),
    )  # fmt: skip
    name = " ".join(["attention", *(["shared"] if shared else []), *features])
    return Source(name, attention_kernel, types, constants, tile.options())


def kept_name(arch: str, dtype: torch.dtype) -> str:
    """What pages of the dtype hold."""
    return "fp8e4b8" if dtype == FP8 and carries_fnuz(arch) else NAMES[dtype]


def amd_attention(arch: str) -> Iterator[Source]:
    """The other rows of the tables of AMD: by how many rows, of how many bytes, and in which pages."""
    half, double = (replace(LLAMA, key_dim=dim, value_dim=dim) for dim in (64, 256))
    yield attention_source(arch, half, 64, long=True)
    yield attention_source(arch, replace(LLAMA, dtype=torch.float16), 32, long=False)
    yield attention_source(arch, LLAMA, 16, long=False, tree=True)
    for wide in (double, replace(LLAMA, dtype=torch.float32)):
        for long in (False, True):
            yield attention_source(arch, wide, 16, long=long)


def hopper_source(spec: AttentionSpec, *, lse: bool) -> Source:
    tile = tiles.choose_tile("sm_90", spec, 64, 128, long=True, gluon=True)
    assert tile.specialized
    kind = NAMES[spec.dtype]
    pages = f"tensordesc<{kind}[64, 64],{SWIZZLED.value!r}>"
    types = {
        "q": f"*{kind}", "k_pages": pages, "v_pages": pages, "table": "*i32", "items": "*i32",
        "out": f"*{kind}", "lse": "*fp32" if lse else None, "parts": "*fp32", "part_lse": "*fp32",
        "q_token": "i32", "q_head": "i32", "table_row": "i32", "scale": "fp32",
    }  # fmt: skip
    name = f"specialized attention D{spec.key_dim} {kind}" + (" lse" if lse else "")
    constants = hopper.hopper_constants(spec, tile, 64, lse=lse)
    return Source(name, hopper_attention_kernel, types, constants, {"num_warps": tile.warps})


def small_sources(arch: str) -> Iterator[Source]:
    """The others, in the sizes of an 8B model."""
    for kept in (torch.bfloat16, FP8) if keeps_fp8(arch) else (torch.bfloat16,):
        yield from writing_sources(kept_name(arch, kept))
    tile = tiles.choose_tile(arch, LLAMA, 16, 16, long=False)
    four = {"num_warps": 4}
    merge = attention_launch.merge_constants(LLAMA, tile, sinks=False, lse=False)
    parts = {"parts": "*fp32", "part_lse": "*fp32", "jobs": "*i32"}
    outputs = {"sinks": None, "out": "*bf16", "lse": None}
    yield Source("merge", merge_kernel, parts | outputs, merge, four)
    for features in (4096, norm.MOST_FEATURES):
        types = dict.fromkeys(("x", "residual", "weight", "out"), "*bf16")
        types |= {"x_row": "i32", "residual_row": "i32", "rows": "i32", "eps": "fp32"}
        constants = norm.norm_constants(features) | {"ADD": True}
        options = {"num_warps": norm.norm_warps(features)}
        yield Source(f"add_rms_norm {features}", norm.rms_norm_kernel, types, constants, options)
        types, constants = types | {"bias": "*bf16"}, constants | {"BIAS": True}
        kernel = layer_norm.layer_norm_kernel
        yield Source(f"add_layer_norm {features}", kernel, types, constants, options)
    constants = rotary.rope_constants(32, 8, 128, 128) | {"INTERLEAVED": False, "NORM": True}
    yield Source("qk_norm_rope", rotary.rope_kernel, ROPE, constants, four)
    types = {"x": "*bf16", "out": "*bf16", "x_row": "i32"}
    for name, act, gated in (("silu_mul", "silu", True), ("gelu", "gelu", False)):
        constants = {"FEATURES": 14336, "BLOCK": activation.BLOCK}
        constants |= {"ACTIVATION": act, "GATED": gated}
        yield Source(name, activation.activation_kernel, types, constants, four)


def linear_sources(arch: str) -> Iterator[Source]:
    """The layers of an 8B model, split or not as the table says."""
    names = ("x", "weight", "bias", "out")
    types: dict[str, str | None] = dict.fromkeys(names, "*bf16")
    types |= {"parts": "*fp32", "counters": "*i32", "x_row": "i32"}
    types |= dict.fromkeys(("tokens", "outputs", "inputs", "blocks"), "i32")
    for outputs, inputs in ((28672, 4096), (4096, 14336)):
        for tile in linear_tiles.linear_tiles(arch, 132, outputs, inputs):
            constants = linear.linear_constants(tile, inputs, pdl=pdl(arch))
            options = linear.linear_options(tile, pdl=pdl(arch))
            name = f"linear {outputs}x{inputs} {tile.tokens}"
            yield Source(name, linear_kernel, types, constants, options)


def grouped_sources(arch: str) -> Iterator[Source]:
    """The experts of a 30B model, with few rows for each or many, and of a model with biases."""
    types: dict[str, str | None] = dict.fromkeys(("x", "weight", "out"), "*bf16")
    types |= {"ends": "*i32"} | dict.fromkeys(("rows", "experts", "outputs", "inputs"), "i32")
    for rows in (grouped_linear.SIZES[0], grouped_linear.SIZES[-1]):
        options = grouped_linear.options(rows, arch)
        constants = grouped_linear.constants(rows, 128, 2048)
        name = f"grouped linear {rows}"
        yield Source(name, grouped_linear_kernel, types | {"bias": None}, constants, options)
    constants = grouped_linear.constants(16, 32, 2880)
    yield Source(
        "grouped bias", grouped_linear_kernel, types | {"bias": "*bf16"}, constants, options
    )


TABLES = {  # the arguments of the sampling kernels
    "*fp32": "logits temperature uniform top_p min_p total least masses facts mass_above chosen values"
    " repetition frequency presence table",
    "*i32": "top_k edges counts bounds found many count_above bitmask",
    "*i64": "best drawn tokens ids rows",
    "*i1": "prompt",
    "i32": "chunks row_stride filters top places words",
}
SAMPLED = {name: kind for kind, names in TABLES.items() for name in names.split()}


def sampling_sources(vocabularies: tuple[int, ...]) -> Iterator[Source]:
    for vocab in vocabularies:
        chunks = triton.next_power_of_2(triton.cdiv(vocab, survey.CHUNK))
        chunked = {"VOCAB": vocab, "CHUNK": survey.CHUNK}
        sizes = chunked | {"CHUNKS": chunks}
        edges = sizes | {"EDGES": sampling.EDGES}
        blocks = {"BLOCK": sampling.BLOCK, "PART": sampling.part_tokens(chunks)}
        kernels: list[tuple[Any, int, dict[str, Any]]] = [
            (survey.survey_kernel, survey.WARPS, chunked | {"SUMS": True}),
            (survey.greedy_kernel, sampling.GREEDY_WARPS, {"CHUNKS": chunks}),
            (sampling_kernel.draw_kernel, sampling.ROW_WARPS, sizes),
            *(
                (sampling_kernel.narrow_kernel, sampling.NARROW_WARPS, edges | {"LEVEL": level})
                for level in (0, 1)
            ),
            (sampling_kernel.gather_kernel, sampling.GATHER_WARPS, edges),
            (sampling_kernel.cut_kernel, sampling.ROW_WARPS, sizes | blocks),
            (logprobs.logprobs_kernel, logprobs.WARPS, sizes),
            (
                penalties.penalize_kernel,
                penalties.WARPS,
                {"VOCAB": vocab, "BLOCK": penalties.BLOCK},
            ),
            (
                token_mask.token_mask_kernel,
                token_mask.WARPS,
                {"VOCAB": vocab, "BLOCK": token_mask.BLOCK},
            ),
            (penalties.add_at_kernel, penalties.WARPS, {"PLACES": penalties.PLACES}),
        ]
        for kernel, warps, constants in kernels:
            types = {name: SAMPLED[name] for name in kernel.arg_names if name in SAMPLED}
            name = f"{kernel.__name__} {vocab} {constants.get('LEVEL', '')}".strip()
            yield Source(name, kernel, types, constants, {"num_warps": warps, **FUSED})


def writing_sources(kept: str) -> Iterator[Source]:
    """What writes to pages of the dtype `kept`, and what may be fused with it."""
    name, four = "" if kept == "bf16" else f" {kept}", {"num_warps": 4}
    types = dict.fromkeys(("k", "v"), "*bf16") | {"slots": "*i64"}
    types |= dict.fromkeys(("k_pages", "v_pages"), f"*{kept}")
    types |= dict.fromkeys(("k_token", "k_head", "v_token", "v_head"), "i32")
    yield Source(f"write{name}", kv.write_kernel, types, kv.write_constants(8, 128, 128), four)
    yield Source(f"write row{name}", kv.write_kernel, types, kv.write_constants(1, 576, 0), four)
    constants = rotary_write.rope_write_constants(32, 8, 128, 128, 128)
    constants |= {"INTERLEAVED": False, "NORM": True}
    kernel = rotary_write.rope_write_kernel
    yield Source(f"rope_write{name}", kernel, ROPE | types, constants, four)


def sources(arch: str) -> Iterator[Source]:
    yield attention_source(arch, LLAMA, 16, long=False)
    yield attention_source(arch, LLAMA, 64, long=True)
    yield attention_source(arch, LLAMA, 64, long=False, shared=True)
    yield attention_source(arch, LLAMA, 64, long=True, shared=True)
    if arch == "sm_90":
        yield attention_source(arch, LLAMA, 16, long=True)
        yield attention_source(arch, LLAMA, 16, long=False, tree=True)
        special = replace(LLAMA, window=1024, softcap=30.0, sinks=True)
        yield attention_source(arch, special, 16, long=False)
        yield attention_source(arch, replace(LLAMA, key_dim=256, value_dim=256), 16, long=True)
        yield hopper_source(LLAMA, lse=False)
        yield hopper_source(replace(LLAMA, q_heads=56, dtype=torch.float16), lse=True)
        yield hopper_source(replace(LLAMA, key_dim=64, value_dim=64), lse=False)
    if arch.startswith("gfx"):
        yield from amd_attention(arch)
    alike = {row[1:3]: row[0] for row in tiles.DECODES.get(arch, ())}  # by keys and stages
    for crowd in alike.values():
        yield attention_source(arch, LLAMA, 64, long=False, crowd=crowd)
    yield from small_sources(arch)
    yield from linear_sources(arch)
    yield from grouped_sources(arch)
    yield from sampling_sources((262_144,) if arch.startswith("gfx") else (128_256, 262_144))
    if keeps_fp8(arch):
        for crowd in (1, *(row[0] for row in tiles.NARROW_DECODES.get(arch, ())[1:])):
            yield attention_source(arch, LLAMA, 64, long=False, stored=FP8, crowd=crowd)
        yield attention_source(arch, LLAMA, 64, long=True, stored=FP8)
        yield attention_source(arch, replace(LLAMA, dtype=torch.float16), 16, long=True, stored=FP8)


def compile_source(source: Source, arch: str) -> dict[str, int]:
    names = source.kernel.arg_names
    options = dict(source.options) | (options_for(arch) if "PDL" in names else FUSED)
    constants = dict(source.constants) | {n: None for n, t in source.types.items() if t is None}
    if "PDL" in names:
        constants["PDL"] = options.pop("PDL")
    signature = {n: source.types.get(n) or "constexpr" for n in names}
    aligned = [i for i, n in enumerate(names) if signature[n][0] == "*" or signature[n] == "i32"]
    language = GluonASTSource if source.kernel is hopper_attention_kernel else ASTSource
    described = language(
        fn=source.kernel,
        signature=signature,
        constexprs={(names.index(n),): value for n, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    nvidia = arch.startswith("sm_")
    lanes = 64 if arch.startswith("gfx9") else 32
    target = GPUTarget("cuda", int(arch[3:]), 32) if nvidia else GPUTarget("hip", arch, lanes)
    compiled = triton.compile(described, target=target, options=options)
    usage = nvidia_usage(compiled.asm["cubin"]) if nvidia else amd_usage(compiled.asm["amdgcn"])
    bytewise = compiled.asm.get("ptx", "").count("ld.shared.b8")
    usage |= {"shared": compiled.metadata.shared, "bytewise": bytewise}
    usage["warps"] = compiled.metadata.num_warps
    return usage | waiting(compiled.asm) | {"early": int(bool(constants.get("PDL")))}


def waiting(asm: Mapping[str, Any]) -> dict[str, int]:
    """How often a program may wait for the kernel ahead, and the writes that do not come after it."""
    before, *after = asm.get("ptx", "").split("griddepcontrol.wait")
    return {"waits": len(after), "hasty": before.count("st.global") if after else 0}


def nvidia_usage(cubin: bytes) -> dict[str, int]:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [tool, "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    assert found, text
    registers, stack, local = map(int, found.groups())
    return {"registers": registers, "spilled": stack + local}


def amd_usage(assembly: str) -> dict[str, int]:
    def number(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", assembly)
        assert found, name
        return int(found[1])

    return {
        "registers": number("vgpr_count"),
        "spilled": number("vgpr_spill_count") + number("sgpr_spill_count"),
        "lanes": number("wavefront_size"),
        "threads": number("max_flat_workgroup_size"),
        "waves": waves_resident(assembly),
        "atomics": len(re.findall(r"^\s+(?:global|buffer|flat)_atomic", assembly, re.MULTILINE)),
    }


def waves_resident(assembly: str) -> int:
    """On a SIMD, as far as registers and LDS allow: what the compiler says."""
    found = re.search(r"; Occupancy: (\d+)", assembly)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    found = {a: {s.name: compile_source(s, a) for s in sources(a)} for a in sys.argv[1:]}
    print(json.dumps(found, indent=1))
