"""What an engine gives back for a request, piece by piece.

Structs of msgspec, not dataclasses: one is made for every token, and a frozen dataclass takes ten
times as long to make.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
import numpy as np

from inarch.engine.messages import PromptLogprobs
from inarch.sampling import SamplingParams

FinishReason = Literal["stop", "length", "abort"]


class TokenLogprob(msgspec.Struct, frozen=True, gc=False):
    """A chosen token with its natural-log probability and the most likely alternatives."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # (token id, logprob) by falling probability
    wanted: tuple[float, ...] = ()  # of the ids in logprob_token_ids, in their order


class RequestOutput(msgspec.Struct, frozen=True, gc=False):
    """What is new for one sample of a request since the last output for it.

    text may lag behind token_ids: a half character, or text that may become a stop string, is held
    back and comes with a later output, at the latest with the one that has a finish_reason.
    """

    request_id: str
    index: int  # which of the n samples
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]  # as many as token_ids if asked for, else empty
    finish_reason: FinishReason | None
    matched_stop: int | str | None  # the stop token or string, when finish_reason is "stop"
    prompt_tokens: int
    completion_tokens: int  # so far, of this sample
    cached_tokens: int  # of the prompt, that were not computed again
    cumulative_logprob: float | None = None  # of all tokens so far, if logprobs were asked for
    # Of the prompt's tokens from max(logprob_start, 1) on, with the first output, if asked for.
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    vectors: np.ndarray | None = None  # float32 [1 or tokens, outputs]: of a prompt to encode
    queued_s: float = 0.0  # from when the engine had the request until it began with it


def prompt_entries(
    told: PromptLogprobs, prompt: Sequence[int], params: SamplingParams
) -> Iterator[TokenLogprob]:
    """What the engine said of a prompt, one entry for each token that was asked about."""
    chosen = np.frombuffer(told.chosen, "<f4").tolist()
    count, top = len(chosen), params.prompt_logprobs or 0
    values = np.frombuffer(told.values, "<f4").reshape(count, top).tolist()
    ids = np.frombuffer(told.ids, "<i4").reshape(count, top).tolist()
    named = len(params.logprob_token_ids)
    wanted = np.frombuffer(told.wanted, "<f4").reshape(count, named).tolist()
    for i, token in enumerate(prompt[told.start : told.start + count]):
        likely = tuple(zip(ids[i], values[i], strict=True))
        yield TokenLogprob(token, chosen[i], likely, tuple(wanted[i]))
