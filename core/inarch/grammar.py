"""What an answer may be held to, and what a grammar engine must give so that it is.

A grammar engine is a plugin (hook `inarch_grammar_engines`). It knows token ids and text, and no
model, device or request: the core asks it which tokens may come next, and tells it which one came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    import numpy as np

Kind = Literal["json_object", "json_schema", "regex", "ebnf", "structural_tag"]


class Grammar(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A language to which an answer is held.

    source: a JSON schema or a structural tag as JSON text, a regular expression which the whole
    answer matches, or an EBNF grammar in GBNF's notation with the start symbol `root`; "" for
    json_object, which is any JSON object.
    after: the answer is free until these tokens have come, one after the other (the end of a
    model's reasoning), and held to the language behind them; () holds it from its first token.
    """

    kind: Kind
    source: str = ""
    after: tuple[int, ...] = ()


class Vocabulary(Protocol):
    """The tokens of a model, as an engine needs them."""

    @property
    def size(self) -> int:
        """Width of the logits: ids at or above `len(pieces)` are padding, never allowed."""

    @property
    def pieces(self) -> Sequence[bytes]:
        """Bytes of each token; b"" for special ones, which no grammar's text can spell."""

    @property
    def special(self) -> dict[str, int]:
        """Special tokens by their text, for grammars that name them."""

    @property
    def stop_ids(self) -> Sequence[int]:
        """Tokens that end an answer: allowed where the grammar may end."""

    def encode(self, text: str) -> Sequence[int]:
        """How the model's own tokenizer cuts a text in the midst of an answer; special tokens in it
        become their ids. () if its tokens do not spell the text exactly."""


@runtime_checkable
class GrammarEngine(Protocol):
    """Compiles grammars. Made once; `open` is called in the engine process alone."""

    name: str
    kinds: frozenset[Kind]

    def missing(self) -> str:
        """What must be installed before it can be opened, "" if nothing; answers at once."""

    def open(self, vocabulary: Vocabulary) -> Compiler:
        """Prepare for a vocabulary; may take a second."""


class Compiler(Protocol):
    """Called from several threads at once."""

    def compile(self, grammar: Grammar) -> Compiled:
        """Raises InvalidRequestError if the grammar is malformed, or cannot be enforced to the letter:
        the message says which part."""


class Compiled(Protocol):
    def matcher(self) -> Matcher:
        """A new matcher at the grammar's beginning; cheap."""


class Matcher(Protocol):
    """One answer on its way through a grammar. Used by one thread at a time."""

    def fill(self, bitmask: np.ndarray) -> None:
        """Write which tokens may come next: bit i % 32 of word i // 32 of `bitmask` [words] int32."""

    def accept(self, token: int) -> bool:
        """Go on by a token; False, and nothing changes, if the grammar forbids it."""

    def forced(self) -> Sequence[int]:
        """Tokens of which `fill` would allow each as the only one, one after the other."""

    @property
    def finished(self) -> bool:
        """Whether nothing but the end may follow, or it has come."""
