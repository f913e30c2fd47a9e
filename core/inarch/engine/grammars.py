"""Grammars are compiled in threads, beside the step loop, and kept for the next request.

Nothing is imported or read before the first grammar comes: not the engines' libraries, and not the
tokenizer, which the engine process needs for nothing else.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from inarch.errors import ConfigError, InvalidRequestError
from inarch.grammar import Compiled, Compiler, Grammar, GrammarEngine, Kind, Vocabulary

THREADS = 2
KEPT = 256  # compiled grammars


NO_END = (
    "this model names no token that ends an answer, without which none can be held to a grammar: set"
    " eos_token_id in its generation_config.json"
)


class Grammars:
    """Compiles with the first engine that can enforce a grammar to the letter."""

    def __init__(
        self,
        engines: Sequence[GrammarEngine],
        vocabulary: Callable[[], Vocabulary],
        vocab_size: int,
    ) -> None:
        """vocabulary: called once, in a thread, when the first grammar comes. vocab_size: of the
        logits, known without it."""
        self.vocab_size = vocab_size
        self._engines = engines
        self._make_vocabulary = vocabulary
        self._vocabulary: Vocabulary | None = None
        self._compilers: dict[str, Compiler] = {}
        self._opening = threading.Lock()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="grammar")
        self._compiled: OrderedDict[tuple[str, str], Future[Compiled]] = OrderedDict()

    def compile(self, grammar: Grammar) -> Future[Compiled]:
        """The compiled grammar, in a while. Raises InvalidRequestError there."""
        key = (grammar.kind, grammar.source)
        future = self._compiled.get(key)
        if future is None:
            future = self._compiled[key] = self._pool.submit(self._compile, grammar)
            if len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        return future

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds of grammars that some engine knows."""
        return tuple(sorted({kind for engine in self._engines for kind in engine.kinds}))

    @property
    def end_ids(self) -> Sequence[int]:
        """Tokens that end an answer, known when a grammar has been compiled."""
        return self._vocabulary.stop_ids if self._vocabulary is not None else ()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _compile(self, grammar: Grammar) -> Compiled:
        able = [engine for engine in self._engines if grammar.kind in engine.kinds]
        refusals: dict[str, None] = {}  # an ordered set
        for engine in able:
            try:
                return self._compiler(engine).compile(grammar)
            except InvalidRequestError as error:
                refusals[str(error)] = None
        if not able:
            raise InvalidRequestError(_nothing_for(grammar, self._engines), param="grammar")
        raise InvalidRequestError("; ".join(refusals), param="grammar")

    def _compiler(self, engine: GrammarEngine) -> Compiler:
        with self._opening:
            if self._vocabulary is None:
                self._vocabulary = self._make_vocabulary()
            if not self._vocabulary.stop_ids:
                raise InvalidRequestError(NO_END, param="grammar")
            if engine.name not in self._compilers:
                self._compilers[engine.name] = engine.open(self._vocabulary)
            return self._compilers[engine.name]


def choose_engines(engines: Sequence[GrammarEngine], wanted: str | None) -> list[GrammarEngine]:
    """The one that the user named, or all that can be opened. Raises ConfigError."""
    if wanted is None:
        return [engine for engine in engines if not engine.missing()]
    for engine in engines:
        if engine.name == wanted:
            if missing := engine.missing():
                raise ConfigError(f"--grammar-engine {wanted} cannot be used: {missing}")
            return [engine]
    known = ", ".join(engine.name for engine in engines) or "none is installed"
    raise ConfigError(f"--grammar-engine {wanted}: no such engine; known are: {known}")


def _nothing_for(grammar: Grammar, engines: Sequence[GrammarEngine]) -> str:
    if not engines:
        return "this server has no grammar engine: `pip install llguidance` and start it again"
    names = ", ".join(engine.name for engine in engines)
    return f"no grammar engine of this server ({names}) knows grammars of the kind {grammar.kind}"
