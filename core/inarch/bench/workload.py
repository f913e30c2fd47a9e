"""What a benchmark asks: a list of requests, made from a seed, equal on every machine.

Arrivals, lengths and prompts are drawn from streams of their own, so that another rate or another
output length leaves the prompts as they were.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from inarch.bench.lengths import Lengths, SharedPrefix, Uniform
from inarch.errors import ConfigError

Prompt = str | tuple[int, ...] | list[dict[str, Any]]  # text, token ids, or chat messages

DEFAULT_REQUESTS = 100
DEFAULT_LENGTH = Uniform(128, 128)

# Nearly every tokenizer holds each of these, with the space before it, as one token: without the
# server's tokenizer, n words are the best guess at n tokens. Reported is what the server counts.
COMMON_WORDS = """
    about above across after again air all also always and animal answer any are arm around ask
    away back ball bank base be bear because bed before best better between big bird black blood
    blue boat body book both box boy bring build but by call can car care carry case cat cause
    center change child city class clear close cold color come common cost could country course
    cover cross cut dark day deep door down draw dream drive dry each early earth easy eat edge
    end even every eye face fact fall family far farm fast father feel few field fill find fine
    fire first fish five floor fly follow food foot form four free friend from full game garden
    get girl give glass go gold good great green ground group grow half hand happy hard have head
    hear heart heat heavy help here high hill hold home horse hot hour house how idea inside iron
    island job join keep kind king know lake land large last late laugh lead learn leave left less
    letter life light like line list listen little live long look lost love low machine make man
    many map mark may mean meet middle mile milk mind minute money month moon more morning most
    mother mountain mouth move much music must name near need never new next night north nose note
    nothing now number of often oil old on one only open order other our out over own page paper
    part pass past pay people person picture piece place plain plan plant play point poor power
    press pretty pull push put question quick quiet rain reach read ready real red rest rich ride
    right ring river road rock room round rule run safe same sand say school sea season seat
    second see seed sell send set seven shape she ship shop short show side sign silver simple
    sing sister sit six size skin sky sleep slow small snow soft some song soon sound south space
    speak spring square stand star start stay step still stone stop store story street strong
    summer sun sure table take talk tall teach ten test than that the there thick thin thing think
    third this three time to today together top touch town track trade train travel tree true try
    turn two under until up use valley very village visit voice wait walk wall want war warm watch
    water wave way wear weather week well west what wheel when where which while white why wide
    wild will wind window winter wish with wood word work world write year
"""
WORDS = tuple(COMMON_WORDS.split())


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """One request: what to ask, how much to generate, and when."""

    index: int
    prompt: Prompt
    input_len: int  # tokens as planned; exact for token ids, an estimate for text
    output_len: int  # tokens
    offset_s: float = 0.0  # not to be sent earlier than this after the start


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadConfig:
    """Which requests to make; None means the default, or with a dataset, what the dataset says."""

    num_requests: int | None = None
    input_len: Lengths | None = None  # own tokens of a prompt, besides a shared prefix
    output_len: Lengths | None = None
    shared_prefix: SharedPrefix | None = None
    dataset: Path | None = None
    request_rate: float = math.inf  # mean arrivals a second (a Poisson process)
    vocab_size: int | None = None  # prompts of random token ids below it; None: of common words
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_requests is not None and self.num_requests < 1:
            raise ConfigError(f"num_requests ({self.num_requests}) is less than 1")
        if not self.request_rate > 0:
            raise ConfigError(
                f"request_rate ({self.request_rate:g}) is not above 0; use inf to send all at once"
            )
        if self.vocab_size is not None and self.vocab_size < 2:
            raise ConfigError(f"vocab_size ({self.vocab_size}) is less than 2")
        unused = (self.input_len, self.shared_prefix, self.vocab_size)
        if self.dataset is not None and any(value is not None for value in unused):
            raise ConfigError(
                "a dataset brings its own prompts: leave out the input length, the shared prefix "
                "and the vocabulary size"
            )

    def as_json(self) -> dict[str, Any]:
        """All fields, in the words of the command line where JSON has none of its own."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("input_len", "output_len", "shared_prefix", "dataset"):
            values[name] = None if values[name] is None else str(values[name])
        if math.isinf(self.request_rate):
            values["request_rate"] = "inf"
        return values

    def describe(self) -> str:
        """One line for people."""
        parts = [f"in {self.dataset or self.input_len or DEFAULT_LENGTH}"]
        if self.shared_prefix:
            parts[0] += f" after shared {self.shared_prefix}"
        if self.dataset is None or self.output_len:
            parts.append(f"out {self.output_len or DEFAULT_LENGTH}")
        if not math.isinf(self.request_rate):
            parts.append(f"{self.request_rate:g} requests/s (Poisson)")
        return " · ".join([*parts, f"seed {self.seed}"])


