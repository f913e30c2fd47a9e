"""What a caller may ask of the sampler and of the end of an answer."""

from __future__ import annotations

from typing import Any

import msgspec

from inarch.errors import InvalidRequestError
from inarch.grammar import Grammar

MAX_TOP_LOGPROBS = 20
MAX_STOP_STRINGS = 32
MAX_STOP_CHARACTERS = 1000  # of one stop string
MAX_PATTERN_CHARACTERS = 256  # of one stop_regex
MAX_STOP_TOKENS = 64
MAX_LOGPROB_TOKENS = 1024
MAX_N = 128
MAX_NAMESPACE_CHARACTERS = 512
MAX_TIMEOUT_S = 7 * 86400.0


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Never changes once a request is admitted. Defaults are "off" unless a number says otherwise.

    Randomness is a function of (seed, position): an answer does not depend on its neighbours in the
    batch, on a retraction or on a restart. Without a seed one is drawn at admission.
    """

    max_tokens: int | None = None  # None: up to the context length; 0: the prompt is only computed
    min_tokens: int = 0  # before this many, neither eos nor stop tokens nor stop strings end it
    temperature: float = 1.0  # 0 = greedy
    top_p: float = 1.0
    top_k: int = -1  # -1 = all
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    stop: tuple[str, ...] = ()
    stop_regex: tuple[str, ...] = ()  # ends the answer as soon as its text has a match
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    seed: int | None = None
    n: int = 1
    logprobs: int | None = None  # None = off; k = the chosen token and the k most likely
    prompt_logprobs: int | None = None  # the same for the tokens of the prompt, but for its first
    logprob_start: int = 0  # the first token of the prompt for which prompt_logprobs are wanted
    logprob_token_ids: tuple[int, ...] = ()  # wherever log-probabilities are wanted, of these too
    skip_special_tokens: bool = True
    include_stop: bool = False  # keep the stop string or token in the text
    grammar: Grammar | None = None  # the language that the answer is held to
    encode: bool = False  # wanted is what the model makes of the prompt as a whole: see `encoding`
    second_text: int | None = None  # of a pair of texts: where in the prompt the second one begins

    def check(self, vocab_size: int) -> None:
        """Raise InvalidRequestError naming the first field that is out of its range."""
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InvalidRequestError(
                    f"{name} must be between {low:g} and {high:g}, got {value}", param=name
                )
        if self.top_k == 0 or self.top_k < -1:
            raise InvalidRequestError(
                f"top_k must be -1 (all) or at least 1, got {self.top_k}", param="top_k"
            )
        if self.top_p == 0:
            raise InvalidRequestError("top_p must be above 0, got 0", param="top_p")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidRequestError(
                f"min_tokens ({self.min_tokens}) exceeds max_tokens ({self.max_tokens})",
                param="min_tokens",
            )
        self._check_stops(vocab_size)
        self._check_bias(vocab_size)
        self._check_logprobs(vocab_size)

    def _check_stops(self, vocab_size: int) -> None:
        if len(self.stop) > MAX_STOP_STRINGS:
            raise InvalidRequestError(
                f"at most {MAX_STOP_STRINGS} stop strings, got {len(self.stop)}", param="stop"
            )
        for text in self.stop:
            if not 0 < len(text) <= MAX_STOP_CHARACTERS:
                raise InvalidRequestError(
                    f"a stop string must have 1 to {MAX_STOP_CHARACTERS} characters, got {len(text)}",
                    param="stop",
                )
        self._check_patterns()
        if len(self.stop_token_ids) > MAX_STOP_TOKENS:
            raise InvalidRequestError(
                f"at most {MAX_STOP_TOKENS} stop token ids, got {len(self.stop_token_ids)}",
                param="stop_token_ids",
            )
        check_token_ids(self.stop_token_ids, vocab_size, param="stop_token_ids")

    def _check_patterns(self) -> None:
        if len(self.stop_regex) > MAX_STOP_STRINGS:
            raise InvalidRequestError(
                f"at most {MAX_STOP_STRINGS} patterns of stop_regex, got {len(self.stop_regex)}",
                param="stop_regex",
            )
        for pattern in self.stop_regex:
            if not 0 < len(pattern) <= MAX_PATTERN_CHARACTERS:
                raise InvalidRequestError(
                    f"a stop_regex must have 1 to {MAX_PATTERN_CHARACTERS} characters,"
                    f" got {len(pattern)}",
                    param="stop_regex",
                )

    def _check_logprobs(self, vocab_size: int) -> None:
        ids = self.logprob_token_ids
        if ids and self.logprobs is None and self.prompt_logprobs is None:
            raise InvalidRequestError(
                "logprob_token_ids needs logprobs or prompt_logprobs", param="logprob_token_ids"
            )
        if len(ids) > MAX_LOGPROB_TOKENS:
            raise InvalidRequestError(
                f"at most {MAX_LOGPROB_TOKENS} logprob_token_ids, got {len(ids)}",
                param="logprob_token_ids",
            )
        check_token_ids(ids, vocab_size, param="logprob_token_ids")

    def _check_bias(self, vocab_size: int) -> None:
        check_token_ids(self.logit_bias, vocab_size, param="logit_bias")
        for token, bias in self.logit_bias.items():
            if not -100 <= bias <= 100:
                raise InvalidRequestError(
                    f"logit_bias of token {token} must be between -100 and 100, got {bias}",
                    param="logit_bias",
                )


def encoding(second_text: int | None = None) -> SamplingParams:
    """Ask for the vector (or the scores) of a prompt: nothing is sampled."""
    return SamplingParams(max_tokens=0, encode=True, second_text=second_text)


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How a request is to be served; changes nothing of its answer."""

    priority: int = 0  # higher is sooner
    namespace: str = ""  # of the prefix cache: requests of others share nothing with this one
    timeout_s: float | None = None  # from when it begins; kept by whoever waits for the answer

    def check(self) -> None:
        """Raise InvalidRequestError naming the first field that is out of its range."""
        if not -(2**31) <= self.priority < 2**31:
            raise InvalidRequestError(
                f"priority must be a 32-bit integer, got {self.priority}", param="priority"
            )
        if len(self.namespace) > MAX_NAMESPACE_CHARACTERS:
            raise InvalidRequestError(
                f"the name of a cache namespace has {len(self.namespace)} characters, more than the"
                f" {MAX_NAMESPACE_CHARACTERS} allowed",
                param="cache_salt",
            )
        if self.timeout_s is not None and not 0 < self.timeout_s <= MAX_TIMEOUT_S:
            raise InvalidRequestError(
                f"timeout must be above 0 and at most {MAX_TIMEOUT_S:g} seconds,"
                f" got {self.timeout_s:g}",
                param="timeout",
            )


DEFAULT_TERMS = Terms()

# NaN fails every comparison, so it is refused by the ranges too.
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("max_tokens", 0, 2**31 - 1),
    ("min_tokens", 0, 2**31 - 1),
    ("temperature", 0, 100),
    ("top_p", 0, 1),
    ("top_k", -1, 2**31 - 1),
    ("min_p", 0, 1),
    ("repetition_penalty", 0.01, 100),
    ("frequency_penalty", -2, 2),
    ("presence_penalty", -2, 2),
    ("seed", -(2**63), 2**63 - 1),
    ("n", 1, MAX_N),
    ("logprobs", 0, MAX_TOP_LOGPROBS),
    ("prompt_logprobs", 0, MAX_TOP_LOGPROBS),
    ("logprob_start", 0, 2**31 - 1),
)


def check_token_ids(ids: Any, vocab_size: int, *, param: str) -> None:
    """Raise InvalidRequestError for the first id outside [0, vocab_size)."""
    if not ids or (min(ids) >= 0 and max(ids) < vocab_size):
        return
    for token in ids:
        if not 0 <= token < vocab_size:
            raise InvalidRequestError(
                f"{param}: token id {token} is outside the vocabulary (0..{vocab_size - 1})",
                param=param,
            )
