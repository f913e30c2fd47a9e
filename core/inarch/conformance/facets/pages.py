"""KV pages: written, read, copied, sent away and taken in, and nothing else touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inarch.conformance.calls import normal
from inarch.conformance.case import Case, Failed, generator, require
from inarch.conformance.memory import same
from inarch.conformance.subject import Subject, dtype_name
from inarch.hal.kv import CanonicalPages, KVHeads, KVSpec, KVState, KVStore
from inarch.hal.reference.kv import ReferenceKVStore, narrowed

POOL = 7
KINDS = {
    "equal-heads": (KVHeads(2, 64, 64), KVHeads(2, 64, 64)),
    "unequal-layers": (KVHeads(2, 64, 64), KVHeads(1, 32, 16)),
    "rows-alone": (KVHeads(1, 72, 0),),  # of latent attention
}


def cases(subject: Subject) -> Iterator[Case]:
    for dtype in subject.dtypes():
        for page_tokens in subject.page_tokens():
            for kind, layers in KINDS.items():
                for kept, _ in kept_in(subject, dtype):
                    spec = KVSpec(layers, kept)
                    for name, check in CHECKS.items():
                        yield _case(subject, dtype, f"{name}-{kind}", spec, page_tokens, check)


def facts(subject: Subject) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A store is asked for, not chosen among kernels."""
    return iter(())


def kept_in(subject: Subject, dtype: torch.dtype) -> Iterator[tuple[torch.dtype, str]]:
    """Dtypes of pages that the device has when computing in `dtype`."""
    for kept, support in subject.device.kv_dtypes(dtype):
        if support:
            yield kept, support.why


Check = Callable[[Subject, KVStore, np.random.Generator], str]


def _case(
    subject: Subject, dtype: torch.dtype, name: str, spec: KVSpec, page_tokens: int, check: Check
) -> Case:
    narrow = "" if spec.dtype == dtype else f"-in-{dtype_name(spec.dtype)}"
    name = f"{name}-{page_tokens}-{dtype_name(dtype)}{narrow}"

    def run() -> str:
        rng = generator("pages", name)
        with torch.inference_mode():
            return check(subject, subject.store(spec, page_tokens), rng)

    return Case(subject.level, "pages", name, run, dtype=dtype_name(dtype))


def canonical(rng: np.random.Generator, spec: KVSpec, tokens: int) -> CanonicalPages:
    """Random content of so many tokens."""
    return [
        (
            normal(rng, (tokens, h.kv_heads, h.key_dim), torch.float32).to(spec.dtype),
            normal(rng, (tokens, h.kv_heads, h.value_dim), torch.float32).to(spec.dtype),
        )
        for h in spec.layers
    ]


def filled(store: KVStore, content: CanonicalPages, pool: int = POOL) -> KVState:
    """A pool whose pages 1, 2, ... hold the content."""
    kv = store.allocate(pool)
    return store.import_pages(kv, np.arange(1, pool), content)


