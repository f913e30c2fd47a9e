"""Attention over JAX pages against the reference's; pages in and out; the Pallas kernel, lowered."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install -r ci/jax.txt")

from inarch.hal.attention import AttentionBatch, AttentionSpec  # noqa: E402
from inarch.hal.executor import StepShape  # noqa: E402
from inarch.hal.kv import KVHeads, KVSpec  # noqa: E402
from inarch.hal.reference.attention import ReferenceAttention  # noqa: E402
from inarch.hal.reference.device import ReferenceDevice  # noqa: E402
from inarch.hal.reference.kv import ReferenceKVStore  # noqa: E402
from inarch_tpu import ragged  # noqa: E402
from inarch_tpu.attention import XlaAttention  # noqa: E402
from inarch_tpu.device import XlaDevice  # noqa: E402
from inarch_tpu.kv import XlaKVStore  # noqa: E402
from inarch_tpu.mesh import make_mesh  # noqa: E402
from inarch_tpu.program import array_of  # noqa: E402
from inarch_tpu.tensor import JaxTensor  # noqa: E402

PAGE, PAGES = 16, 64
PLAIN = AttentionSpec(4, 2, 16, 16, 0.25, torch.float32)
SPECS = {
    "plain": PLAIN,
    "window": replace(PLAIN, window=20),
    "softcap and sinks": replace(PLAIN, softcap=2.0, sinks=True),
    "window and sinks": replace(PLAIN, window=5, sinks=True),
    "chunk": replace(PLAIN, chunk=24),
    "narrow values": replace(PLAIN, value_dim=8),
    "both sides": replace(PLAIN, causal=False),
    "both sides, window": replace(PLAIN, causal=False, window=9),
    "many queries a key": replace(PLAIN, q_heads=14, kv_heads=1),
}


@pytest.fixture(scope="module")
def device() -> XlaDevice:
    return XlaDevice(jax.devices()[:1])


def batch_of(lengths: list[int], queries: list[int], **more: object) -> AttentionBatch:
    """Sequences in rows and pages out of order."""
    table = 1 + np.random.default_rng(0).permutation(PAGES - 1)[:60].reshape(6, 10)
    return AttentionBatch(
        q_indptr=np.cumsum([0, *queries]).astype(np.int32),
        kv_lens=np.array(lengths, np.int32),
        rows=np.arange(len(lengths), dtype=np.int32)[::-1].copy(),
        page_table=table.astype(np.int32),
        **more,
    )


def store_pair(spec: AttentionSpec, lanes: int = 1) -> tuple[XlaKVStore, ReferenceKVStore]:
    kept = KVSpec((KVHeads(spec.kv_heads, spec.key_dim, spec.value_dim),) * 2, spec.dtype)
    ours = XlaKVStore(kept, PAGE, make_mesh(jax.devices()[:1]), lanes)
    return ours, ReferenceKVStore(kept, PAGE, torch.device("cpu"))


def filling(spec: AttentionSpec, tokens: int, seed: int = 1) -> list[tuple[torch.Tensor, ...]]:
    made = torch.Generator().manual_seed(seed)
    dims = (spec.key_dim, spec.value_dim)
    return [
        tuple(torch.randn(tokens, spec.kv_heads, dim, generator=made) for dim in dims)
        for _ in range(2)
    ]


def attended(spec: AttentionSpec, attention, store, device, batch, lse: bool):
    """out and lse of layer 1, and all pages afterwards."""
    everything = np.arange(1, PAGES)
    data = filling(spec, PAGE * (PAGES - 1))
    kv = store.import_pages(store.allocate(PAGES), everything, data)
    rng = np.random.default_rng(2)
    tokens = int(batch.q_indptr[-1])
    shapes = ((spec.q_heads, spec.key_dim), (spec.kv_heads, spec.key_dim))
    q, k, v = (
        device.upload(rng.standard_normal((tokens, *shape), np.float32))
        for shape in (*shapes, (spec.kv_heads, spec.value_dim))
    )
    sinks = (
        device.upload(np.linspace(-1, 1, spec.q_heads, dtype=np.float32)) if spec.sinks else None
    )
    plan = attention.plan(batch).on(device)
    result = attention.run(1, q, k, v, kv, plan, sinks=sinks, lse=lse)
    found = [device.download(x).wait() for x in (result.out, result.lse) if x is not None]
    pages = store.export_pages(result.kv, everything)
    return found, [x.numpy() for layer in pages for x in layer]


def compare(spec: AttentionSpec, batch: AttentionBatch, device: XlaDevice, lanes: int = 1) -> None:
    ours, reference = store_pair(spec, lanes)
    cpu = ReferenceDevice()
    with torch.inference_mode():
        expected = attended(
            spec, ReferenceAttention(spec, reference, cpu), reference, cpu, batch, True
        )
        got = attended(spec, XlaAttention(spec, ours, device), ours, device, batch, True)
    real = int(batch.q_indptr[-1])
    for mine, theirs in zip(got[0], expected[0], strict=True):
        np.testing.assert_allclose(mine[:real], theirs[:real], rtol=2e-5, atol=2e-5)
    for mine, theirs in zip(got[1], expected[1], strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", SPECS)
def test_every_kind_of_attention_is_that_of_the_reference(name: str, device: XlaDevice) -> None:
    spec = SPECS[name]
    lengths, queries = [100, 1, 37, 150, 16], [3, 1, 37, 80, 1]
    compare(spec, batch_of(lengths, lengths if not spec.causal else queries), device)


def test_decodes_are_those_of_the_reference_in_pages_as_wide_as_a_tpus(device: XlaDevice) -> None:
    compare(SPECS["window"], batch_of([100, 1, 37, 150, 16], [1] * 5), device, lanes=128)


@pytest.mark.parametrize("window", [None, 4])
def test_drafted_tokens_in_a_tree_see_their_ancestors_alone(
    window: int | None, device: XlaDevice
) -> None:
    parents = np.array([-1, 0, 0, 1, 3, -1, 0, 1], np.int32)
    spec = replace(PLAIN, window=window)
    compare(spec, batch_of([40, 20], [5, 3], tree_parent=parents), device)


def test_a_bucket_alone_decides_the_shapes_of_a_plan(device: XlaDevice) -> None:
    store, _ = store_pair(PLAIN)
    attention, bucket = XlaAttention(PLAIN, store, device), StepShape(128, 6, 128, captured=True)
    batches = [
        batch_of([123, 1, 1, 1, 1, 1], [123, 1, 1, 1, 1, 1], bucket=bucket),
        batch_of([40, 90, 20, 9, 1, 60], [40, 33, 20, 5, 1, 29], bucket=bucket),
    ]
    found = [{n: (x.shape, x.dtype) for n, x in attention.plan(b).arrays.items()} for b in batches]
    assert found[0] == found[1]


def test_keys_beyond_a_sequence_may_be_anything(device: XlaDevice) -> None:
    store, _ = store_pair(PLAIN)
    everything = np.arange(1, PAGES)
    nan = [tuple(torch.full_like(x, torch.nan) for x in layer) for layer in filling(PLAIN, 1008)]
    kv = store.import_pages(store.allocate(PAGES), everything, nan)
    batch = batch_of([20, 5], [20, 5])
    attention = XlaAttention(PLAIN, store, device)
    q, k, v = (device.upload(np.ones((25, heads, 16), np.float32)) for heads in (4, 2, 2))
    with torch.inference_mode():
        out = attention.run(0, q, k, v, kv, attention.plan(batch).on(device)).out
    np.testing.assert_allclose(device.download(out).wait(), 1, rtol=1e-6)


# ---- pages ----


@pytest.mark.parametrize("lanes", [1, 128])
@pytest.mark.parametrize("value_dim", [16, 8, 0])
def test_pages_travel_to_the_reference_and_back(value_dim: int, lanes: int) -> None:
    spec = replace(PLAIN, value_dim=value_dim)
    ours, reference = store_pair(spec, lanes)
    data = filling(spec, 2 * PAGE + 5)
    pages = np.array([7, 2, 9])
    kv = ours.import_pages(ours.allocate(12), pages, data)
    kv = ours.copy_pages(kv, np.array([7, 2, 9]), np.array([1, 3, 5]))
    exported = ours.export_pages(kv, np.array([1, 3, 5]))
    there = reference.import_pages(reference.allocate(4), np.array([3, 1, 2]), exported)
    back = reference.export_pages(there, np.array([3, 1, 2]))
    for given, found in zip(data, back, strict=True):
        for x, y in zip(given, found, strict=True):
            assert torch.equal(x, y[: len(x)])


def test_a_state_that_was_given_away_cannot_be_read_again() -> None:
    store, _ = store_pair(PLAIN)
    old = store.allocate(8)
    store.copy_pages(old, np.array([1]), np.array([2]))
    with pytest.raises(RuntimeError, match="deleted"):
        store.export_pages(old, np.array([1]))


def test_the_bytes_of_a_page_are_those_that_are_taken() -> None:
    store, _ = store_pair(replace(PLAIN, value_dim=8), lanes=128)
    taken = sum(array_of(x).nbytes for layer in store.allocate(8).layers for x in layer)
    assert taken == 8 * store.layout.page_bytes


# ---- the Pallas kernel ----


@pytest.fixture
def as_if_on_a_tpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What JAX asks a chip when it lowers a kernel."""
    from jax._src.pallas.mosaic import tpu_info
    from jax.experimental.pallas.ops.tpu.ragged_paged_attention import tuned_block_sizes

    monkeypatch.setattr(tuned_block_sizes, "get_tpu_version", lambda: 6)
    monkeypatch.setattr(tpu_info, "get_device_kind", lambda: "TPU v6 lite")
    monkeypatch.setattr(tpu_info, "get_num_device_cores", lambda: 1)


