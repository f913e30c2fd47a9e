"""Drives a decoder by hand: the caller says which tokens each sequence gets in which step."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from inarch.hal.attention import AttentionBatch
from inarch.hal.device import Device
from inarch.hal.executor import StepInputs
from inarch.hal.kv import KVStore
from inarch.hal.state import NULL_SLOT, StateBatch, allocate_states
from inarch.models.model import Model


class Paged:
    """Sequences in rows of a page table, with pages given out in shuffled order."""

    def __init__(
        self, decoder: Model, store: KVStore, device: Device, *, rows: int = 8, tokens: int = 512
    ) -> None:
        """rows: sequences at once; tokens: the most that each may have."""
        self._decoder, self._device = decoder, device
        self._page_tokens = store.layout.page_tokens
        columns = -(-tokens // self._page_tokens)
        pages = store.allocate(1 + rows * columns)
        self._kv = allocate_states(pages, decoder.states, 1 + 3 * rows, device.torch_device)
        self._slots = np.arange(1, 1 + rows)  # where each row's state is
        self._spare = list(range(1 + rows, 1 + 3 * rows))
        self._free = list(range(1, 1 + rows * columns))
        random.Random(0).shuffle(self._free)
        self._table = np.zeros((rows, columns), np.int32)
        self._lengths = np.zeros(rows, np.int32)

    @torch.inference_mode()
    def step(self, chunks: Mapping[int, Sequence[int]]) -> dict[int, Tensor]:
        """One forward pass that appends tokens to rows: logits [V] after each row's last token."""
        rows = np.array(list(chunks), np.int32)
        sizes = np.array([len(tokens) for tokens in chunks.values()], np.int32)
        q_indptr = np.concatenate(([0], sizes.cumsum())).astype(np.int32)
        starts = self._lengths[rows]
        positions = np.concatenate(
            [start + np.arange(size) for start, size in zip(starts, sizes, strict=True)]
        )
        for row, size in zip(rows, sizes, strict=True):
            self._grow(row, size)
        runs = self._runs(rows, starts, q_indptr) if self._decoder.states else None
        batch = AttentionBatch(q_indptr, self._lengths[rows], rows, self._table, states=runs)
        inputs = StepInputs(
            token_ids=self._upload([token for tokens in chunks.values() for token in tokens]),
            positions=self._upload(positions),
            last_token=self._upload(q_indptr[1:] - 1),
            plans=self._decoder.plan(batch).on(self._device),
        )
        logits, self._kv = self._decoder.forward(inputs, self._kv)
        return dict(zip(chunks, logits, strict=True))

    def fork(self, source: int, row: int) -> None:
        """Let an empty row go on from all tokens of another, which fill whole pages: both share them."""
        assert self._lengths[source] % self._page_tokens == 0 == self._lengths[row]
        self._table[row], self._lengths[row] = self._table[source], self._lengths[source]
        self._slots[row] = self._slots[source]

    def greedy(self, row: int, prompt: Sequence[int], new_tokens: int) -> list[int]:
        """Prefill the prompt at once, then decode token by token: the new tokens."""
        found = [int(self.step({row: prompt})[row].argmax())]
        while len(found) < new_tokens:
            found.append(int(self.step({row: found[-1:]})[row].argmax()))
        return found

    def _grow(self, row: int, tokens: int) -> None:
        held = -(-self._lengths[row] // self._page_tokens)
        self._lengths[row] += tokens
        needed = -(-self._lengths[row] // self._page_tokens)
        for column in range(held, needed):
            self._table[row, column] = self._free.pop()

    def _runs(self, rows: np.ndarray, starts: np.ndarray, q_indptr: np.ndarray) -> StateBatch:
        """Every state moves to another slot, and every third sequence is cut in two."""
        borders, read, write, wave = [0], [], [], []
        left: list[int] = []
        for row, start, first, end in zip(rows, starts, q_indptr[:-1], q_indptr[1:], strict=True):
            place = int(self._slots[row]) if start else NULL_SLOT
            cuts = [int(first) + (end - first) // 2] if row % 3 == 0 and end - first > 1 else []
            for i, border in enumerate((*cuts, int(end))):
                borders.append(border)
                read.append(place)
                place = self._spare.pop(0)
                write.append(place)
                wave.append(i)
                left.append(read[-1])
            self._slots[row] = place
        self._spare += [slot for slot in left if slot not in (NULL_SLOT, *self._slots)]
        return StateBatch(*(np.array(part, np.int32) for part in (borders, read, write, wave)))

    def _upload(self, values: Sequence[int] | np.ndarray) -> Tensor:
        return self._device.upload(np.asarray(values, np.int64))
