"""Sampling policy: which parameters, random numbers, penalties and biases each row gets.

The arithmetic is ops (inarch.hal.ops.sampling); this file keeps what they need, by row of the
request table, so that a step gathers it with a few array calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inarch.engine.philox import uniforms
from inarch.engine.plan import StepPlan
from inarch.engine.request import Request
from inarch.engine.scoring import of_tokens, padded_ids
from inarch.hal.device import Device, Transfer
from inarch.hal.dispatch import Dispatcher
from inarch.hal.ops import sampling as ops
from inarch.hal.packing import upload
from inarch.sampling import MAX_TOP_LOGPROBS

BLOCK = 64  # random numbers are drawn ahead for this many positions of a row
COLDEST = 1e-5  # below it logits overflow when divided, and the answer is greedy anyway
FORBIDDEN = np.float32(-np.inf)


def mask_words(vocab_size: int) -> int:
    """int32 words in which a bitmask has a bit for each token."""
    return -(-vocab_size // 32)


@dataclass(frozen=True)
class SampleInputs:
    """What one step's sampling needs, on the host; `arrays` go up with the rest of the step."""

    sequences: np.ndarray  # int64: the sequences of the step that sample
    rows: np.ndarray  # int64: their rows
    arrays: Mapping[str, np.ndarray]
    everyone: bool  # all sequences sample
    greedy: bool
    penalized: bool
    biased: bool
    constrained: np.ndarray  # int64: which of `sequences` are held to a grammar
    logprobs: int | None  # most alternatives that any of them asks for
    asks: bool = False  # any wants the log-probabilities of certain tokens


@dataclass(frozen=True)
class TokenMask:
    """Which tokens some of the sampling sequences may yield: see the op apply_token_mask."""

    bitmask: np.ndarray  # int32 [N, words]
    places: np.ndarray  # int64 [N]: in SampleInputs.sequences


@dataclass(frozen=True)
class Sampled:
    """Transfers of a step's results; each row is one of SampleInputs.sequences."""

    tokens: Transfer
    logprobs: tuple[Transfer, ...] | None  # chosen, values, ids, wanted