def expect(
    store: KVStore, kv: KVState, pages: np.ndarray, content: CanonicalPages, what: str
) -> None:
    """Raise Failed unless the pages hold exactly that."""
    found = store.export_pages(kv, pages)
    require(len(found) == len(content), f"{what}: {len(found)} layers came out")
    for layer, (ours, right) in enumerate(zip(found, content, strict=True)):
        for which, got, wanted in zip("kv", ours, right, strict=True):
            where = f"{what}: {which} of layer {layer}"
            require(got.dtype == wanted.dtype, f"{where} is {got.dtype}, not {wanted.dtype}")
            require(got.shape == wanted.shape, f"{where} is {list(got.shape)}")
            wrong = ~same(got.double(), wanted.double())
            if wrong.any():
                first = int(wrong.flatten(1).any(1).nonzero()[0]) if wrong.numel() else 0
                page = int(pages[first // store.layout.page_tokens])
                raise Failed(f"{where} differs at {int(wrong.sum())} places, first in page {page}")


def at(content: CanonicalPages, tokens: Any) -> CanonicalPages:
    return [(k[tokens], v[tokens]) for k, v in content]


def tokens_of(pages: np.ndarray, size: int) -> Tensor:
    """Where the tokens of pages 1, 2, ... are in the content of `filled`."""
    return torch.from_numpy(((pages[:, None] - 1) * size + np.arange(size)).ravel())


# ---- what must hold ----


def _round_trip(subject: Subject, store: KVStore, rng: np.random.Generator) -> str:
    """What was taken in comes out, in any order of pages."""
    size = store.layout.page_tokens
    content = canonical(rng, store.spec, (POOL - 1) * size)
    kv = filled(store, content)
    order = 1 + rng.permutation(POOL - 1)
    expect(store, kv, order, at(content, tokens_of(order, size)), "pages that were imported")
    return ""


def _exchange(subject: Subject, store: KVStore, rng: np.random.Generator) -> str:
    """Pages of another size, the last of them filled in part, and back."""
    size = store.layout.page_tokens
    tokens = 2 * size + max(1, size // 3)
    content = canonical(rng, store.spec, tokens)
    plain = ReferenceKVStore(store.spec, max(1, size // 2 + 1), torch.device("cpu"))
    count = -(-tokens // plain.layout.page_tokens)
    there = plain.import_pages(plain.allocate(count + 1), np.arange(1, count + 1), content)
    sent = at(plain.export_pages(there, np.arange(1, count + 1)), slice(tokens))
    before = canonical(rng, store.spec, (POOL - 1) * size)
    pages = np.array([4, 2, 5])
    kv = store.import_pages(filled(store, before), pages, sent)
    back = at(store.export_pages(kv, pages), slice(tokens))
    taken = plain.import_pages(plain.allocate(count + 1), np.arange(1, count + 1), back)
    again = at(plain.export_pages(taken, np.arange(1, count + 1)), slice(tokens))
    _same_content(again, content, "pages that went there and back")
    others = np.array([1, 3, 6])
    expect(store, kv, others, at(before, tokens_of(others, size)), "pages that were not named")
    return ""


def _same_content(got: CanonicalPages, wanted: CanonicalPages, what: str) -> None:
    for layer, (ours, right) in enumerate(zip(got, wanted, strict=True)):
        for which, x, y in zip("kv", ours, right, strict=True):
            if not bool(same(x.double(), y.double()).all()):
                raise Failed(f"{what}: {which} of layer {layer} differs")


def _copies(subject: Subject, store: KVStore, rng: np.random.Generator) -> str:
    """Whole pages, each to its own target; sources and all others stay."""
    size = store.layout.page_tokens
    content = canonical(rng, store.spec, (POOL - 1) * size)
    kv = store.copy_pages(filled(store, content), np.array([5, 1]), np.array([2, 6]))
    everything, came_from = np.arange(1, POOL), np.array([1, 5, 3, 4, 5, 1])
    expect(store, kv, everything, at(content, tokens_of(came_from, size)), "after copying pages")
    return ""


def _writes(subject: Subject, store: KVStore, rng: np.random.Generator) -> str:
    """New tokens of a wider dtype go to their slots of one layer, out of range ones to its ends."""
    size, spec = store.layout.page_tokens, store.spec
    content = canonical(rng, spec, (POOL - 1) * size)
    kv = filled(store, content)
    slots = size + rng.permutation((POOL - 1) * size)[:9]
    layer = len(spec.layers) - 1
    heads = spec.layers[layer]
    k, v = (
        normal(rng, (9, heads.kv_heads, dim), torch.float32) * 300
        for dim in (heads.key_dim, heads.value_dim)
    )
    new = k.half().float(), v.half().float()
    if spec.dtype.itemsize > 1:
        new = tuple(x.to(spec.dtype) for x in new)  # type: ignore[assignment]
    on_device = [subject.upload(x) for x in new]
    kv = store.write(kv, layer, subject.upload(torch.from_numpy(slots)), *on_device)
    for part, values in zip(content[layer], new, strict=True):
        part.view(torch.uint8 if part.dtype.itemsize == 1 else part.dtype)[slots - size] = (
            narrowed(values, spec.dtype).view(torch.uint8)
            if part.dtype.itemsize == 1
            else values.to(spec.dtype)
        )
    expect(store, kv, np.arange(1, POOL), content, "after writing tokens")
    return ""


def _reads(subject: Subject, store: KVStore, rng: np.random.Generator) -> str:
    """A copy of pages in order, in the dtype of the pages."""
    size, spec = store.layout.page_tokens, store.spec
    content = canonical(rng, spec, (POOL - 1) * size)
    kv = filled(store, content)
    pages = np.array([6, 2, 3])
    layer = len(spec.layers) - 1
    found = store.read(kv, layer, subject.upload(torch.from_numpy(pages.astype(np.int64))))
    for which, got, wanted in zip("kv", found, content[layer], strict=True):
        require(got.dtype == spec.dtype, f"{which} is {got.dtype}, not {spec.dtype}")
        right = wanted[tokens_of(pages, size)]
        held = got if got.dtype.itemsize > 1 else got.to(torch.float32)
        if not bool(same(subject.download(held), right.double()).all()):
            raise Failed(f"{which} of layer {layer} was read wrongly")
    return ""


def _refusals(subject: Subject, store: KVStore, rng: np.random.Generator) -> str:
    """The null page, a page twice, a page beyond the pool, too few pages, another dtype."""
    size, spec = store.layout.page_tokens, store.spec
    kv = filled(store, canonical(rng, spec, (POOL - 1) * size))
    one = canonical(rng, spec, size)
    other = torch.float16 if spec.dtype != torch.float16 else torch.float32
    bad: dict[str, Callable[[], Any]] = {
        "the null page was exported": lambda: store.export_pages(kv, np.array([0])),
        "a page beyond the pool was exported": lambda: store.export_pages(kv, np.array([POOL])),
        "the null page was imported to": lambda: store.import_pages(kv, np.array([0]), one),
        "a page was imported to twice": lambda: store.import_pages(
            kv, np.array([1, 1]), canonical(rng, spec, 2 * size)
        ),
        "a page of tokens was imported to two pages": lambda: store.import_pages(
            kv, np.array([1, 2]), one
        ),
        "pages of another dtype were imported": lambda: store.import_pages(
            kv, np.array([1]), [(k.to(other), v.to(other)) for k, v in one]
        ),
    }
    for what, call in bad.items():
        try:
            call()
        except ValueError:
            continue
        raise Failed(f"{what}, where ValueError is due")
    return ""


def _layout(subject: Subject, store: KVStore, rng: np.random.Generator) -> str:
    """It says of itself what the core computes with."""
    spec, layout = store.spec, store.layout
    elements = sum(h.kv_heads * (h.key_dim + h.value_dim) for h in spec.layers)
    least = elements * layout.page_tokens * spec.dtype.itemsize
    require(
        layout.page_bytes >= least,
        f"a page of {layout.page_tokens} tokens is said to take {layout.page_bytes} bytes; its "
        f"content alone takes {least}",
    )
    require(layout.fingerprint, "the layout has no fingerprint")
    twin = subject.store(spec, layout.page_tokens).layout.fingerprint
    require(twin == layout.fingerprint, "two stores of one spec differ in their fingerprints")
    return ""


CHECKS: dict[str, Check] = {
    "layout": _layout,
    "round-trip": _round_trip,
    "exchange": _exchange,
    "copy": _copies,
    "write": _writes,
    "read": _reads,
    "refuse": _refusals,
}
