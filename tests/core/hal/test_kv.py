"""The reference KV store: what is written is read, copied, and moved between stores unharmed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inarch.hal.kv import KVHeads, KVSpec, KVState
from inarch.hal.reference.kv import ReferenceKVStore

SPEC = KVSpec((KVHeads(2, 4, 4), KVHeads(1, 8, 6), KVHeads(1, 9, 0)), torch.float32)
POOL = 9


def make_store(page_tokens: int, spec: KVSpec = SPEC) -> ReferenceKVStore:
    return ReferenceKVStore(spec, page_tokens, torch.device("cpu"))


def fill(
    store: ReferenceKVStore, kv: KVState, pages: list[int], seed: int = 0
) -> list[tuple[Tensor, Tensor]]:
    """Write random tokens to whole pages; returns them, per layer k, v."""
    rng = np.random.default_rng(0)
    size, layers = store.layout.page_tokens, []
    slots = torch.tensor([page * size + t for page in pages for t in range(size)])
    for layer, heads in enumerate(store.spec.layers):
        k, v = (
            torch.from_numpy(rng.standard_normal((len(slots), heads.kv_heads, dim), np.float32))
            for dim in (heads.key_dim, heads.value_dim)
        )
        store.write(kv, layer, slots, k, v)
        layers.append((k, v))
    return layers


def content(store: ReferenceKVStore, kv: KVState, pages: list[int]) -> list[tuple[Tensor, Tensor]]:
    return [store.read(kv, layer, torch.tensor(pages)) for layer in range(len(SPEC.layers))]


def assert_same(got: list[tuple[Tensor, Tensor]], expected: list[tuple[Tensor, Tensor]]) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


PAGES = st.lists(st.integers(1, POOL - 1), min_size=1, max_size=POOL - 1, unique=True)


@settings(max_examples=30, deadline=None)
@given(page_tokens=st.sampled_from([1, 3, 16, 128]), pages=PAGES)
def test_pages_are_read_in_the_order_asked_for(page_tokens: int, pages: list[int]) -> None:
    store = make_store(page_tokens)
    kv = store.allocate(POOL)
    written = fill(store, kv, pages)
    assert_same(content(store, kv, pages), written)
    backwards = [
        tuple(x.unflatten(0, (len(pages), page_tokens)).flip(0).flatten(0, 1) for x in layer)
        for layer in written
    ]
    assert_same(content(store, kv, pages[::-1]), backwards)  # type: ignore[arg-type]


def test_what_was_read_is_a_copy() -> None:
    store = make_store(16)
    kv = store.allocate(POOL)
    written = fill(store, kv, [3])
    for k, v in content(store, kv, [3]):
        k.zero_()
        v.zero_()
    assert_same(content(store, kv, [3]), written)


@settings(max_examples=30, deadline=None)
@given(page_tokens=st.sampled_from([1, 16]), data=st.data())
def test_copied_pages_are_equal_and_all_others_untouched(
    page_tokens: int, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(1, POOL)))
    count = data.draw(st.integers(0, (POOL - 1) // 2))
    source, target, others = order[:count], order[count : 2 * count], order[2 * count :]
    store = make_store(page_tokens)
    kv = store.allocate(POOL)
    fill(store, kv, list(range(POOL)))
    before = content(store, kv, others) if others else []
    copied = content(store, kv, source) if count else []
    kv = store.copy_pages(kv, np.array(source, np.int32), np.array(target, np.int32))
    if count:
        assert_same(content(store, kv, target), copied)
        assert_same(content(store, kv, source), copied)
    if others:
        assert_same(content(store, kv, others), before)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.sampled_from([(1, 16), (16, 1), (16, 16), (128, 16), (16, 128), (3, 7), (7, 3)]),
    pages=st.lists(st.integers(1, POOL - 1), min_size=1, max_size=4, unique=True),
    cut=st.integers(0, 6),
)
def test_pages_move_between_stores_of_any_page_size(
    sizes: tuple[int, int], pages: list[int], cut: int
) -> None:
    """cut: tokens at the end that were never written, and do not travel."""
    source, target = (make_store(size) for size in sizes)
    kv = source.allocate(POOL)
    fill(source, kv, pages)
    tokens = max(1, len(pages) * sizes[0] - cut)
    data = [(k[:tokens], v[:tokens]) for k, v in source.export_pages(kv, np.array(pages))]
    wanted = -(-tokens // sizes[1])
    other = target.allocate(wanted + 3)
    for k, v in other:
        k.zero_()
        v.zero_()
    places = np.arange(wanted)[::-1] + 2
    other = target.import_pages(other, places, data)
    returned = target.export_pages(other, places)
    assert_same([(k[:tokens], v[:tokens]) for k, v in returned], data)
    for k, v in other:
        assert not k[:2].any()
        assert not v[:2].any()


def test_an_import_that_does_not_fit_its_pages_is_refused() -> None:
    store = make_store(16)
    kv = store.allocate(POOL)
    data = store.export_pages(kv, np.array([1, 2]))
    for pages in ([1], [1, 2, 3]):
        with pytest.raises(ValueError, match=f"32 tokens need 2 pages of 16, got {len(pages)}"):
            store.import_pages(kv, np.array(pages), data)


@pytest.mark.parametrize("pages", [[0], [1, POOL], [-1], [2, 2]], ids=str)
def test_neither_the_null_page_nor_a_foreign_or_repeated_one_is_exported(pages: list[int]) -> None:
    store = make_store(16)
    kv = store.allocate(POOL)
    with pytest.raises(ValueError, match="page"):
        store.export_pages(kv, np.array(pages))


def test_page_bytes_are_what_a_page_takes() -> None:
    store = make_store(16)
    kv = store.allocate(POOL)
    held = sum(part.numel() * part.element_size() for layer in kv for part in layer)
    assert store.layout.page_bytes * POOL == held


def test_fingerprints_differ_wherever_raw_pages_do() -> None:
    other_heads = KVSpec((KVHeads(2, 4, 4), KVHeads(1, 8, 8)), torch.float32)
    other_dtype = KVSpec(SPEC.layers, torch.float16)
    stores = [
        make_store(16),
        make_store(8),
        make_store(16, other_heads),
        make_store(16, other_dtype),
    ]
    assert len({store.layout.fingerprint for store in stores}) == 4
    assert make_store(16).layout == make_store(16).layout


def test_slots_of_the_null_page_may_repeat() -> None:
    store = make_store(16)
    kv = store.allocate(POOL)
    written = fill(store, kv, [1])
    ones = torch.ones(3, 2, 4)
    store.write(kv, 0, torch.tensor([0, 0, 0]), ones, ones)
    assert_same(content(store, kv, [1]), written)


def test_a_store_of_a_narrow_dtype_rounds_what_is_written() -> None:
    store = make_store(4, KVSpec((KVHeads(1, 2, 2),), torch.bfloat16))
    kv = store.allocate(2)
    exact = torch.full((1, 1, 2), 1 / 3)
    store.write(kv, 0, torch.tensor([4]), exact, exact)
    k, _ = store.read(kv, 0, torch.tensor([1]))
    torch.testing.assert_close(k[:1], exact.bfloat16(), rtol=0, atol=0)


FP8 = KVSpec(SPEC.layers, torch.float8_e4m3fn)


def test_fp8_pages_round_to_the_nearest_saturate_and_keep_nan() -> None:
    store = make_store(4, KVSpec((KVHeads(1, 8, 8),), torch.float8_e4m3fn))
    kv = store.allocate(2)
    # e4m3 has 3 bits behind the leading one: 17 lies between 16 and 18, 19 between 18 and 20.
    values = [17.0, 19.0, 449.0, -1e30, torch.inf, -torch.inf, torch.nan, 2**-9]
    nearest = [16.0, 20.0, 448.0, -448.0, 448.0, -448.0, torch.nan, 2**-9]
    for dtype in (torch.float32, torch.bfloat16):
        new = torch.tensor(values, dtype=dtype).view(1, 1, 8)
        store.write(kv, 0, torch.tensor([4]), new, new)
        for part in store.read(kv, 0, torch.tensor([1])):
            assert part.dtype == torch.float8_e4m3fn
            torch.testing.assert_close(
                part[0, 0].float(), torch.tensor(nearest), rtol=0, atol=0, equal_nan=True
            )


def test_fp8_pages_take_a_quarter_of_float32_and_are_told_apart() -> None:
    wide, narrow = make_store(16).layout, make_store(16, FP8).layout
    assert wide.page_bytes == 4 * narrow.page_bytes
    assert wide.fingerprint != narrow.fingerprint


def test_fp8_pages_are_copied_and_moved_bit_for_bit() -> None:
    source, target = make_store(16, FP8), make_store(4, FP8)
    kv = source.allocate(POOL)
    fill(source, kv, [5, 2])
    source.copy_pages(kv, np.array([5, 2]), np.array([1, 3]))
    data = source.export_pages(kv, np.array([1, 3]))
    assert {part.dtype for layer in data for part in layer} == {torch.float8_e4m3fn}
    other = target.import_pages(target.allocate(12), np.arange(1, 9), data)
    returned = target.export_pages(other, np.arange(1, 9))
    original = source.export_pages(kv, np.array([5, 2]))
    for copied, moved, first in zip(data, returned, original, strict=True):
        for parts in zip(copied, moved, first, strict=True):
            assert len({bytes(part.view(torch.uint8).numpy()) for part in parts}) == 1


@pytest.mark.parametrize("specs", [(SPEC, FP8), (FP8, SPEC)], ids=["narrowing", "widening"])
def test_pages_are_not_converted_on_the_way_between_stores(specs: tuple[KVSpec, KVSpec]) -> None:
    source, target = (make_store(16, spec) for spec in specs)
    names = [str(spec.dtype).removeprefix("torch.") for spec in specs]
    data = source.export_pages(source.allocate(POOL), np.array([1, 2]))
    with pytest.raises(
        ValueError, match=f"pages of {names[0]} cannot go to a KV cache of {names[1]}"
    ):
        target.import_pages(target.allocate(POOL), np.array([1, 2]), data)
