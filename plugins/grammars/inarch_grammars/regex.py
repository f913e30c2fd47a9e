"""Which regular expressions xgrammar reads as everyone else does.

It passes over anchors within an expression, lets `.` match the end of a line, and knows letters of ASCII
alone, so that what is not a letter is too much. Everything but these is common to all dialects.
"""

from __future__ import annotations

import re
import re._constants as codes  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
from typing import Any

from inarch_grammars.refusal import refuse

PLAIN = frozenset({codes.LITERAL, codes.NOT_LITERAL, codes.RANGE, codes.NEGATE})
CATEGORIES = frozenset({codes.CATEGORY_DIGIT, codes.CATEGORY_SPACE, codes.CATEGORY_WORD})
MOST_REPEATS = 1000


def check(source: str) -> None:
    """Raise InvalidRequestError for what xgrammar would read otherwise."""
    try:
        parsed = parser.parse(source)
    except (re.error, RecursionError, OverflowError) as error:
        raise refuse("the regex", str(error)) from None
    items = list(parsed)
    if parsed.state.flags & ~re.UNICODE:
        raise refuse("the regex", "xgrammar knows no flags")
    if items and items[0] == (codes.AT, codes.AT_BEGINNING):
        items = items[1:]
    if items and items[-1] == (codes.AT, codes.AT_END):
        items = items[:-1]
    _check(items, 1)


def _check(items: list[tuple[Any, Any]], repeats: int) -> None:
    """repeats: how often the items may come, at most, by what is around them."""
    for code, value in items:
        if code in PLAIN or (code == codes.CATEGORY and value in CATEGORIES):
            continue
        many = repeats
        if code in (codes.MAX_REPEAT, codes.MIN_REPEAT):
            low, high, _ = value
            many *= max(low, 1 if high is codes.MAXREPEAT else high, 1)
        if many > MOST_REPEATS:
            raise refuse("the regex", f"more than {MOST_REPEATS} repetitions")
        for inner in _inside(code, value):
            _check(inner, many)


def _inside(code: Any, value: Any) -> list[list[tuple[Any, Any]]]:
    """The parts of an expression."""
    match code:
        case codes.IN:
            negated = value[0][0] == codes.NEGATE
            if negated and any(one == codes.CATEGORY for one, _ in value):
                raise refuse("the regex", "xgrammar reads a class within [^...] as ASCII")
            return [value]
        case codes.BRANCH:
            return [list(branch) for branch in value[1]]
        case codes.SUBPATTERN if not value[1] and not value[2]:
            return [list(value[3])]
        case codes.MAX_REPEAT | codes.MIN_REPEAT:
            return [list(value[2])]
    raise refuse("the regex", f"xgrammar does not enforce {str(code).lower()}")
