"""Fused small ops and the KV write against the ops' own references, within the ops' own tolerances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton comes with GPU builds of torch, not with this one")

from inarch.hal.attention import Rotation
from inarch.hal.kv import KVHeads, KVSpec, KVState
from inarch.hal.ops import OPS
from inarch.hal.reference.kv import ReferenceKVStore, narrowed
from inarch_triton.kernels import ACTIVATIONS, NARROW, keeps_fp8, kernels
from inarch_triton.kv import PagedKVStore
from inarch_triton.rotary_write import rope_write

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
GPU = torch.accelerator.is_available()
KERNELS = {kernel.op: kernel for kernel in kernels("sm_90") if kernel.op != "attention"}
ROUNDED = DTYPES[1:] if GPU else [torch.float16]  # the interpreter cuts bfloat16 off instead
SIZES = [(3, 96), (9, 4096), *([(8192, 4096), (1, 16384)] if GPU else [])]


def normal(seed: int, *shape: int, dtype: torch.dtype) -> Tensor:
    values = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return torch.from_numpy(values).to(dtype)


def check(op: str, dtype: torch.dtype, device, *args: object, **options: object) -> None:
    """The kernel, on the device, against the reference on the host in float32."""
    there = [x.clone().to(device.torch_device) if isinstance(x, Tensor) else x for x in args]
    got = KERNELS[op].load()(*there, **options)
    wide = [x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in args]
    expected = OPS[op](*wide, **options)
    # A composite rounds between its parts too: one more unit in the last place for each.
    tolerance = 2 * OPS[op].tolerance[str(dtype).removeprefix("torch.")]
    pairs = zip(got, expected, strict=True) if isinstance(got, tuple) else [(got, expected)]
    for ours, theirs in pairs:
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.float().cpu(), theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_norms(size: tuple[int, int], dtype: torch.dtype, device) -> None:
    x, residual = (normal(seed, *size, dtype=dtype) for seed in (0, 1))
    weight = normal(2, size[1], dtype=dtype)
    check("rms_norm", dtype, device, x, weight, 1e-5)
    check("add_rms_norm", dtype, device, x, residual, weight, 1e-5)
    shifted, shift = x + 2, normal(3, size[1], dtype=dtype)
    for bias in (None, shift):
        check("layer_norm", dtype, device, shifted, weight, bias, 1e-5)
        check("add_layer_norm", dtype, device, shifted, residual, weight, bias, 1e-5)


def assert_rounded_alike(got: Tensor, expected: Tensor) -> None:
    """But for the few numbers on a border, which another order of sums moves."""
    assert got.dtype == expected.dtype
    assert (got.cpu() == expected).float().mean() > 0.98


@pytest.mark.parametrize("dtype", ROUNDED, ids=str)
@pytest.mark.parametrize("weight_dtype", ["own", "float32"])
def test_a_norm_rounds_before_the_product_as_its_weight_is_rounded(
    weight_dtype: str, dtype: torch.dtype, device
) -> None:
    own = dtype if weight_dtype == "own" else torch.float32
    x, residual = (normal(seed, 9, 512, dtype=dtype) for seed in (0, 1))
    weight = (normal(2, 512, dtype=torch.float32) + 3).to(own)
    expected = OPS["add_rms_norm"](x, residual, weight, 1e-5)
    there = (part.clone().to(device.torch_device) for part in (x, residual, weight))
    for ours, theirs in zip(KERNELS["add_rms_norm"].load()(*there, 1e-5), expected, strict=True):
        assert_rounded_alike(ours, theirs)
    heads, weights = normal(3, 9, 4, 128, dtype=dtype), (weight[:128], weight[128:256])
    table = torch.cat(
        (torch.ones(1, 64), torch.zeros(1, 64)), dim=1
    )  # no turn, so no other rounding
    args = (heads, heads, *weights, 1e-5, torch.zeros(9, dtype=torch.int64), table)
    there = (
        part.clone().to(device.torch_device) if isinstance(part, Tensor) else part for part in args
    )
    got = KERNELS["qk_norm_rope"].load()(*there)
    for ours, theirs in zip(got, OPS["qk_norm_rope"](*args), strict=True):
        assert_rounded_alike(ours, theirs)


def test_a_norm_with_a_weight_of_another_dtype_is_left_to_others() -> None:
    facts = {"hidden": 64, "dtype": torch.bfloat16, "weight_dtype": torch.float16}
    assert "a weight of torch.float16" in KERNELS["rms_norm"].supports(facts).why
    assert KERNELS["rms_norm"].supports(facts | {"weight_dtype": torch.float32})
    rotary = {"head_dim": 64, "rotary_dim": 64}
    assert not KERNELS["qk_norm_rope"].supports(facts | rotary)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # on purpose: 1 / inf is 0
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", ACTIVATIONS)
def test_activations(op: str, dtype: torch.dtype, device) -> None:
    check(op, dtype, device, normal(3, 2, 2 * 1500, dtype=dtype) * 3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rotary", "interleaved"), [(24, False), (16, False), (16, True)])
def test_rotary_embedding_of_parts_of_a_projection(
    rotary: int, interleaved: bool, dtype: torch.dtype, device
) -> None:
    heads = (64, 8, 8) if GPU else (6, 2, 2)
    qkv = normal(4, 3, sum(heads), 24, dtype=dtype).to(device.torch_device)
    q, k, v = qkv.split(heads, 1)
    before = [x.cpu().clone() for x in (q, k, v)]
    positions = torch.tensor([3, 0, 7])
    cos_sin = normal(5, 9, rotary, dtype=torch.float32)
    weights = [normal(seed, 24, dtype=dtype) for seed in (6, 7)]
    where = device.torch_device
    expected = OPS["rope"](before[0], before[1], positions, cos_sin, interleaved=interleaved)
    got = KERNELS["rope"].load()(
        q, k, positions.to(where), cos_sin.to(where), interleaved=interleaved
    )
    tolerance = OPS["rope"].tolerance[str(dtype).removeprefix("torch.")]
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=tolerance, atol=tolerance)
    assert torch.equal(v.cpu(), before[2]), "only q and k are turned"
    args = (*before[:2], *weights, 1e-6, positions, cos_sin)
    check("qk_norm_rope", dtype, device, *args, interleaved=interleaved)


def zeros(store: ReferenceKVStore) -> KVState:
    kv = store.allocate(5)
    for part in kv[0]:
        part.zero_()
    return kv


def bits(x: Tensor) -> Tensor:
    """To compare: torch cannot tell whether 8-bit floats are equal."""
    return (x.view(torch.uint8) if x.dtype.itemsize == 1 else x).cpu()


def without_signs_of_nan(x: Tensor) -> Tensor:
    """The sign of NaN is nobody's: torch on a CPU turns it where it clamps bfloat16 in vectors."""
    wide = x.float().cpu()
    return torch.where(wide.isnan(), torch.nan, wide).to(x.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_kv_write_stores_every_token_where_it_belongs_and_nothing_else(
    dtype: torch.dtype, device
) -> None:
    check_write(normal(8, 5, 9, 24, dtype=dtype), dtype, device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_kv_write_rounds_to_fp8_saturates_and_keeps_nan(
    dtype: torch.dtype, device, fp8: torch.dtype
) -> None:
    tokens = normal(8, 5, 9, 24, dtype=dtype)
    if not GPU:  # the interpreter of Triton rounds wrongly, and has no NaN of 8 bits
        tokens = tokens.to(fp8).to(dtype)
    tokens[0, :, :4] = torch.tensor([449, -6e4, torch.inf, -torch.inf])
    tokens[1, :, :2] = torch.nan if GPU else 0
    check_write(tokens, fp8, device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_kv_write_takes_rows_without_values(dtype: torch.dtype, device) -> None:
    """As latent attention's."""
    check_write(normal(8, 5, 9, 24, dtype=dtype), dtype, device, value_dim=0)


def check_write(tokens: Tensor, stored: torch.dtype, device, value_dim: int = 12) -> None:
    """tokens [5, 9, 24], of which K and V are parts."""
    spec = KVSpec((KVHeads(3, 24, value_dim),), stored)
    ours = PagedKVStore(spec, 16, device.torch_device)
    theirs = ReferenceKVStore(spec, 16, torch.device("cpu"))
    assert ours.layout == theirs.layout, "so they may exchange raw pages"
    k, v = tokens[:, 2:5], tokens[:, 5:8, :value_dim]
    slots = torch.tensor([17, 40, 18, 79, 64])
    expected = theirs.write(zeros(theirs), 0, slots, k, v)
    there = tokens.to(device.torch_device)
    got = ours.write(
        zeros(ours), 0, slots.to(device.torch_device), there[:, 2:5], there[:, 5:8, :value_dim]
    )
    for mine, wanted in zip(got[0], expected[0], strict=True):
        assert torch.equal(bits(without_signs_of_nan(mine)), bits(without_signs_of_nan(wanted)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("norm", [False, True], ids=["rope", "qk_norm_rope"])
@pytest.mark.parametrize(("rotary", "interleaved"), [(24, False), (16, False), (16, True)])
def test_rotating_on_the_way_to_the_pages_equals_rotating_and_then_writing(
    rotary: int, interleaved: bool, norm: bool, dtype: torch.dtype, device
) -> None:
    heads = (64, 8, 8) if GPU else (6, 2, 2)
    op = "qk_norm_rope" if norm else "rope"
    place = device.torch_device
    qkv = normal(4, 3, sum(heads), 24, dtype=dtype).to(place)
    q, k, v = qkv.split(heads, 1)
    weights = [normal(seed, 24, dtype=dtype).to(place) for seed in (6, 7)]
    rotation = Rotation(
        turn=OPS[op].reference,
        positions=torch.tensor([3, 0, 7], device=place),
        cos_sin=normal(5, 9, rotary, dtype=torch.float32).to(place),
        interleaved=interleaved,
        norm=(*weights, 1e-6) if norm else None,
    )
    store = PagedKVStore(KVSpec((KVHeads(heads[1], 24, 24),), dtype), 16, place)
    slots = torch.tensor([17, 40, 79], device=place)
    turned, keys = rotation(q.clone(), k.clone())
    expected = ReferenceKVStore.write(store, zeros(store), 0, slots, keys, v)
    kv = zeros(store)
    got = rope_write(q, k, v, rotation, slots, kv[0])
    tolerance = 2 * OPS[op].tolerance[str(dtype).removeprefix("torch.")]
    for ours, theirs in zip((got, *kv[0]), (turned, *expected[0]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    elsewhere = torch.ones(kv[0][0].flatten(0, 1).shape[0], dtype=torch.bool)
    elsewhere[slots.cpu()] = False
    assert not any(part.flatten(0, 1).cpu()[elsewhere].any() for part in kv[0])
    # It rounds in the same order as the two launches that it stands for: the same bits, but where the
    # sum of a norm, which each kernel adds up in an order of its own, is not rounded to 16 bits after.
    same = {"rtol": 0, "atol": 0}
    if norm and dtype == torch.float32:
        same = {"rtol": 1e-6, "atol": 1e-6}
    own = Rotation(**vars(rotation) | {"turn": KERNELS[op].load()})
    for stored in (dtype, NARROW) if keeps_fp8(device.info.arch) else (dtype,):
        store = PagedKVStore(KVSpec(store.spec.layers, stored), 16, place)
        once, twice = zeros(store), zeros(store)
        q, k, v = normal(4, 3, sum(heads), 24, dtype=dtype).to(place).split(heads, 1)
        turned, keys = own(q.clone(), k.clone())
        store.write(twice, 0, slots, keys, v)
        got = rope_write(q, k, v, rotation, slots, once[0])
        for ours, theirs in zip((got, *once[0]), (turned, *twice[0]), strict=True):
            step = same
            if same["rtol"] and ours.dtype == NARROW:  # a neighbour may be the nearer one
                step = {"rtol": 2**-3, "atol": 2**-9}
            torch.testing.assert_close(ours.float(), theirs.float(), **step)


def test_keys_are_rotated_before_fp8_rounds_them(device, fp8: torch.dtype) -> None:
    """By quarter turns, so that every result is a number that fp8 has, or beyond its range."""
    place = device.torch_device
    qkv = narrowed(normal(4, 4, 10, 24, dtype=torch.float32) * 300, fp8).float()
    qkv[..., ::5] *= 4  # up to 1792
    q, k, v = qkv.to(place).split((6, 2, 2), 1)
    quarters = torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1]]).float().repeat_interleave(8, 1)
    rotation = Rotation(OPS["rope"].reference, torch.arange(4).to(place), quarters.to(place))
    slots = torch.tensor([17, 40, 79, 3], device=place)
    spec = KVSpec((KVHeads(2, 24, 24),), fp8)
    ours, theirs = (kind(spec, 16, place) for kind in (PagedKVStore, ReferenceKVStore))
    turned, keys = rotation(q.clone(), k.clone())
    expected = theirs.write(zeros(theirs), 0, slots, keys, v)
    kv = zeros(ours)
    assert torch.equal(rope_write(q, k, v, rotation, slots, kv[0]), turned)
    for mine, wanted in zip(kv[0], expected[0], strict=True):
        # +0 and -0 differ in bits: which of them a quarter turn gives depends on fused products.
        assert torch.equal(mine.float(), wanted.float())
