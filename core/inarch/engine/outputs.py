"""What an engine gives back for a request, piece by piece.

Structs of msgspec, not dataclasses: one is made for every token, and a frozen dataclass takes ten
times as long to make.
"""

from __future__ import annotations

from typing import Literal

import msgspec

FinishReason = Literal["stop", "length", "abort"]


class TokenLogprob(msgspec.Struct, frozen=True, gc=False):
    """A chosen token with its natural-log probability and the most likely alternatives."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # (token id, logprob) by falling probability


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
    queued_s: float = 0.0  # from when the engine had the request until it began with it