@pytest.mark.parametrize(
    ("dim", "dtype", "changes", "chips"),
    [
        (64, torch.bfloat16, {}, 1),
        (64, torch.float32, {"window": 512, "softcap": 30.0}, 4),
        (80, torch.bfloat16, {"window": 512}, 1),
        (96, torch.float32, {}, 1),
        (128, torch.bfloat16, {"window": 512, "softcap": 30.0}, 4),
        (128, torch.float32, {"window": 512}, 1),
        (256, torch.bfloat16, {"softcap": 30.0}, 1),
        (256, torch.float32, {}, 4),
    ],
)
@pytest.mark.usefixtures("as_if_on_a_tpu")
def test_the_pallas_kernel_is_lowered_for_a_tpu(
    dim: int, dtype: torch.dtype, changes: dict[str, float], chips: int
) -> None:
    """With the writing before it, into pages as wide as a chip's lanes."""
    spec = AttentionSpec(32, 16, dim, dim, 0.125, dtype, **changes)
    assert ragged.supports(spec, chips)
    device = XlaDevice(jax.devices()[:chips])
    store = XlaKVStore(
        KVSpec((KVHeads(16, dim, dim),), dtype), 64, make_mesh(jax.devices()[:chips]), ragged.LANES
    )
    attention = XlaAttention(spec, store, device, pallas=True)
    arrays = attention.plan(batch_of([40, 20], [1, 15])).arrays
    kv = store.allocate(9)

    def step(q, k, v, kv, arrays):
        plan = attention.plan(batch_of([40, 20], [1, 15])).bind(
            {name: JaxTensor(x) for name, x in arrays.items()}
        )
        with torch.inference_mode():
            result = attention.run(0, *map(JaxTensor, (q, k, v)), kv, plan)
        return result.out.array, result.kv

    q, k, v = (
        jax.ShapeDtypeStruct((16, heads, dim), kv.layers[0][0].dtype) for heads in (32, 16, 16)
    )
    lower = jax.export.export(jax.jit(step, donate_argnums=3), platforms=["tpu"])
    lowered = lower(q, k, v, jax.tree.map(jax.typeof, kv), arrays)
    module = lowered.mlir_module()
    assert module.count("tpu_custom_call") == 1
    assert re.search(r"tf.aliasing_output|jax.buffer_donor", module), "pages are written in place"
    assert len(arrays) == 5, "slots, and what the kernel asks for"


