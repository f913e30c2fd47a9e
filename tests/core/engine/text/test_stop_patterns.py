"""stop_regex: the answer ends at the first match, wherever tokens are cut, and nothing is lost."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inarch.engine.text.detokenizer import Detokenizer
from inarch.engine.text.stop_patterns import MatchingBudget, StopPatterns
from inarch.errors import InvalidRequestError
from inarch.sampling import SamplingParams

PATTERNS = [
    "ab", "a+b", "a?ba", "b{2,3}", "(ab|ba)c", "[^a]c", "a.*c", "a.*?c", "(a|b)+c", "(?<=a)b",
    "(?<!a)b", r"\bc", "a(?=b)", "a(?!b)", "c$", r"^ab", r"(a)\1", "a(b|)c", "(?i)AB",
]  # fmt: skip
TEXTS = st.text("abc \n", max_size=24)


class Characters:
    """Text that comes as it is given, as a stand-in for tokens: ids are code points."""

    def feed(self, token_ids: Sequence[int]) -> str:
        return "".join(map(chr, token_ids))

    def flush(self) -> str:
        return ""


def chunks(text: str, cuts: Sequence[int]) -> list[str]:
    places = sorted({cut for cut in cuts if cut < len(text)} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(places)]


def read(pieces: Sequence[str], **options: object) -> tuple[list[str], str | None]:
    """What is sent for each piece, and the pattern or string that ended the answer."""
    detokenizer = Detokenizer(Characters(), **options)  # type: ignore[arg-type]
    sent = [detokenizer.push(list(map(ord, piece))) for piece in pieces]
    if detokenizer.matched is None:
        sent.append(detokenizer.finish())
    return sent, detokenizer.matched


def by_brute_force(text: str, patterns: Sequence[str], stops: Sequence[str] = ()) -> str:
    """The standard library on every beginning of the text, shortest first."""
    for end in range(1, len(text) + 1):
        found = [m.start() for p in patterns if (m := re.search(p, text[:end]))]
        found += [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: min(found)]
    return text


@given(
    TEXTS, st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3), st.lists(st.integers(0, 24))
)
def test_the_text_ends_before_the_first_match_however_it_is_cut(
    text: str, patterns: list[str], cuts: list[int]
) -> None:
    sent, matched = read(chunks(text, cuts), patterns=patterns)
    expected = by_brute_force(text, patterns)
    assert "".join(sent) == expected
    assert (matched is None) == (expected == text and not any(re.search(p, text) for p in patterns))


@given(
    TEXTS,
    st.sampled_from(PATTERNS),
    st.sampled_from(["ba", "cab", "b"]),
    st.lists(st.integers(0, 24)),
)
def test_stop_strings_and_patterns_work_beside_each_other(
    text: str, pattern: str, stop: str, cuts: list[int]
) -> None:
    sent, _ = read(chunks(text, cuts), patterns=[pattern], stop=[stop])
    assert "".join(sent) == by_brute_force(text, [pattern], [stop])


@pytest.mark.parametrize(("stop", "pattern", "longer"), [("ab", "b", "ab"), ("b", "a?b", "a?b")])
def test_of_a_string_and_a_match_that_end_together_the_longer_ends_the_answer(
    stop: str, pattern: str, longer: str
) -> None:
    sent, matched = read(["xa", "b"], patterns=[pattern], stop=[stop])
    assert ("".join(sent), matched) == ("x", longer)


def test_what_may_become_a_stop_string_is_held_back_whatever_a_pattern_may_become() -> None:
    sent, matched = read(["xb", "a"], patterns=["z"], stop=["ba"])
    assert (sent, matched) == (["x", ""], "ba")
    sent, matched = read(["xcb", "z"], patterns=["cbz"], stop=["ba"])
    assert (sent, matched) == (["x", ""], "cbz")


def test_what_cannot_become_a_match_any_more_is_sent_at_once() -> None:
    sent, matched = read(["a1", "2", "x", "b9", "c", "d"], patterns=[r"\d+y", "cd"])
    assert (sent, matched) == (["a", "", "12x", "b", "9", ""], "cd")


def test_the_match_may_be_kept() -> None:
    sent, matched = read(["one 1", "2. two"], patterns=[r"\d+\."], include_stop=True)
    assert ("".join(sent), matched) == ("one 12.", r"\d+\.")


def test_a_match_that_comes_before_min_tokens_is_ordinary_text() -> None:
    detokenizer = Detokenizer(Characters(), patterns=["a+"])
    assert detokenizer.push([97, 97], check_stops=False) == "aa"
    assert detokenizer.push([98, 97]) == "b"
    assert detokenizer.matched == "a+"


def test_a_pattern_that_takes_too_long_is_an_error_and_soon() -> None:
    began = time.process_time()
    with pytest.raises(InvalidRequestError, match="takes too long"):
        read(["abab abab "] * 20, patterns=[r"(\w|\w\w|\s)+[!?]$"])
    assert time.process_time() - began < 5


def test_the_answers_of_one_request_take_no_longer_than_one_of_them() -> None:
    budget, began = MatchingBudget(), time.process_time()
    for _ in range(40):
        with pytest.raises(InvalidRequestError, match="takes too long"):
            read(["abab abab "] * 20, patterns=[r"(\w|\w\w|\s)+[!?]$"], budget=budget)
    assert time.process_time() - began < 5


def test_a_longer_answer_may_take_longer() -> None:
    budget = MatchingBudget()
    patterns = StopPatterns(["x"], budget)
    before = budget.left_s
    patterns.add("a" * 10_000)
    assert budget.left_s >= before + 0.5


def ask_for(pattern: str) -> None:
    SamplingParams(stop_regex=(pattern,)).check(10)
    Detokenizer(Characters(), patterns=[pattern])


@pytest.mark.parametrize("pattern", ["(", "[", "*", "", "a*", "a*|b", "^", "x" * 257])
def test_what_is_no_pattern_or_matches_nothing_at_all_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        ask_for(pattern)
    assert refused.value.param == "stop_regex"


def test_there_may_not_be_too_many_patterns() -> None:
    with pytest.raises(InvalidRequestError, match="at most 32"):
        SamplingParams(stop_regex=("a",) * 33).check(10)
