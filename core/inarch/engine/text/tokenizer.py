"""Text to token ids and back, with the chat template: all that a front end needs of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from inarch.engine.text.chat_template import ChatTemplate, given_template, read_templates
from inarch.engine.text.detokenizer import ByteText, Detokenizer, TextSource, WindowText
from inarch.engine.text.stop_patterns import MatchingBudget
from inarch.engine.text.token_bytes import TokenBytes, spelling_of
from inarch.engine.text.tokenizer_files import id_of, read_tokenizer_files
from inarch.errors import InvalidRequestError


class Tokenizer:
    """The tokenizer of a model folder. Immutable and safe to call from several threads.

    Encoding long text releases the GIL: servers do it in a thread pool.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        special_tokens: Mapping[str, str],
        eos_token_ids: Sequence[int],
        chat_template: ChatTemplate,
    ) -> None:
        """special_tokens: role -> text, such as "bos_token": "<s>"."""
        self._backend = backend
        self._chat_template = chat_template
        added = backend.get_added_tokens_decoder().items()
        self.special_ids = frozenset(token_id for token_id, token in added if token.special)
        self.special_texts = tuple(token.content for _, token in added if token.special)
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)
        self.bos_token_id: int | None = id_of(backend, special_tokens.get("bos_token"))
        self.eos_token_ids = tuple(eos_token_ids)
        spelling = spelling_of(backend.decoder)
        self._bytes = None if spelling is None else TokenBytes(backend, spelling)
        self._visible_bytes = (
            None if spelling is None else TokenBytes(backend, spelling, hidden=self.special_ids)
        )

    @classmethod
    def load(cls, folder: Path, *, chat_template: str | None = None) -> Tokenizer:
        """Read the tokenizer of a model folder.

        `chat_template` is a file, or the template itself, to use instead of the model's. Raises
        ModelError if the folder has no usable tokenizer, ConfigError for a bad `chat_template`.
        """
        files = read_tokenizer_files(folder)
        if chat_template:
            templates = given_template(chat_template)
        else:
            templates = read_templates(folder, files.config)
        return cls(
            files.backend,
            special_tokens=files.special_tokens,
            eos_token_ids=files.eos_token_ids,
            chat_template=ChatTemplate(templates, files.special_tokens),
        )

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`; special tokens in it become their ids.

        add_special_tokens puts what the model expects around a text, such as a leading BOS. A
        rendered chat template has these already: encode it with False.
        """
        try:
            # Unlike `encode`, the batch call releases the GIL, and spares the offsets.
            (encoded,) = self._backend.encode_batch_fast(
                [text], add_special_tokens=add_special_tokens
            )
        except TypeError:  # tokenizers' word for text that is not Unicode
            raise InvalidRequestError(_not_unicode(text)) from None
        ids: list[int] = encoded.ids
        return ids

    def encode_pair(
        self, first: str, second: str, most: int | None = None
    ) -> tuple[list[int], int | None]:
        """Token ids of two texts as one prompt, and where in it the tokens of the second type begin.

        None: the tokenizer does not tell them apart. most: tokens to which the second text is cut.
        """
        try:
            encoded = self._backend.encode(first, second)
        except TypeError:
            raise InvalidRequestError(_not_unicode(first + second)) from None
        kept = list(range(len(encoded.ids)))
        if most is not None and len(kept) > most:
            second_text = [i for i, text in enumerate(encoded.sequence_ids) if text == 1]
            cut = set(second_text[len(second_text) - min(len(kept) - most, len(second_text)) :])
            kept = [i for i in kept if i not in cut]
        types = [encoded.type_ids[i] for i in kept]
        return [encoded.ids[i] for i in kept], types.index(1) if 1 in types else None

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        text: str = self._backend.decode(token_ids, skip_special_tokens=skip_special_tokens)
        return text

    def token_bytes(self, token_id: int) -> bytes:
        """What the token adds to a text; its own text if the vocabulary is not made of bytes."""
        if self._bytes is not None:
            return self._bytes[token_id]
        return self.decode([token_id], skip_special_tokens=False).encode()

    def token_text(self, token_id: int) -> str:
        """The token for a reader: its text, or `bytes:\\xe2\\x82` if its bytes are not text."""
        data = self.token_bytes(token_id)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    @property
    def spells_bytes(self) -> bool:
        """Whether each token stands for bytes of its own."""
        return self._bytes is not None

    @property
    def has_chat_template(self) -> bool:
        return bool(self._chat_template)

    @property
    def chat_template(self) -> ChatTemplate:
        return self._chat_template

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str:
        """The prompt for a conversation, to be encoded with add_special_tokens=False.

        `variables` reach the template as they are (enable_thinking=False). Raises
        InvalidRequestError if the model has no template or its template refuses the messages.
        """
        return self._chat_template.render(
            messages, add_generation_prompt=add_generation_prompt, tools=tools, variables=variables
        )

    def encode_chat(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> list[int]:
        """The tokens of the prompt for a conversation, up to where the answer begins."""
        return self.encode(self.apply_chat_template(messages, **variables), False)

    def detokenizer(
        self,
        prompt_ids: Sequence[int] = (),
        *,
        stop: Sequence[str] = (),
        stop_regex: Sequence[str] = (),
        include_stop: bool = False,
        skip_special_tokens: bool = True,
        budget: MatchingBudget | None = None,
    ) -> Detokenizer:
        """A new answer's text: what decode(prompt + answer) has after decode(prompt)."""
        source = self._text_source(prompt_ids, skip_special_tokens)
        return Detokenizer(
            source, stop, patterns=stop_regex, include_stop=include_stop, budget=budget
        )

    def _text_source(self, prompt_ids: Sequence[int], skip_special_tokens: bool) -> TextSource:
        table = self._visible_bytes if skip_special_tokens else self._bytes
        if table is not None:
            return ByteText(table, prompt_ids)
        hidden = self.special_ids if skip_special_tokens else frozenset[int]()
        return WindowText(lambda ids: self.decode(ids, False), prompt_ids, hidden)


def _not_unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        at = error.start
        return f"the text is not valid Unicode: lone surrogate {text[at]!r} at character {at}"
    return "the text cannot be encoded"
