"""What travels between a front end and the engine process: msgspec structs, nothing else.

Front ends number their samples themselves (`handle`); the engine knows a request by its client and
handle.
"""

from __future__ import annotations

from typing import Any

import msgspec

from inarch.sampling import SamplingParams


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True, array_like=True):
    """Base of all messages; the class name is the tag."""


# ---- front end to engine ----


class Hello(Message, frozen=True):
    """Asks for Ready, once the engine can answer."""


class NewRequest(Message, frozen=True):
    """One sample to generate; the front end has validated it against ModelInfo."""

    handle: int
    prompt: bytes  # int32 token ids, little endian
    params: SamplingParams
    max_tokens: int
    stop_ids: list[int]
    seed: int
    namespace: str = ""


class Abort(Message, frozen=True):
    handle: int


class GetStats(Message, frozen=True):
    ticket: int


class ClearCache(Message, frozen=True):
    ticket: int


# ---- engine to front end ----


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a front end must know of the loaded model."""

    name: str  # as the API lists it
    path: str
    architecture: str
    context_length: int  # most tokens of prompt and answer together
    max_request_tokens: int  # the same, also limited by the KV memory
    vocab_size: int
    dtype: str
    backend: str
    device: str
    kv_tokens: int
    kv_dtype: str
    page_tokens: int
    max_running_requests: int
    eos_token_ids: tuple[int, ...]
    default_sampling: dict[str, Any]  # from generation_config.json
    memory: dict[str, int]  # where the device's bytes went, by purpose
    reference_ops: tuple[str, ...] = ()  # those that the plain reference runs


class Ready(Message, frozen=True):
    info: ModelInfo


class StartFailed(Message, frozen=True):
    error: str  # class name in inarch.errors
    message: str


class TokenOutput(Message, frozen=True):
    """One step's news for one front end: parallel lists, one entry a sample.

    finish: index in the lists -> "stop" or "length". cached: index -> prompt tokens found in the
    cache, with a sample's first token. logprobs: index -> (logprob, top values, top ids).
    """

    handles: list[int]
    tokens: list[int]
    finish: dict[int, str] = {}
    cached: dict[int, int] = {}
    logprobs: dict[int, tuple[float, list[float], list[int]]] = {}


class Stats(Message, frozen=True):
    ticket: int
    running: int
    waiting: int
    kv_pages_total: int
    kv_pages_used: int
    kv_pages_cached: int
    page_tokens: int
    retractions: int
    steps: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int


class Cleared(Message, frozen=True):
    ticket: int
    pages: int


class Overloaded(Message, frozen=True):
    """The request was not taken: too many are waiting."""

    handle: int
    waiting: int


class Refused(Message, frozen=True):
    """The sample ends without an answer: what it asked for cannot be given."""

    handle: int
    message: str
    status: int = 400


ToEngine = Hello | NewRequest | Abort | GetStats | ClearCache
FromEngine = Ready | StartFailed | TokenOutput | Stats | Cleared | Overloaded | Refused

encode = msgspec.msgpack.Encoder().encode
decode_to_engine = msgspec.msgpack.Decoder(ToEngine).decode
decode_from_engine = msgspec.msgpack.Decoder(FromEngine).decode
