"""A model's tokens as a grammar engine needs them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from inarch.engine.text.tokenizer import Tokenizer
from inarch.errors import InvalidRequestError

# Some tokenizers begin every text with a space. Behind one of these they do not.
LEADS = ("", "\n", ".", "a")


class TokenizerVocabulary:
    """See inarch.grammar.Vocabulary. Safe to use from several threads.

    Raises InvalidRequestError if the tokens of the tokenizer have no bytes by themselves.
    """

    def __init__(self, tokenizer: Tokenizer, size: int, eos_token_ids: Sequence[int]) -> None:
        """size: width of the model's logits. eos_token_ids: beside those of the tokenizer."""
        if not tokenizer.spells_bytes:
            raise InvalidRequestError(
                "answers of this model cannot be held to a grammar: its tokenizer is of a kind whose "
                "tokens have no bytes by themselves",
                param="grammar",
            )
        self._tokenizer = tokenizer
        self.size = size
        stops = {*eos_token_ids, *tokenizer.eos_token_ids}
        self.stop_ids = tuple(sorted(token for token in stops if 0 <= token < size))

    @cached_property
    def pieces(self) -> Sequence[bytes]:
        hidden = self._tokenizer.special_ids
        return [b"" if i in hidden else self._tokenizer.token_bytes(i) for i in range(self.size)]

    @cached_property
    def special(self) -> dict[str, int]:
        return {self._tokenizer.token_text(i): i for i in sorted(self._tokenizer.special_ids)}

    def encode(self, text: str) -> Sequence[int]:
        wanted = text.encode()
        for lead in LEADS:
            before = self._tokenizer.encode(lead, add_special_tokens=False) if lead else []
            ids = self._tokenizer.encode(lead + text, add_special_tokens=False)
            found = ids[len(before) :]
            if b"".join(map(self._tokenizer.token_bytes, found)) == wanted:
                return found
        return ()
