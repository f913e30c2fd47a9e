"""How long prompts and answers are: a small language for distributions of lengths.

    128                             always 128
    uniform:64-256                  every length from 64 to 256 is equally likely
    lognormal:220,1.0               mean 220, sigma 1.0 (of the logarithm): many short, a few long
    lognormal:220,1.0,4-2048        the same, cut to 4 ... 2048

and `16x2048` for shared prefixes: 16 groups of requests, each with a prefix of 2048 tokens.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from inarch.errors import ConfigError

LONGEST = 10_000_000  # tokens; a typing error above it would fill the memory
WIDEST_SIGMA = 5.0  # at sigma 5, one length in 6 is more than 148 times the median
TAIL = 10  # a log-normal without limits is cut at this many times its mean

FORMS = "128, uniform:64-256, lognormal:220,1.0 (mean, sigma) or lognormal:220,1.0,4-2048 (limits)"


@dataclass(frozen=True, slots=True)
class Uniform:
    """Lengths from `low` to `high`, both included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        _check_limits(self.low, self.high)

    def sample(self, rng: random.Random) -> int:
        return rng.randint(self.low, self.high)

    def __str__(self) -> str:
        return f"{self.low}" if self.low == self.high else f"uniform:{self.low}-{self.high}"


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Lengths whose logarithm is normal; `mean` is theirs before they are cut to the limits."""

    mean: float
    sigma: float
    low: int
    high: int

    def __post_init__(self) -> None:
        _check_limits(self.low, self.high)
        if not 0 < self.mean <= LONGEST:
            raise ConfigError(f"the mean {self.mean:g} is not between 0 and {LONGEST}")
        if not 0 <= self.sigma <= WIDEST_SIGMA:
            raise ConfigError(f"sigma {self.sigma:g} is not between 0 and {WIDEST_SIGMA:g}")

    def sample(self, rng: random.Random) -> int:
        mu = math.log(self.mean) - self.sigma**2 / 2
        return max(self.low, min(self.high, round(rng.lognormvariate(mu, self.sigma))))

    def __str__(self) -> str:
        mean, sigma = (repr(value).removesuffix(".0") for value in (self.mean, self.sigma))
        return f"lognormal:{mean},{sigma},{self.low}-{self.high}"


Lengths = Uniform | LogNormal


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """Requests fall into `groups`; those of one group begin with the same `length` tokens."""

    groups: int
    length: int

    def __str__(self) -> str:
        return f"{self.groups}x{self.length}"


def parse_lengths(text: str) -> Lengths:
    """Read a distribution of lengths; ConfigError names what is wrong and the accepted forms."""
    kind, colon, rest = text.strip().partition(":")
    try:
        if not colon:
            return Uniform(int(kind), int(kind))
        if kind == "uniform":
            return Uniform(*_parse_limits(rest))
        if kind == "lognormal":
            return _parse_lognormal(rest)
        raise ConfigError(f"{kind!r} is no distribution")
    except ConfigError as error:
        reason = str(error)
    except ValueError:
        reason = "it does not parse"
    raise ConfigError(f"bad length {text!r}: {reason}; write {FORMS}")


def parse_shared_prefix(text: str) -> SharedPrefix:
    """Read GROUPSxLENGTH, such as 16x2048."""
    groups, _, length = text.strip().partition("x")
    try:
        prefix = SharedPrefix(int(groups), int(length))
    except ValueError:
        prefix = SharedPrefix(0, 0)
    if not (1 <= prefix.groups <= LONGEST and 1 <= prefix.length <= LONGEST):
        raise ConfigError(
            f"bad shared prefix {text!r}: write GROUPSxTOKENS, such as 16x2048, "
            f"with both between 1 and {LONGEST}"
        )
    return prefix


def _parse_lognormal(text: str) -> LogNormal:
    mean_text, sigma_text, *limits = text.split(",")
    mean, sigma = float(mean_text), float(sigma_text)
    if not limits:
        tail = min(mean * TAIL, LONGEST)
        return LogNormal(mean, sigma, 1, max(1, round(tail) if tail > 0 else 1))
    (limits_text,) = limits
    return LogNormal(mean, sigma, *_parse_limits(limits_text))


def _parse_limits(text: str) -> tuple[int, int]:
    low, high = text.split("-")
    return int(low), int(high)


def _check_limits(low: int, high: int) -> None:
    if not 1 <= low <= high <= LONGEST:
        span = f"{low}" if low == high else f"{low}-{high}"
        raise ConfigError(f"{span} is not between 1 and {LONGEST}, smaller number first")
