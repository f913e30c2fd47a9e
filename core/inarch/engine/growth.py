"""How much memory admission keeps free for what running requests will still produce."""

from __future__ import annotations

START, LOW, RISE, FALL = 0.4, 0.05, 0.25, 0.001


class GrowthEstimate:
    """A share of the tokens that requests may still produce: most end long before their limit.

    It rises when memory ran short, so that fewer are admitted, and falls slowly otherwise.
    """

    def __init__(self, page_tokens: int) -> None:
        self._page_tokens = page_tokens
        self._share = START

    def pages(self, tokens: int) -> int:
        """Pages to keep for up to `tokens` further tokens."""
        return int(self._share * tokens) // self._page_tokens

    def ran_short(self) -> None:
        self._share = min(1.0, self._share + RISE)

    def step_done(self) -> None:
        self._share = max(LOW, self._share - FALL)