class Sampler:
    """Holds the sampling parameters of every row and samples whole batches with them."""

    def __init__(self, rows: int, vocab_size: int, device: Device, dispatcher: Dispatcher) -> None:
        self._device = device
        self._vocab_size = vocab_size
        self._temperature = np.zeros(rows, dtype=np.float32)
        self._top_k = np.zeros(rows, dtype=np.int32)
        self._top_p = np.ones(rows, dtype=np.float32)
        self._min_p = np.zeros(rows, dtype=np.float32)
        self._penalties = np.zeros((3, rows), dtype=np.float32)  # repetition, frequency, presence
        self._penalized = np.zeros(rows, dtype=bool)
        self._biased = np.zeros(rows, dtype=bool)
        self._constrained = np.zeros(rows, dtype=bool)
        self._logprobs = np.full(rows, -1, dtype=np.int32)
        self._asks = np.zeros(rows, dtype=bool)
        self._seeds = np.zeros(rows, dtype=np.uint64)
        self._uniforms = np.zeros((rows, BLOCK), dtype=np.float32)
        self._block = np.full(rows, -1, dtype=np.int64)  # which block of positions is drawn
        self._last = device.upload(np.zeros(rows, dtype=np.int64))
        self._seen: tuple[Tensor, Tensor] | None = None  # prompt [rows, V], counts [rows, V]
        self._greedy = dispatcher.bind(ops.greedy)
        self._sample = dispatcher.bind(ops.sample)
        self._penalize = dispatcher.bind(ops.penalize)
        self._count = dispatcher.bind(ops.count_tokens)
        self._bias = dispatcher.bind(ops.add_bias)
        self._mask = dispatcher.bind(ops.apply_token_mask)
        self._logprob = dispatcher.bind(ops.logprobs)

    @staticmethod
    def penalty_bytes(rows: int, vocab_size: int) -> int:
        """Device memory that the first request with a penalty takes, for the memory budget."""
        return rows * vocab_size * (torch.int32.itemsize + torch.bool.itemsize)

    def resolve(self, token_ids: Tensor) -> Tensor:
        """Replace ids of the form ~row by the token sampled last for that row."""
        return torch.where(token_ids >= 0, token_ids, self._last[(~token_ids).clamp_min(0)])

    def rehearse(self, logits: Tensor) -> None:
        """Sample from logits [S, V] in every way and keep nothing: what it takes in memory shows,
        and kernels that are compiled or loaded at first use are there before the first request."""
        count = len(logits)
        one = self._device.upload(np.ones(count, dtype=np.float32))
        zero = self._device.upload(np.zeros(count, dtype=np.float32))
        rows = self._device.upload(np.zeros(count, dtype=np.int64))
        top_k = self._device.upload(np.full(count, self._vocab_size, dtype=np.int32))
        # As in the step that takes most: not all sequences sample, and logprobs want what the model
        # said, beside what penalties make of it.
        raw = logits[rows]
        logits = raw.clone()
        prompt, counts = self._new_tables(1)
        logits = self._penalize(logits, rows, prompt, counts, one, zero, zero)
        logits = self._bias(logits, rows, rows, zero)
        bitmask = np.full((count, mask_words(self._vocab_size)), -1, dtype=np.int32)
        places = np.arange(count, dtype=np.int64)
        logits = self._mask(logits, *self._upload_mask(TokenMask(bitmask, places)))
        self._greedy(logits)
        self._sample(logits, one, zero)
        tokens = self._sample(logits, one, zero, top_k, one, zero)
        self._count(counts, rows, tokens)
        self._logprob(raw, tokens, min(MAX_TOP_LOGPROBS, self._vocab_size))

    # ---- host side ----

    def prepare(self, plan: StepPlan) -> SampleInputs:
        """Gather what the sequences of a step need."""
        for s in range(plan.decodes, len(plan.requests)):
            if plan.samples[s]:
                self._admit(plan.requests[s])
        sequences = np.flatnonzero(plan.samples)
        rows = plan.rows[sequences].astype(np.int64)
        arrays: dict[str, np.ndarray] = {"sample_sequences": sequences, "sample_rows": rows}
        greedy = not self._temperature[rows].any()
        if not greedy:
            positions = (plan.starts + plan.lengths)[sequences]
            arrays |= {
                "temperature": self._temperature[rows],
                "uniform": self._draw(rows, positions),
                **self._filters(rows),
            }
        penalized = bool(self._penalized[rows].any())
        if penalized:
            parts = zip(("repetition", "frequency", "presence"), self._penalties, strict=True)
            arrays |= {name: values[rows] for name, values in parts}
        biased = bool(self._biased[rows].any())
        if biased:
            biases = self._gather_bias([plan.requests[s] for s in sequences.tolist()])
            biased = biases is not None
            arrays |= biases or {}
        top = int(self._logprobs[rows].max(initial=-1))
        asks = top >= 0 and bool(self._asks[rows].any())
        if asks:
            wanted = [plan.requests[s].params.logprob_token_ids for s in sequences.tolist()]
            arrays["logprob_ids"] = padded_ids(wanted)
        return SampleInputs(
            sequences,
            rows,
            arrays,
            everyone=len(sequences) == len(plan.requests),
            greedy=greedy,
            penalized=penalized,
            biased=biased,
            constrained=np.flatnonzero(self._constrained[rows]),
            logprobs=top if top >= 0 else None,
            asks=asks,
        )

    def _admit(self, request: Request) -> None:
        """Take over a request's parameters when its first token since admission is sampled."""
        row, params = request.row, request.params
        self._temperature[row] = params.temperature if params.temperature >= COLDEST else 0
        self._top_k[row] = params.top_k if params.top_k > 0 else self._vocab_size
        self._top_p[row], self._min_p[row] = params.top_p, params.min_p
        penalties = (params.repetition_penalty, params.frequency_penalty, params.presence_penalty)
        self._penalties[:, row] = penalties
        self._penalized[row] = penalties != (1.0, 0.0, 0.0)
        self._constrained[row] = request.constraint is not None
        self._biased[row] = bool(params.logit_bias) or params.min_tokens > 0
        self._logprobs[row] = -1 if params.logprobs is None else params.logprobs
        self._asks[row] = params.logprobs is not None and bool(params.logprob_token_ids)
        self._seeds[row] = np.uint64(request.seed % 2**64)
        self._block[row] = -1
        if self._penalized[row]:
            self._remember(request)

    def _filters(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Those filters that at least one of the rows has."""
        filters = {}
        if (self._top_k[rows] < self._vocab_size).any():
            filters["top_k"] = self._top_k[rows]
        if (self._top_p[rows] < 1).any():
            filters["top_p"] = self._top_p[rows]
        if (self._min_p[rows] > 0).any():
            filters["min_p"] = self._min_p[rows]
        return filters

    def _draw(self, rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """One uniform for each row: a function of its seed and of the position."""
        blocks = positions // BLOCK
        stale = np.flatnonzero(self._block[rows] != blocks)
        for block in np.unique(blocks[stale]).tolist():
            these = rows[stale[blocks[stale] == block]]
            self._uniforms[these] = uniforms(self._seeds[these], block * BLOCK, BLOCK)
            self._block[these] = block
        drawn: np.ndarray = self._uniforms[rows, positions % BLOCK]
        return drawn

    def _gather_bias(self, requests: list[Request]) -> dict[str, np.ndarray] | None:
        """logit_bias, and the ban of stop tokens before min_tokens, as (place, token, value)."""
        places: list[int] = []
        tokens: list[int] = []
        values: list[float] = []
        for place, request in enumerate(requests):
            bias = dict(request.params.logit_bias)
            early = len(request.output) + request.in_flight - 1 < request.params.min_tokens
            if early and request.constraint is None:  # else its mask bans them
                bias |= dict.fromkeys(request.stop_ids, float(FORBIDDEN))
            places += [place] * len(bias)
            tokens += bias.keys()
            values += bias.values()
        if not places:
            return None
        return {
            "bias_rows": np.array(places, dtype=np.int64),
            "bias_tokens": np.array(tokens, dtype=np.int64),
            "bias_values": np.array(values, dtype=np.float32),
        }

    # ---- device side ----

    def sample(
        self,
        logits: Tensor,
        inputs: SampleInputs,
        there: Mapping[str, Tensor],
        mask: TokenMask | None = None,
    ) -> Sampled:
        """Sample from logits [S, V] with the uploaded arrays; begins the copies to the host."""
        if not inputs.everyone:
            logits = logits[there["sample_sequences"]]
        raw, rows = logits, there["sample_rows"]
        changed = inputs.penalized or inputs.biased or mask is not None
        if inputs.logprobs is not None and changed:
            logits = logits.clone()  # those ops may write over their input
        if inputs.penalized:
            logits = self._apply_penalties(logits, rows, there)
        if inputs.biased:
            places = (there["bias_rows"], there["bias_tokens"])
            logits = self._bias(logits, *places, there["bias_values"])
        if mask is not None:
            logits = self._mask(logits, *self._upload_mask(mask))
        if inputs.greedy:
            tokens = self._greedy(logits)
        else:
            filters = (there.get(name) for name in ("top_k", "top_p", "min_p"))
            tokens = self._sample(logits, there["temperature"], there["uniform"], *filters)
        self._last.index_copy_(0, rows, tokens)
        if inputs.penalized:
            assert self._seen is not None
            self._count(self._seen[1], rows, tokens)
        logprobs = None
        if inputs.logprobs is not None:
            ids = there["logprob_ids"] if inputs.asks else tokens.new_empty((len(tokens), 0))
            parts = (*self._logprob(raw, tokens, inputs.logprobs), of_tokens(raw, ids))
            logprobs = tuple(self._device.download(part) for part in parts)
        return Sampled(self._device.download(tokens), logprobs)

    def nothing(self) -> Sampled:
        """What a step without a token to sample yields; there once the step is done."""
        return Sampled(self._device.download(self._last[:0]), None)

    def _upload_mask(self, mask: TokenMask) -> tuple[Tensor, Tensor]:
        there = upload(self._device, {"bitmask": mask.bitmask, "rows": mask.places})
        return there["bitmask"], there["rows"]

    def _apply_penalties(self, logits: Tensor, rows: Tensor, there: Mapping[str, Tensor]) -> Tensor:
        assert self._seen is not None
        names = ("repetition", "frequency", "presence")
        penalized: Tensor = self._penalize(logits, rows, *self._seen, *(there[n] for n in names))
        return penalized

    def _remember(self, request: Request) -> None:
        """Note which tokens a request has already seen: its prompt, and its output if it returns."""
        if self._seen is None:
            self._seen = self._new_tables(len(self._seeds))
        prompt, counts = self._seen
        prompt[request.row] = False
        counts[request.row] = 0
        prompt[request.row, self._device.upload(np.unique(request.prompt).astype(np.int64))] = True
        if request.output:
            ids, times = np.unique(np.array(request.output), return_counts=True)
            places = self._device.upload(ids.astype(np.int64))
            counts[request.row, places] = self._device.upload(times.astype(np.int32))

    def _new_tables(self, rows: int) -> tuple[Tensor, Tensor]:
        """Nothing was seen yet: prompt [rows, V] and counts [rows, V]."""
        shape = (rows, self._vocab_size)
        return (
            self._last.new_zeros(shape, dtype=torch.bool),
            self._last.new_zeros(shape, dtype=torch.int32),
        )
