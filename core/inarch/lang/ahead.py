"""Several gens of a message by one call of an API: what it wrote beyond the first one is kept, and
the program's next texts and gens are looked up in it.

API speculative execution is SGLang's: Zheng et al., 2023, arXiv:2312.07104, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inarch.lang.expressions import Gen
from inarch.lang.transcript import Ahead, Transcript
from inarch.sampling import SamplingParams

TRIES = 3  # of a model that draws: it may keep to the program's form the next time
# What may be said of a gen that is looked up. Its end is a stop, or the end of the answer.
FREE = {
    "temperature", "top_p", "top_k", "min_p", "seed", "frequency_penalty", "presence_penalty",
    "repetition_penalty", "logit_bias", "stop",
}  # fmt: skip

Found = tuple[str, dict[str, Any]]  # text and meta information


def may_wait(gen: Gen, given: Mapping[str, Any]) -> bool:
    """Whether its text can be told from that of the gens behind it."""
    plain = gen.reasoning is None and not gen.tools and gen.lora is None
    return plain and set({**given, **gen.sampling}) <= FREE


def tries_of(params: SamplingParams) -> int:
    return 1 if params.temperature == 0 or params.seed is not None else TRIES


def before_message(transcript: Transcript) -> Transcript:
    """What the API is asked to go on from: few continue an open message, so of that it is to write
    the beginning too."""
    asked = transcript.copy()
    if transcript.chat:
        asked.content = ""
    return asked


def written_ahead(
    transcript: Transcript, params: SamplingParams, stops: Sequence[str]
) -> Found | None:
    """The text of a gen, if it was written already."""
    ahead = transcript.ahead
    if (
        ahead is None
        or ahead.messages != len(transcript.messages)
        or ahead.params != params
        or not ahead.content.startswith(transcript.content)
        or ahead.content == transcript.content
    ):
        return None
    asked_nothing = {"prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0}
    return _cut(ahead, transcript.content, stops, asked_nothing)


def keep_ahead(
    transcript: Transcript,
    params: SamplingParams,
    stops: Sequence[str],
    text: str,
    meta: Mapping[str, Any],
) -> Found | None:
    """Keep what the API wrote; the text of the gen that asked, if it is there."""
    before = transcript.content
    content = text if transcript.chat else before + text
    if not content.startswith(before):
        return None
    over = meta["finish_reason"]["type"] != "length"
    transcript.ahead = Ahead(len(transcript.messages), content, over, params)
    return _cut(transcript.ahead, before, stops, meta)


def _cut(ahead: Ahead, before: str, stops: Sequence[str], meta: Mapping[str, Any]) -> Found | None:
    """Up to the first of the stops, or else all of an answer that was not cut off."""
    rest = ahead.content[len(before) :]
    ends = {at: stop for stop in reversed(stops) if (at := rest.find(stop)) >= 0}
    if ends:
        at = min(ends)
        reason = {"type": "stop", "matched": ends[at]}
        return rest[:at], {**meta, "finish_reason": reason}
    return (rest, {**meta, "finish_reason": {"type": "stop"}}) if ahead.over else None