def synthetic_requests(config: WorkloadConfig) -> list[BenchRequest]:
    """Random prompts of the configured lengths, in order of arrival."""
    count = config.num_requests or DEFAULT_REQUESTS
    input_len, output_len = config.input_len or DEFAULT_LENGTH, config.output_len or DEFAULT_LENGTH
    inputs, outputs = stream(config.seed, "inputs"), stream(config.seed, "outputs")
    offsets = arrival_offsets(count, config.request_rate, config.seed)
    random_prompt = prompt_maker(config.vocab_size)
    prefix_len, prefixes = _shared_prefixes(config, count, random_prompt)
    prompts = stream(config.seed, "prompts")
    requests = []
    for index, (prefix, offset_s) in enumerate(zip(prefixes, offsets, strict=True)):
        length = input_len.sample(inputs)
        prompt = _join(prefix, random_prompt(prompts, length))
        size = prefix_len + length
        requests.append(BenchRequest(index, prompt, size, output_len.sample(outputs), offset_s))
    return requests


def warmup_requests(
    requests: Sequence[BenchRequest], count: int, config: WorkloadConfig
) -> list[BenchRequest]:
    """`count` requests of the same sizes; other prompts, so that no measured one gets cached."""
    rng, random_prompt = stream(config.seed, "warmup"), prompt_maker(config.vocab_size)
    return [
        replace(like, index=index, prompt=random_prompt(rng, like.input_len), offset_s=0.0)
        for index, like in enumerate(itertools.islice(itertools.cycle(requests), count))
    ]


def arrival_offsets(count: int, rate: float, seed: int) -> list[float]:
    """Start times in seconds: a Poisson process of `rate` arrivals a second, or zeros for inf."""
    if math.isinf(rate):
        return [0.0] * count
    rng = stream(seed, "arrivals")
    return list(itertools.accumulate(rng.expovariate(rate) for _ in range(count)))


def stream(seed: int, purpose: str) -> random.Random:
    """A random stream of its own for each purpose; seeding with text is stable across machines."""
    return random.Random(f"{purpose}/{seed}")


PromptMaker = Callable[[random.Random, int], Prompt]


def prompt_maker(vocab_size: int | None) -> PromptMaker:
    """A function from (random stream, tokens) to a random prompt: token ids, or words."""
    if vocab_size is None:
        return lambda rng, length: " ".join(rng.choices(WORDS, k=length))
    # Special tokens (end of text, padding) lie at either end of a vocabulary.
    margin = vocab_size // 100
    ids = range(margin, vocab_size - margin)
    return lambda rng, length: tuple(rng.choices(ids, k=length))


def _shared_prefixes(
    config: WorkloadConfig, count: int, random_prompt: PromptMaker
) -> tuple[int, list[Prompt | None]]:
    """(prefix length, each request's prefix): groups of equal size, in shuffled order."""
    shared = config.shared_prefix
    if shared is None:
        return 0, [None] * count
    rng = stream(config.seed, "prefixes")
    groups = [random_prompt(rng, shared.length) for _ in range(min(shared.groups, count))]
    prefixes: list[Prompt | None] = [groups[i % len(groups)] for i in range(count)]
    rng.shuffle(prefixes)
    return shared.length, prefixes


def _join(prefix: Prompt | None, own: Prompt) -> Prompt:
    if isinstance(prefix, str) and isinstance(own, str):
        return f"{prefix} {own}"
    if isinstance(prefix, tuple) and isinstance(own, tuple):
        return prefix + own
    return own
