"""The llguidance engine (github.com/guidance-ai/llguidance): nothing is compiled ahead, nothing loosened.

It refuses what it does not know of a schema. Structural tags are rewritten in its own Lark dialect.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from inarch.grammar import Compiled, Compiler, Grammar, Kind, Matcher, Vocabulary
from inarch_grammars import lark
from inarch_grammars.forced import ForcedMatcher, Forcing
from inarch_grammars.refusal import check_size, refuse
from inarch_grammars.schema import read_schema

if TYPE_CHECKING:
    import llguidance

NOT_UNICODE = b"\xff"  # how the library is told that a token is special


class LlguidanceEngine:
    name = "llguidance"
    kinds: frozenset[Kind] = frozenset(
        {"json_object", "json_schema", "regex", "ebnf", "structural_tag"}
    )

    def missing(self) -> str:
        return "" if importlib.util.find_spec("llguidance") else "`pip install llguidance` first"

    def open(self, vocabulary: Vocabulary) -> Compiler:
        return LlguidanceCompiler(vocabulary)


class LibraryTokenizer:
    """The vocabulary as the library wants it."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        names = {token: text for text, token in vocabulary.special.items()}
        self.tokens = [
            piece or NOT_UNICODE + names.get(i, f"<|inarch_{i}|>").encode()
            for i, piece in enumerate(vocabulary.pieces)
        ]
        self.special_token_ids = [i for i, piece in enumerate(vocabulary.pieces) if not piece]
        self.eos_token_id = next(iter(vocabulary.stop_ids), 0)
        self._vocabulary = vocabulary

    def __call__(self, text: bytes | str) -> list[int]:
        return list(self._vocabulary.encode(text if isinstance(text, str) else text.decode()))


class LlguidanceCompiler:
    def __init__(self, vocabulary: Vocabulary) -> None:
        import llguidance

        self._library = llguidance
        self._vocabulary = vocabulary
        self._forcing = Forcing(vocabulary)
        self._tokenizer = llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(LibraryTokenizer(vocabulary)),
            n_vocab=vocabulary.size,
            eos_token=list(vocabulary.stop_ids),
        )

    def compile(self, grammar: Grammar) -> Compiled:
        check_size(grammar.source)
        text = self._grammar(grammar)
        matcher = self._library.LLMatcher(self._tokenizer, text, log_level=0)
        if error := matcher.get_error():
            raise refuse(f"the {grammar.kind.replace('_', ' ')}", _message(error))
        return LlguidanceCompiled(matcher, self)

    def matcher(self, first: llguidance.LLMatcher) -> Matcher:
        automaton = LlguidanceAutomaton(first.deep_copy(), self._vocabulary.stop_ids)
        return ForcedMatcher(automaton, self._forcing)

    def _grammar(self, grammar: Grammar) -> str:
        """The grammar as the library takes it."""
        library: Any = self._library.LLMatcher
        text: str
        match grammar.kind:
            case "json_object":
                schema = lark.with_options({"type": "object"})
                text = library.grammar_from_json_schema(json.dumps(schema))
            case "json_schema":
                schema = lark.with_options(read_schema(grammar.source))
                text = library.grammar_from_json_schema(json.dumps(schema))
            case "regex":
                text = library.grammar_from_lark(f"start: {lark.regex(grammar.source)}")
            case "ebnf":
                text = library.grammar_from_lark(lark.from_gbnf(grammar.source))
            case "structural_tag":
                written = lark.from_tags(grammar.source, self._vocabulary.special)
                text = library.grammar_from_lark(written)
        return text


class LlguidanceCompiled:
    def __init__(self, first: llguidance.LLMatcher, compiler: LlguidanceCompiler) -> None:
        self._first, self._compiler = first, compiler

    def matcher(self) -> Matcher:
        return self._compiler.matcher(self._first)


class LlguidanceAutomaton:
    """See inarch_grammars.forced.Automaton."""

    def __init__(self, matcher: llguidance.LLMatcher, stop_ids: Sequence[int]) -> None:
        self._matcher = matcher
        self._stop_ids = stop_ids
        self._ended = False

    def fill(self, bitmask: np.ndarray) -> None:
        # `ctypes.data` takes as long as the mask.
        address = bitmask.__array_interface__["data"][0]
        self._matcher.unsafe_compute_mask_ptr(address, bitmask.nbytes)
        if self._matcher.is_error():
            raise RuntimeError(self._matcher.get_error())

    def accept(self, token: int) -> bool:
        if self._ended:
            return False
        if token in self._stop_ids:
            self._ended = self._matcher.is_accepting()
            return self._ended
        return bool(self._matcher.try_consume_tokens([token]) == 1)

    def acceptable(self, tokens: Sequence[int]) -> int:
        return int(self._matcher.validate_tokens(list(tokens)))

    def text(self) -> str:
        forced: bytes = self._matcher.compute_ff_bytes()  # b"" after an error, which `fill` tells
        return forced.decode(errors="ignore")

    @property
    def finished(self) -> bool:
        return self._ended or bool(self._matcher.is_stopped())


def _message(error: str) -> str:
    return error.strip().splitlines()[0] if error.strip() else "unknown error"
