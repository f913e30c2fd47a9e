"""Log-probabilities of the tokens of prompts.

A step computes logits for the last token of each sequence alone. Where a request asks about its
prompt, the hidden states of those positions are kept too and become logits piece by piece: never
more rows at once than a step may sample, so that the memory set aside for sampling is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inarch.engine.messages import PromptLogprobs
from inarch.engine.plan import PositionLogprobs, Scored
from inarch.engine.request import Request
from inarch.hal.device import Device, Transfer
from inarch.hal.dispatch import Dispatcher
from inarch.hal.ops import sampling as ops


def of_tokens(logits: Tensor, ids: Tensor) -> Tensor:
    """Natural-log probabilities [N, W] of token ids [N, W], from logits [N, V] float32."""
    if not ids.shape[1]:
        return logits.new_empty(ids.shape)
    return logits.gather(1, ids) - logits.logsumexp(-1, keepdim=True)


def padded_ids(wanted: Sequence[Sequence[int]]) -> np.ndarray:
    """Rows of token ids as one int64 array; what a row lacks is token 0."""
    ids = np.zeros((len(wanted), max(map(len, wanted), default=0)), dtype=np.int64)
    for row, tokens in zip(ids, wanted, strict=True):
        row[: len(tokens)] = tokens
    return ids


@dataclass(frozen=True)
class Scores:
    """What a step says about prompts, on its way to the host."""

    scored: Sequence[Scored]
    parts: tuple[Transfer, ...]  # chosen, values, ids, wanted; each row one position

    def wait(self) -> list[tuple[Scored, PositionLogprobs]]:
        chosen, values, ids, wanted = (part.wait() for part in self.parts)
        told, at = [], 0
        for span in self.scored:
            rows = slice(at, at + span.end - span.start)
            top, ask = span.request.params.prompt_logprobs, span.request.params.logprob_token_ids
            told.append(
                (
                    span,
                    PositionLogprobs(
                        chosen[rows], values[rows, :top], ids[rows, :top], wanted[rows, : len(ask)]
                    ),
                )
            )
            at = rows.stop
        return told


class Scorer:
    """Turns hidden states at positions of prompts into log-probabilities."""

    def __init__(
        self, device: Device, dispatcher: Dispatcher, head: Callable[[Tensor], Tensor], rows: int
    ) -> None:
        """head: hidden states [N, hidden] to logits [N, V]; `rows` of them at once at most."""
        self._device = device
        self._logprobs = dispatcher.bind(ops.logprobs)
        self._head = head
        self._rows = rows

    @staticmethod
    def arrays(scored: Sequence[Scored]) -> dict[str, np.ndarray]:
        """What `score` needs on the device: the token after each position, and further ids wanted."""
        follow = [span.request.prompt[span.start + 1 : span.end + 1] for span in scored]
        return {
            "scored_tokens": np.concatenate(follow).astype(np.int64),
            "scored_ids": padded_ids([span.request.params.logprob_token_ids for span in scored]),
            "scored_spans": np.repeat(np.arange(len(scored)), [len(part) for part in follow]),
        }

    def score(
        self, scored: Sequence[Scored], hidden: Tensor, there: Mapping[str, Tensor]
    ) -> Scores:
        """Score hidden states [P, hidden] with the uploaded `arrays`."""
        top = max(span.request.params.prompt_logprobs or 0 for span in scored)
        pieces = []
        for at in range(0, len(hidden), self._rows):
            piece = slice(at, at + self._rows)
            logits = self._head(hidden[piece])
            known = self._logprobs(logits, there["scored_tokens"][piece], top)
            wanted = of_tokens(logits, there["scored_ids"][there["scored_spans"][piece]])
            pieces.append((*known, wanted))
        parts = tuple(self._device.download(torch.cat(p)) for p in zip(*pieces, strict=True))
        return Scores(scored, parts)


def prompt_logprobs(request: Request) -> PromptLogprobs:
    """All that steps told about a prompt, as one message."""
    parts = [b""] * 4
    if request.prompt_logprobs:  # a prompt of one token has none
        joined = [np.concatenate(part) for part in zip(*request.prompt_logprobs, strict=True)]
        dtypes = ("<f4", "<f4", "<i4", "<f4")
        parts = [p.astype(kind).tobytes() for p, kind in zip(joined, dtypes, strict=True)]
    return PromptLogprobs(max(request.params.logprob_start, 1), *parts)
