"""How an answer is held to its grammar, with a grammar engine whose languages are lists of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from inarch.engine.constraint import Constraint
from inarch.engine.grammars import KEPT, Grammars
from inarch.errors import InvalidRequestError
from inarch.grammar import Compiled, Compiler, Grammar, GrammarEngine, Kind, Matcher, Vocabulary

END, WORDS = 40, 2  # 64 tokens


@dataclass
class Spelled(Matcher, Compiled):
    """One place after the other, at each of which one of some tokens comes; then the end."""

    places: list[set[int]]
    at: int = 0

    def matcher(self) -> Spelled:
        return Spelled(self.places)

    def allowed(self) -> set[int]:
        return self.places[self.at] if self.at < len(self.places) else {END}

    def fill(self, bitmask: np.ndarray) -> None:
        bitmask[:] = mask_of(self.allowed())

    def accept(self, token: int) -> bool:
        if token == 63:
            raise OSError("a fault of the plugin")
        fits = token in self.allowed()
        self.at += fits
        return fits

    def forced(self) -> list[int]:
        ahead = []
        for place in self.places[self.at :]:
            if len(place) > 1:
                break
            ahead += place
        return ahead

    @property
    def finished(self) -> bool:
        return self.at >= len(self.places)


@dataclass
class Speller(GrammarEngine, Compiler):
    """A source is places as words, and the tokens of a place are parted by bars."""

    name: str
    kinds: frozenset[Kind]
    refuses: str = ""

    def missing(self) -> str:
        return ""

    def open(self, vocabulary: Vocabulary) -> Speller:
        return self

    def compile(self, grammar: Grammar) -> Spelled:
        if self.refuses:
            raise InvalidRequestError(self.refuses)
        return spelled(grammar.source if grammar.kind == "regex" else "1 2")


class SomeVocabulary(Vocabulary):
    size, pieces, special, stop_ids = 64, (), {}, (END,)  # type: ignore[assignment]

    def encode(self, text: str) -> Sequence[int]:
        return ()


def spelled(source: str) -> Spelled:
    return Spelled([set(map(int, place.split("|"))) for place in source.split()])


def mask_of(tokens: set[int]) -> np.ndarray:
    words = np.zeros(WORDS, dtype=np.uint32)
    for token in tokens:
        words[token // 32] |= np.uint32(1 << token % 32)
    return words.view(np.int32)


def next_ones(constraint: Constraint, banned: Sequence[int] = ()) -> set[int]:
    """Tokens that may come next."""
    words = np.full(WORDS, 7, dtype=np.int32)  # whatever was there before
    constraint.fill(words, banned)
    return {token for token in range(64) if int(words[token // 32]) >> token % 32 & 1}


def held(
    source: str, after: tuple[int, ...] = (), *, ends: tuple[int, ...] = (END,), eos: bool = True
) -> Constraint:
    grammar = Grammar(kind="regex", source=source, after=after)
    return Constraint(grammar, spelled(source), ends, ignore_eos=not eos)


def test_an_answer_goes_through_its_grammar_and_ends_where_it_does() -> None:
    constraint = held("1|2 3")
    output: list[int] = []
    told = []
    for token, allowed in ((2, {1, 2}), (3, {3}), (END, {END})):
        assert next_ones(constraint) == allowed
        output.append(token)
        told.append(constraint.advance(output))
    assert told == [None, None, "stop"]


def test_without_a_token_for_the_end_it_ends_with_the_last_one() -> None:
    constraint = held("1 2", ends=())
    assert [constraint.advance([1]), constraint.advance([1, 2])] == [None, "stop"]


def test_it_is_free_until_all_of_what_comes_before_has_come() -> None:
    constraint = held("1 2", after=(8, 9))
    output: list[int] = []
    for token in (7, 9, 8, 7, 8):
        output.append(token)
        assert constraint.advance(output) is None
        assert next_ones(constraint) == set(range(64))
        assert not constraint.forced()
    assert next_ones(constraint, banned=[4]) == set(range(64)) - {4}
    assert constraint.advance([*output, 9]) is None
    assert next_ones(constraint) == {1}
    assert constraint.forced() == [1, 2]


def test_an_end_that_is_put_off_stays_where_nothing_else_may_come() -> None:
    free, forced = f"1|{END}|50", f"{END}"
    for banned, left in (((), {1, 50}), ((50,), {1}), ((1, 50), {1, 50, END})):
        constraint = held(free, eos=False)
        assert next_ones(constraint, banned) == left
    assert next_ones(held(free), (50,)) == {1, END}
    assert next_ones(held(forced, eos=False)) == {END}


@pytest.mark.parametrize("token", [4, 63])
def test_a_token_that_the_engine_forbids_or_chokes_on_fails_the_answer(token: int) -> None:
    constraint = held("1|2 3")
    assert constraint.advance([token]) == "failed"
    with pytest.raises(RuntimeError, match="not of the grammar"):
        held("1|2 3").follow([1, token])


def test_an_answer_begun_elsewhere_is_taken_over_where_it_stands() -> None:
    constraint = held("1|2 3|4 5", after=(9,))
    constraint.follow([1, 9, 2, 4])
    assert next_ones(constraint) == {5}


def grammars(*engines: Speller) -> Grammars:
    return Grammars(engines, SomeVocabulary, 64)


def regex(source: str) -> Grammar:
    return Grammar(kind="regex", source=source)


def test_the_first_engine_that_can_holds_an_answer_and_all_refusals_are_told() -> None:
    kinds: frozenset[Kind] = frozenset({"regex"})
    no, nor = Speller("no", kinds, "no loops"), Speller("nor", kinds, "no words")
    yes = Speller("yes", kinds)
    compiling = grammars(no, yes, nor)
    assert compiling.compile(regex("5")).result().matcher().forced() == [5]
    compiling.close()
    refusing = grammars(no, nor)
    with pytest.raises(InvalidRequestError, match="no loops; no words"):
        refusing.compile(regex("5")).result()
    refusing.close()


def test_a_grammar_is_kept_for_the_next_request_and_the_one_unused_longest_is_forgotten() -> None:
    compiling = grammars(Speller("any", frozenset({"regex", "ebnf"})))
    first, second = (compiling.compile(regex(source)) for source in ("1", "2"))
    other = compiling.compile(Grammar(kind="ebnf", source="1"))
    assert other.result().matcher().forced() == [1, 2], "another kind is another grammar"
    for number in range(3, KEPT):
        compiling.compile(regex(str(number)))
    assert compiling.compile(regex("1")) is first
    compiling.compile(regex("900"))
    assert compiling.compile(regex("1")) is first
    assert compiling.compile(regex("2")) is not second
    compiling.close()