@pytest.mark.usefixtures("as_if_on_a_tpu")
@pytest.mark.parametrize("columns", [8, 1 << 17])
def test_page_tables_too_large_for_a_chips_scalar_memory_go_to_the_plain_loop(columns: int) -> None:
    store, _ = store_pair(PLAIN, lanes=128)
    attention = XlaAttention(PLAIN, store, XlaDevice(jax.devices()[:1]), pallas=True)
    batch = replace(batch_of([40, 20], [1, 15]), page_table=np.ones((6, columns), np.int32))
    assert ("page_indices" in attention.plan(batch).arrays) == (columns == 8)


@pytest.mark.parametrize(
    ("kind", "number"), [("TPU v3", 3), ("TPU v5 lite", 5), ("TPU7x", 7), ("cpu", 0)]
)
def test_chips_too_old_for_the_pallas_kernel_are_known(kind: str, number: int) -> None:
    assert ragged.generation(kind) == number


def test_padding_is_no_sequence_of_the_pallas_kernel() -> None:
    batch = batch_of([40, 20, 3], [1, 1, 14])
    table = batch.page_table[batch.rows].copy()
    table[2] = 0
    assert ragged.lengths_of(batch, table).num_seqs.tolist() == [2]


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (SPECS["softcap and sinks"], "no sinks"),
        (SPECS["chunk"], "no chunks"),
        (SPECS["narrow values"], "keys of 16 and values of 8"),
        (SPECS["both sides"], "causal attention only"),
        (replace(PLAIN, q_heads=28, kv_heads=7), "cannot be tiled"),
    ],
)
def test_what_the_pallas_kernel_cannot_is_refused_with_the_reason(
    spec: AttentionSpec, why: str
) -> None:
    assert why in ragged.supports(spec).why
