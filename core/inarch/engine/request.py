"""One sample of a request, as the scheduler sees it."""

from __future__ import annotations

import enum
import sys
from typing import TYPE_CHECKING

import numpy as np

from inarch.engine.constraint import Constraint
from inarch.sampling import SamplingParams

if TYPE_CHECKING:
    from inarch.cache.radix import Node
    from inarch.engine.plan import PositionLogprobs

NO_ROW = -1
NOWHERE = sys.maxsize
LONG = "\0long"  # ends the cache namespace of what is rotated as a long sequence


class Status(enum.Enum):
    WAITING = "waiting"
    RUNNING = "running"  # has a row and pages
    FINISHED = "finished"


class Request:
    """A prompt, what was generated so far, and where its KV is.

    While it runs, its tokens count:  in the tree <= computed <= known + in flight, where known is the
    prompt and the committed output, and computed are tokens whose KV has been launched. Computed
    lives in the scheduler's table, as do the pages.
    """

    __slots__ = (
        "arrived_s",
        "cached_tokens",
        "client",
        "constraint",
        "handle",
        "in_flight",
        "is_long",
        "max_tokens",
        "namespace",
        "node",
        "order",
        "output",
        "params",
        "passed_over",
        "priority",
        "prompt",
        "prompt_logprobs",
        "queued_s",
        "retractions",
        "row",
        "seed",
        "status",
        "stop_ids",
        "tree_pages",
        "unscored",
        "vectors",
        "wanted",
    )

    def __init__(
        self,
        handle: int,
        prompt: np.ndarray,
        params: SamplingParams,
        *,
        max_tokens: int,
        stop_ids: frozenset[int] = frozenset(),
        seed: int = 0,
        namespace: str = "",
        priority: int = 0,
        client: bytes = b"",
    ) -> None:
        self.handle = handle  # the client's number for it
        self.client = client
        self.prompt = prompt  # int32
        self.params = params
        self.priority = priority  # higher is sooner
        self.max_tokens = max_tokens  # resolved: at least 1, fits the context
        self.stop_ids = stop_ids  # eos unless ignored, and the caller's own
        self.seed = seed
        self.namespace = namespace
        self.is_long = False  # rotated as LongRoPE rotates sequences beyond the original context
        self.output: list[int] = []
        self.status = Status.WAITING
        self.in_flight = 0  # sampled tokens that the host has not seen yet
        self.row = NO_ROW
        self.node: Node | None = None  # lock in the prefix tree
        self.tree_pages = 0  # of its pages, how many the tree owns: the first ones
        self.cached_tokens = 0  # found in the tree at first admission
        self.arrived_s = 0.0  # on the engine's clock
        self.queued_s: float | None = None  # from then until it was first begun
        self.order = 0  # of admission: the later the larger
        self.passed_over = 0  # times a later request was admitted before it
        self.retractions = 0
        self.constraint: Constraint | None = None  # where it is in its grammar
        # Log-probabilities of prompt tokens, as far as they are there, and the first position whose
        # logits are still to be computed for them.
        self.prompt_logprobs: list[PositionLogprobs] = []
        self.unscored = NOWHERE
        # Of a prompt to encode: positions whose hidden states are pooled, and what came of them.
        self.wanted: range | None = None
        self.vectors: list[np.ndarray] = []
        if params.prompt_logprobs is not None:
            self.unscored = max(params.logprob_start - 1, 0)
            self._skip_scored()

    def lengthen(self) -> None:
        """Be rotated as a long sequence from now on: its keys are of no use to shorter ones."""
        self.is_long = True
        self.namespace += LONG

    @property
    def known(self) -> int:
        """Tokens whose ids the host knows."""
        return len(self.prompt) + len(self.output)

    def go_on(self, output: list[int]) -> None:
        """Take over tokens that were generated elsewhere; with the first one the prompt was told."""
        self.output = output
        if output:
            self.unscored = NOWHERE

    def encode(self, wanted: range) -> None:
        """Ask for hidden states at these positions in place of tokens."""
        self.wanted = wanted

    def pool(self, start: int, end: int) -> tuple[int, int, bool] | None:
        """Of positions [start, end), which are computed now, those that are pooled; none may be left
        when the prompt ends, which the last value says."""
        if self.wanted is None:
            return None
        first, last = max(start, self.wanted.start), min(end, self.wanted.stop)
        ends = end == len(self.prompt)
        return (first, max(first, last), ends) if ends or first < last else None

    def keep(self, start: int, rows: np.ndarray) -> None:
        """Note what was pooled from position `start` on; a prompt that was set back begins anew."""
        assert self.wanted is not None
        if start <= self.wanted.start:
            self.vectors = []
        self.vectors.append(rows)

    def score(self, start: int, end: int) -> tuple[int, int] | None:
        """Of positions [start, end), which are computed now, those whose logits are wanted.

        The logits of a position are about the token after it, so none are wanted of the last one.
        """
        first, last = max(start, self.unscored), min(end, len(self.prompt) - 1)
        if first >= last:
            return None
        self.unscored = last
        self._skip_scored()
        return first, last

    def _skip_scored(self) -> None:
        if self.unscored >= len(self.prompt) - 1:
            self.unscored = NOWHERE

    def tokens(self, start: int, end: int) -> np.ndarray:
        """Known tokens [start, end) as int32."""
        prompt = len(self.prompt)
        if end <= prompt:
            return self.prompt[start:end]
        tail = np.array(self.output[max(start - prompt, 0) : end - prompt], dtype=np.int32)
        return np.concatenate((self.prompt[start:], tail)) if start < prompt else tail
