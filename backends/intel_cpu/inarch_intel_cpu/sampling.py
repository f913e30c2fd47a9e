"""From logits to tokens by our kernels; each method has the signature of the op it is named after.

Sums of probabilities are taken in another order than the reference's: a token that is cut or drawn
otherwise lies within 1e-6 of the bound (top_p, min_p, the uniform number). Order and ties are those of
the logits themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inarch_intel_cpu.native import Native


class Sampling:
    def __init__(self, native: Native) -> None:
        self._greedy, self._sample = native.kernel("greedy"), native.kernel("sample")
        self._logprobs, self._penalize = native.kernel("logprobs"), native.kernel("penalize")
        self._count, self._bias = native.kernel("count_tokens"), native.kernel("add_bias")
        self._mask = native.kernel("apply_token_mask")

    def greedy(self, logits: Tensor) -> Tensor:
        logits = _rows(logits)
        tokens = torch.empty(len(logits), dtype=torch.int64)
        self._greedy(logits, *logits.shape, logits.stride(0), tokens)
        return tokens

    def sample(
        self,
        logits: Tensor,
        temperature: Tensor,
        uniform: Tensor,
        top_k: Tensor | None = None,
        top_p: Tensor | None = None,
        min_p: Tensor | None = None,
    ) -> Tensor:
        logits = _rows(logits)
        tokens = torch.empty(len(logits), dtype=torch.int64)
        self._sample(
            logits,
            *logits.shape,
            logits.stride(0),
            temperature,
            uniform,
            top_k,
            top_p,
            min_p,
            tokens,
        )
        return tokens

    def logprobs(self, logits: Tensor, tokens: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
        logits, rows = _rows(logits), len(logits)
        if top > logits.shape[1]:  # the kernel would read beyond the row
            raise ValueError(f"{top} most likely tokens of a vocabulary of {logits.shape[1]}")
        chosen, values = torch.empty(rows), torch.empty(rows, top)
        ids = torch.empty(rows, top, dtype=torch.int64)
        self._logprobs(logits, *logits.shape, logits.stride(0), tokens, top, chosen, values, ids)
        return chosen, values, ids

    def penalize(
        self,
        logits: Tensor,
        rows: Tensor,
        prompt: Tensor,
        counts: Tensor,
        repetition: Tensor,
        frequency: Tensor,
        presence: Tensor,
    ) -> Tensor:
        logits = _rows(logits)
        self._penalize(
            logits,
            *logits.shape,
            logits.stride(0),
            rows,
            prompt,
            counts,
            repetition,
            frequency,
            presence,
        )
        return logits

    def count_tokens(self, counts: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
        self._count(counts, counts.shape[1], rows, tokens, len(rows))
        return counts

    def add_bias(self, logits: Tensor, rows: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
        logits = _rows(logits)
        self._bias(logits, logits.stride(0), rows, tokens, values, len(rows))
        return logits

    def apply_token_mask(self, logits: Tensor, bitmask: Tensor, rows: Tensor) -> Tensor:
        logits = _rows(logits)
        self._mask(
            logits, logits.shape[1], logits.stride(0), bitmask, bitmask.shape[1], rows, len(rows)
        )
        return logits


def _rows(logits: Tensor) -> Tensor:
    return logits if logits.stride(-1) == 1 else logits.contiguous()
