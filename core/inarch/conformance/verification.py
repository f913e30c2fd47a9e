"""Drafts verified by whole models: a chain or a tree of tokens in one step, and all their logits.

The engine drafts nothing yet; a model can verify what others draft, as any kernel must. Here steps are
put together by hand, of what the engine loads and runs. The reference decodes each path to a draft
token by token.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inarch.conformance.batches import chain
from inarch.conformance.case import generator
from inarch.conformance.compare import check_close, worst
from inarch.conformance.models import SMALL
from inarch.hal.attention import AttentionBatch
from inarch.hal.executor import StepInputs, StepShape
from inarch.hal.reference.executor import EagerExecutor

if TYPE_CHECKING:
    from inarch.engine.preparation import Prepared

TOLERANCE = {"float32": 2e-4, "float16": 3e-2, "bfloat16": 1e-1}
ROWS, LONGEST = 2, 40  # sequences; tokens that come after a prompt of one page and some
TREES = ((-1, 0, 0, 1, 1, 2), (-1, -1, 0, 2, 1))


@dataclass(frozen=True)
class Drafts:
    """Tokens behind those of a sequence, each the child of another: as `tree_parent` has it."""

    row: int
    before: tuple[int, ...]
    tokens: tuple[int, ...]
    parents: tuple[int, ...]

    def path(self, index: int) -> tuple[int, ...]:
        """The sequence that ends in a draft."""
        parent = self.parents[index]
        ahead = self.before if parent < 0 else self.path(parent)
        return (*ahead, self.tokens[index])

    @property
    def depths(self) -> list[int]:
        return [len(self.path(i)) - len(self.before) - 1 for i in range(len(self.tokens))]

    @property
    def is_chain(self) -> bool:
        return self.parents == chain(0, len(self.tokens)).parents


def in_line(row: int, before: Sequence[int], tokens: Sequence[int]) -> Drafts:
    return Drafts(row, tuple(before), tuple(tokens), chain(0, len(tokens)).parents)


class Loaded:
    """A model on its device, with pages for a few sequences and no engine round it."""

    def __init__(self, ready: Prepared) -> None:
        self.device, store, page = ready.device, ready.store, ready.chosen.page_tokens
        self.page = page
        dtype = ready.chosen.dtype
        self._model = ready.blueprint.load(ready.dispatcher, store, self.device, dtype)
        own = self.device.executor() if self._model.capturable else None
        self._executor = own or EagerExecutor(self.device)
        self._step = self._model.hidden  # one object, as executors want it
        columns = 2 + -(-LONGEST // page)
        pages = generator("verification").permutation(ROWS * columns) + 1
        self._table = pages.reshape(ROWS, columns).astype(np.int32)
        self._kv = store.allocate(ROWS * columns + 1)

    @torch.inference_mode()
    def logits(self, step: Sequence[Drafts]) -> list[Tensor]:
        """Of each draft, [drafts, vocabulary] for each sequence, in one step."""
        batch = self._batch(step)
        shape = StepShape(int(batch.q_indptr[-1]), len(step), max(len(d.tokens) for d in step))
        inputs = {
            "token_ids": np.concatenate([d.tokens for d in step]).astype(np.int64),
            "positions": np.concatenate([len(d.before) + np.array(d.depths) for d in step]),
            "last_token": np.arange(shape.tokens),
        }
        plans = self._model.plan(batch)
        there = self._executor.upload(shape, {**inputs, **plans.arrays}, plans.passing)
        named = {name: there[name] for name in inputs}
        given = StepInputs(**named, plans=plans.bind(there))
        hidden, self._kv = self._executor.run(self._step, shape, given, self._kv)
        found = self.device.download(self._model.logits(hidden)).wait()
        wide = torch.from_numpy(found.copy()).double()
        return list(torch.split(wide, [len(d.tokens) for d in step]))

    def _batch(self, step: Sequence[Drafts]) -> AttentionBatch:
        queries = [len(d.tokens) for d in step]
        trees = not all(d.is_chain for d in step)
        return AttentionBatch(
            q_indptr=np.cumsum([0, *queries]).astype(np.int32),
            kv_lens=np.array([len(d.before) + len(d.tokens) for d in step], np.int32),
            rows=np.array([d.row for d in step], np.int32),
            page_table=self._table,
            tree_parent=np.concatenate([d.parents for d in step]).astype(np.int32)
            if trees
            else None,
        )


def script(page: int) -> Iterator[list[Drafts]]:
    """Steps, one after the other: what is rejected is written over, never seen again."""
    rng = generator("verification", "tokens")

    def some(count: int) -> tuple[int, ...]:
        return tuple(rng.integers(0, SMALL["vocab_size"], count).tolist())

    first, second = some(page + 3), some(9)
    yield [in_line(0, (), first), in_line(1, (), second)]
    drafts, one = some(5), some(1)
    yield [in_line(0, first, drafts), in_line(1, second, one)]
    kept = (*first, *drafts[:2])
    other = some(1)
    yield [in_line(0, kept, other)]
    tree = Drafts(0, (*kept, *other), some(6), TREES[0])
    yield [tree, Drafts(1, (*second, *one), some(5), TREES[1])]
    taken = tree.path(len(tree.tokens) - 1)[len(tree.before) :]
    yield [in_line(0, tree.before, (*taken, *some(1)))]


class StepByStep:
    """The oracle: every token in a step of its own."""

    def __init__(self, model: Loaded) -> None:
        self._model = model
        self._there: list[tuple[int, ...]] = [()] * ROWS  # what the pages of each row hold

    def after(self, row: int, text: tuple[int, ...]) -> Tensor:
        """Logits [V] after the last token of a text."""
        pairs = zip(self._there[row], text[:-1], strict=False)
        known = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        for i in range(known, len(text)):
            (found,) = self._model.logits([in_line(row, text[:i], text[i : i + 1])])
        self._there[row] = text
        return found[0]


def verify(ours: Loaded, theirs: StepByStep, dtype: str) -> str:
    """Compare every logit of every draft. Raises Failed."""
    errors = []
    for number, step in enumerate(script(ours.page)):
        for drafts, got in zip(step, ours.logits(step), strict=True):
            paths = map(drafts.path, range(len(drafts.tokens)))
            expected = torch.stack([theirs.after(drafts.row, path) for path in paths])
            what = f"step {number}: the logits of drafts with parents {list(drafts.parents)}"
            errors.append(check_close(what, got, expected, TOLERANCE[dtype]))
    return worst(errors)
