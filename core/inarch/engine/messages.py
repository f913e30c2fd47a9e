"""What travels between a front end and the engine process: msgspec structs, nothing else.

Front ends number their samples themselves (`handle`); the engine knows a request by its client and
handle.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from inarch.sampling import SamplingParams


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True, array_like=True):
    """Base of all messages; the class name is the tag."""


# ---- front end to engine ----


class Hello(Message, frozen=True):
    """Asks for Ready, once the engine can answer."""


class NewRequest(Message, frozen=True):
    """One sample to generate; the front end has validated it against ModelInfo.

    again: an earlier engine had it, so it is taken however many wait. output: its tokens so far.
    suspect: earlier engines may have died of it, so it is let in as `inarch.engine.trials` says.
    """

    handle: int
    prompt: bytes  # int32 token ids, little endian
    params: SamplingParams
    max_tokens: int
    stop_ids: list[int]
    seed: int
    namespace: str = ""  # of the prefix cache: those of others share nothing with this request
    priority: int = 0  # higher is sooner
    output: bytes = b""  # as `prompt`
    again: bool = False
    suspect: bool = False


class Abort(Message, frozen=True):
    handle: int


class AbortByName(Message, frozen=True):
    """End requests, whichever front end has them: that one, or NAME-0, NAME-1 ... of a batch; None: all.

    Front ends hear it from the engine.
    """

    request_id: str | None


class GetStats(Message, frozen=True):
    ticket: int


class ClearCache(Message, frozen=True):
    ticket: int


class GetCacheTree(Message, frozen=True):
    ticket: int
    nodes: int  # most to tell of


class Pause(Message, frozen=True):
    """Compute nothing until Continue. What runs is ended, set back (it keeps its tokens and gives up
    its memory), or left where it is."""

    ticket: int
    mode: Literal["abort", "retract", "in_place"]


class Continue(Message, frozen=True):
    ticket: int


class StartProfile(Message, frozen=True):
    """Record what the engine process does, until StopProfile or for a number of steps."""

    ticket: int
    path: str  # of the trace file, which must not exist yet
    steps: int | None = None


class StopProfile(Message, frozen=True):
    ticket: int


class ExportPrefix(Message, frozen=True):
    """Asks for what is cached of these tokens, as `inarch.engine.kv_bytes` packs it."""

    ticket: int
    tokens: bytes  # int32, little endian
    namespace: str = ""


class ImportPrefix(Message, frozen=True):
    """Put what another engine exported into the prefix cache."""

    ticket: int
    data: bytes
    namespace: str = ""


# ---- engine to front end ----


class OpChoice(msgspec.Struct, frozen=True, array_like=True):
    """Which kernel serves an op, in how many places of the model, and why that one."""

    op: str
    kernel: str
    bindings: int
    why: str


class HeadInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a model makes of a prompt: further tokens, a vector, or scores of labels."""

    generates: bool
    outputs: int  # of a vector
    each_token: bool  # a vector for each token of a prompt
    normalized: bool  # vectors have length 1
    labels: tuple[str, ...]  # whose scores the vectors are; none: they are embeddings
    scores: Literal["softmax", "sigmoid", "raw"]  # what makes probabilities of the scores
    tells_texts_apart: bool  # of a pair
    whole_prompts: bool  # each is computed in one step
    prompts: dict[str, str] = {}  # what comes before a text, by what the text is for
    default_prompt: str | None = None  # one of their names
    words: tuple[int, ...] = ()  # tokens by which a reranker says yes and no; (): by these words


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
    head: HeadInfo
    eos_token_ids: tuple[int, ...]
    default_sampling: dict[str, Any]  # from generation_config.json
    memory: dict[str, int]  # where the device's bytes went, by purpose
    weights: str = ""  # how --quantization stores them; "" if as they come
    reference_ops: tuple[str, ...] = ()  # those that the plain reference runs
    ops: tuple[OpChoice, ...] = ()
    grammar_kinds: tuple[str, ...] = ()  # of the grammars that answers can be held to


class Ready(Message, frozen=True):
    info: ModelInfo


class PromptLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log-probabilities of the N prompt tokens from `start` to the last: little-endian arrays.

    chosen [N] of the tokens themselves, values and ids [N, top] of the most likely ones in their
    place, wanted [N, W] of those that were named; all float32 but for ids, which are int32.
    """

    start: int
    chosen: bytes
    values: bytes
    ids: bytes
    wanted: bytes


class Vectors(msgspec.Struct, frozen=True, array_like=True):
    """What a model made of a prompt: `count` rows of float32, little endian. One for the whole of it,
    or one for each token."""

    count: int
    rows: bytes


class TokenOutput(Message, frozen=True):
    """One step's news for one front end: parallel lists, one entry a sample.

    finish: index in the lists -> "stop" or "length". With a sample's first token come cached: index
    -> prompt tokens found in the cache; queued: index -> seconds until it was begun; prompts: index
    -> log-probabilities of a prompt. vectors: index -> what was made of a prompt to encode, whose
    token is void.
    logprobs: index -> (logprob, top values, top ids, log-probabilities of the ids that were named).
    """

    handles: list[int]
    tokens: list[int]
    finish: dict[int, str] = {}
    cached: dict[int, int] = {}
    queued: dict[int, float] = {}
    logprobs: dict[int, tuple[float, list[float], list[int], list[float]]] = {}
    prompts: dict[int, PromptLogprobs] = {}
    vectors: dict[int, Vectors] = {}


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
    paused: bool = False
    state_slots_total: int = 0  # of recurrent states; 0: the model has none
    state_slots_used: int = 0  # of samples that run
    state_checkpoints: int = 0  # the slots that the prefix cache keeps


class Cleared(Message, frozen=True):
    ticket: int
    pages: int


class TreeNode(msgspec.Struct, frozen=True, array_like=True):
    """An edge of the prefix tree and the node at its end."""

    id: int  # the same for as long as the node is there; above 0
    parent: int  # id; 0: the root
    tokens: int  # along the edge
    locks: int  # samples at or below it that run now
    last_used: int  # on a clock that counts uses
    hidden: int  # children that are not told of
    head: bytes  # the first token ids, int32 little endian; none of a namespace with a name


class CacheTree(Message, frozen=True):
    ticket: int
    nodes: list[TreeNode]  # parents before children
    tokens: int  # of the whole tree


class Done(Message, frozen=True):
    """An order was carried out, or why not: `error` is for the person who gave it."""

    ticket: int
    error: str = ""


class Prefixed(Message, frozen=True):
    """Of ExportPrefix the data, of ImportPrefix how many tokens are cached; or why it cannot be done."""

    ticket: int
    data: bytes = b""
    tokens: int = 0
    error: str = ""


class Overloaded(Message, frozen=True):
    """The request was not taken: too many are waiting."""

    handle: int
    waiting: int


class Refused(Message, frozen=True):
    """The sample ends without an answer: what it asked for cannot be given."""

    handle: int
    message: str
    status: int = 400


Order = ClearCache | Pause | Continue | StartProfile | StopProfile | ExportPrefix | ImportPrefix
ToEngine = Hello | NewRequest | Abort | AbortByName | GetStats | GetCacheTree | Order
FromEngine = (
    Ready
    | TokenOutput
    | Stats
    | Cleared
    | CacheTree
    | Done
    | Prefixed
    | Overloaded
    | Refused
    | AbortByName
)

encode = msgspec.msgpack.Encoder().encode
decode_to_engine = msgspec.msgpack.Decoder(ToEngine).decode
decode_from_engine = msgspec.msgpack.Decoder(FromEngine).decode
