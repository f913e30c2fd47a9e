"""What was seen of one request. The definitions of the latencies live here, once.

    TTFT    time to first token: from sending the request to its first text event
    ITL     inter-token latency: the gaps between successive text events of a request
    TPOT    time per output token: (last - first text event) / (output tokens - 1)
    E2E     from sending the request to its last text event

A server may merge several tokens into one event: then ITL is that of events, and TPOT compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Record:
    """One request's times, in seconds after the start of the run, and its token counts."""

    index: int
    due_s: float  # when the workload wanted it sent
    sent_s: float
    text_s: tuple[float, ...]  # when each piece of text arrived
    input_tokens: int
    output_tokens: int
    wanted_tokens: int
    counted: bool = True  # the server told the token counts; else they are guesses
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None and len(self.text_s) > 0

    @property
    def ttft_s(self) -> float:
        return self.text_s[0] - self.sent_s

    @property
    def e2e_s(self) -> float:
        return self.text_s[-1] - self.sent_s

    @property
    def tpot_s(self) -> float | None:
        """None for an answer of one token, which has no next."""
        if self.output_tokens < 2:
            return None
        return (self.text_s[-1] - self.text_s[0]) / (self.output_tokens - 1)

    @property
    def gaps_s(self) -> list[float]:
        return [b - a for a, b in pairwise(self.text_s)]
