"""What the kernels say they support, and why not where they do not. Needs no Triton."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from inarch.hal.attention import AttentionSpec, attention_facts
from inarch.hal.dispatch import Dispatcher
from inarch.hal.kv import KVHeads, KVSpec
from inarch.hal.ops import FACETS, OPS
from inarch.hal.reference.kv import ReferenceKVStore
from inarch_triton import tiles
from inarch_triton.kernels import carries_fnuz, keeps_fp8, kernels
from inarch_triton.linear_tiles import linear_tiles

LLAMA = AttentionSpec(32, 8, 128, 128, 0.09, torch.bfloat16)


def answer(arch: str, op: str, facts: dict[str, object]) -> tuple[bool, str]:
    (kernel,) = (kernel for kernel in kernels(arch) if kernel.op == op)
    support = kernel.supports(facts)
    return bool(support), support.why


def attention(
    arch: str = "sm_90a",
    page_tokens: int = 16,
    stored: torch.dtype | None = None,
    **changes: object,
) -> tuple[bool, str]:
    spec = dataclasses.replace(LLAMA, **changes)
    heads = KVHeads(spec.kv_heads, spec.key_dim, spec.value_dim)
    dtype = torch.bfloat16 if spec.dtype == torch.float64 else spec.dtype
    pages = KVSpec((heads,), stored or dtype)
    store = ReferenceKVStore(pages, page_tokens, torch.device("cpu"))
    facts = dict(attention_facts(spec, store))
    if carries_fnuz(arch) and pages.dtype == torch.float8_e4m3fn:
        facts["layout"] = facts["layout"].replace("reference/", "fnuz/")
    return answer(arch, "attention", facts)


def test_every_kernel_is_for_a_declared_op_and_can_be_registered() -> None:
    assert {kernel.op for kernel in kernels("sm_90")} <= {*OPS, *FACETS}
    Dispatcher(kernels("sm_90"))


@pytest.mark.parametrize(
    "arch",
    ["sm_80", "sm_90a", "sm_100", "gfx90a", "gfx942:sramecc+:xnack-", "gfx950", "gfx1100"],
)
@pytest.mark.parametrize("dim", [64, 80, 96, 128, 192, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_usual_models_are_supported_on_every_device(
    arch: str, dim: int, dtype: torch.dtype
) -> None:
    for page_tokens in (16, 32, 64, 128):
        assert attention(arch, page_tokens, key_dim=dim, value_dim=dim, dtype=dtype) == (True, "")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"key_dim": 576}, "head size 576 exceeds 256"),
        ({"page_tokens": 8}, "pages of 8 tokens: a power of two from 16 is needed"),
        ({"page_tokens": 48}, "pages of 48 tokens"),
        ({"q_heads": 128, "kv_heads": 1}, "128 query heads share a KV head: the most is 64"),
        ({"dtype": torch.float64}, "torch.float64 is none of"),
        ({"scale": -1.0}, "scale -1.0 is not positive"),
        ({"causal": False}, "attention to both sides"),
        ({"arch": "sm_75"}, "sm_75 is none of sm_80"),
        (
            {"stored": torch.float8_e4m3fn, "key_dim": 24},
            "head sizes 24 of K and 128 of V over torch.float8_e4m3fn: multiples of 16 are needed",
        ),
    ],
)
def test_attention_refuses_with_the_reason(changes: dict[str, object], why: str) -> None:
    supported, said = attention(**changes)
    assert not supported
    assert why in said


def test_attention_refuses_pages_of_another_layout_or_dtype() -> None:
    supported, why = attention(stored=torch.float16)
    assert not supported
    assert why.startswith("pages of torch.float16: they may hold torch.bfloat16, which is computed")
    spec = KVSpec((KVHeads(8, 128, 128),), torch.bfloat16)
    facts = dict(attention_facts(LLAMA, ReferenceKVStore(spec, 16, torch.device("cpu"))))
    assert "other/v1" in answer("sm_90", "attention", facts | {"layout": "other/v1"})[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("arch", "why"),
    [
        ("sm_89", None),
        ("sm_90a", None),
        ("sm_100", None),
        ("gfx950:sramecc+:xnack-", None),
        ("sm_80", "sm_80 does not convert 8-bit floats: sm_89 (Ada, Hopper and newer) does"),
        ("sm_86", "sm_86 does not convert 8-bit floats"),
        ("gfx942:sramecc+:xnack-", None),
        ("gfx1100", "gfx1100 does not convert 8-bit floats"),
        ("gfx90a", "gfx90a does not convert 8-bit floats"),
    ],
)
def test_fp8_pages_are_for_devices_that_convert_them(
    arch: str, why: str | None, dtype: torch.dtype
) -> None:
    supported, said = attention(arch, stored=torch.float8_e4m3fn, dtype=dtype)
    assert supported == bool(keeps_fp8(arch)) == (why is None)
    assert (why or "") in said
    assert attention(arch, dtype=dtype)[0], "other pages are not concerned"


def test_small_ops_refuse_with_the_reason() -> None:
    rope = {"head_dim": 128, "rotary_dim": 64, "dtype": torch.bfloat16}
    assert answer("sm_90", "rope", rope)[0]
    assert "odd or more" in answer("sm_90", "rope", rope | {"rotary_dim": 130})[1]
    norm = {"hidden": 20000, "dtype": torch.bfloat16}
    assert "exceed the 16384" in answer("sm_90", "rms_norm", norm)[1]
    assert "none of" in answer("sm_90", "silu_mul", {"dtype": torch.int8, "intermediate": 8})[1]


@pytest.mark.parametrize("arch", [*tiles.SHARED_MEMORY, "sm_999"])
@pytest.mark.parametrize("dim", [64, 128, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stored", [None, torch.float8_e4m3fn], ids=["", "fp8"])
def test_every_tile_fits_the_memory_and_the_pages(
    arch: str, dim: int, dtype: torch.dtype, stored: torch.dtype | None
) -> None:
    spec = dataclasses.replace(LLAMA, key_dim=dim, value_dim=dim, dtype=dtype)
    kinds = ((False, 16), (True, tiles.long_rows(4, spec)))
    for (long, rows), page, gluon in itertools.product(kinds, (16, 64), (False, True)):
        tile = tiles.choose_tile(arch, spec, page, rows, long=long, stored=stored, gluon=gluon)
        limit = tiles.SHARED_MEMORY.get(arch, tiles.LEAST_SHARED_MEMORY) * 1024
        assert tiles.shared_bytes(tile, arch, dim, dtype, stored or dtype) <= limit
        assert not tile.descriptors or tile.keys <= page or tile.specialized
        assert tile.rows % 4 == 0


PROMPTS = {"arch": "sm_90a", "page_tokens": 64, "long": True, "stored": None, "gluon": True}


def test_prompts_on_hopper_get_the_kernel_that_is_written_for_it() -> None:
    for spec in (LLAMA, dataclasses.replace(LLAMA, key_dim=64, value_dim=64, q_heads=56)):
        assert tiles.choose_tile(spec=spec, rows=128, **PROMPTS).specialized


@pytest.mark.parametrize(
    "change",
    [
        {"arch": "sm_100"}, {"page_tokens": 32}, {"long": False}, {"gluon": False},
        {"stored": torch.float8_e4m3fn},
        {"window": 512}, {"softcap": 30.0}, {"sinks": True}, {"dtype": torch.float32},
        {"key_dim": 96, "value_dim": 96}, {"key_dim": 64}, {"key_dim": 256, "value_dim": 256},
    ],
    ids=str,
)  # fmt: skip
def test_what_that_kernel_does_not_do_is_left_to_the_other(change: dict[str, object]) -> None:
    how = PROMPTS | {name: value for name, value in change.items() if name in PROMPTS}
    what = {name: value for name, value in change.items() if name not in PROMPTS}
    spec = dataclasses.replace(LLAMA, **what)
    assert not tiles.choose_tile(spec=spec, rows=128, **how).specialized


@pytest.mark.parametrize(("outputs", "ours"), [(28672, True), (4096, False)])
def test_layers_with_few_tiles_are_cut_into_shares_or_left_to_torch(
    outputs: int, ours: bool
) -> None:
    """A share is for devices where one program may take up what others wrote."""
    assert linear_tiles("sm_90", 304, outputs, 4096)
    found = linear_tiles("gfx942", 304, outputs, 4096)
    assert bool(found) == ours
    assert all(tile.splits == 1 for tile in found)
