"""What a grammar's author is told when it cannot be enforced."""

from __future__ import annotations

from inarch.errors import InvalidRequestError

MOST_CHARACTERS = 256 * 1024  # of a grammar
MOST_REASON = 400  # characters of what a library says


def refuse(what: str, why: str) -> InvalidRequestError:
    """An error to raise: `what` is the part of the grammar, such as "the JSON schema at #/items"."""
    reason = " ".join(why.split())
    if len(reason) > MOST_REASON:
        reason = reason[:MOST_REASON] + " …"
    return InvalidRequestError(f"{what}: {reason}")


def check_size(source: str) -> None:
    if len(source) > MOST_CHARACTERS:
        raise refuse(
            "the grammar is too large", f"{len(source)} characters, the limit is {MOST_CHARACTERS}"
        )
