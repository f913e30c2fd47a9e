"""Text to token ids and back, with the chat template: all that a front end needs of a model.

A front end starts in a fraction of a second because this reads tokenizer.json by the `tokenizers`
library alone; torch and transformers stay away unless a folder has nothing but an older format.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from inarch.engine.text.chat_template import ChatTemplate, given_template, read_templates
from inarch.engine.text.detokenizer import ByteText, Detokenizer, TextSource, WindowText
from inarch.engine.text.stop_patterns import MatchingBudget
from inarch.engine.text.token_bytes import TokenBytes, spelling_of
from inarch.errors import InvalidRequestError, ModelError


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
        self.bos_token_id: int | None = _id_of(backend, special_tokens.get("bos_token"))
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
        config = _read_json(folder / "tokenizer_config.json")
        special_tokens = _special_tokens(_read_json(folder / "special_tokens_map.json") | config)
        if (folder / "tokenizer.json").is_file():
            backend = _read_backend(folder / "tokenizer.json", config)
        else:
            backend, known = _convert(folder)
            special_tokens = known | special_tokens
        if config.get("add_eos_token") is True and (folder / "modules.json").is_file():
            _end_texts(backend, special_tokens.get("eos_token"))
        _mark_special(backend, special_tokens.values())
        templates = (
            given_template(chat_template) if chat_template else read_templates(folder, config)
        )
        return cls(
            backend,
            special_tokens=special_tokens,
            eos_token_ids=_eos_token_ids(folder, _id_of(backend, special_tokens.get("eos_token"))),
            chat_template=ChatTemplate(templates, special_tokens),
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


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a file, empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not readable JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def _read_backend(path: Path, config: Mapping[str, Any]) -> Backend:
    try:
        backend = Backend.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        raise ModelError(f"{path} is not a usable tokenizer: {error}") from None
    # What a trainer may have left in the file: prompts are neither cut nor filled up.
    backend.no_truncation()
    backend.no_padding()
    _add_missing(backend, config.get("added_tokens_decoder"))
    return backend


def _add_missing(backend: Backend, added: Any) -> None:
    """Add the tokens of tokenizer_config.json that tokenizer.json lacks, in order of their ids."""
    from tokenizers import AddedToken

    for _, entry in sorted((added or {}).items(), key=lambda item: int(item[0])):
        if backend.token_to_id(entry["content"]) is None:
            flags = {key: bool(entry.get(key, False)) for key in _ADDED_TOKEN_FLAGS}
            backend.add_tokens([AddedToken(entry["content"], **flags)])


def _end_texts(backend: Backend, eos: str | None) -> None:
    """Put the token that ends a text behind each, as makers of embedding models expect it who let
    transformers add it; tokenizer.json need not say so."""
    from tokenizers.processors import TemplateProcessing

    around = backend.encode("")
    if eos is None or eos in around.tokens[-1:]:
        return
    before, ids = around.tokens, [(token, backend.token_to_id(token)) for token in around.tokens]
    single, second = [*before, "$A", eos], [*before, "$B", eos]
    backend.post_processor = TemplateProcessing(
        single=single,
        pair=[*single, *second],
        special_tokens=[*ids, (eos, backend.token_to_id(eos))],
    )


_ADDED_TOKEN_FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")


def _mark_special(backend: Backend, tokens: Iterable[str]) -> None:
    """Make sure that tokens with a role are skipped as special, whatever tokenizer.json says."""
    special = {t.content for t in backend.get_added_tokens_decoder().values() if t.special}
    known = [token for token in tokens if backend.token_to_id(token) is not None]
    backend.add_special_tokens([token for token in known if token not in special])


def _convert(folder: Path) -> tuple[Backend, dict[str, str]]:
    """A tokenizer of an older format, by way of transformers."""
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # anything, from a missing file to a missing package
        raise ModelError(
            f"{folder} has no tokenizer.json, and transformers finds no other tokenizer in it: "
            + " ".join(str(error).split())
        ) from None
    backend = getattr(loaded, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            f"{folder} has no tokenizer.json, and its {type(loaded).__name__} cannot be turned "
            "into one: use a copy of the model that has the file"
        )
    return backend, _special_tokens(loaded.special_tokens_map)


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Role -> text of the special tokens that have a role, each written as text or as object."""
    tokens = {key: value for key, value in config.items() if key.endswith("_token")}
    if isinstance(extra := config.get("extra_special_tokens"), dict):
        tokens |= extra
    texts = {key: v.get("content") if isinstance(v, dict) else v for key, v in tokens.items()}
    return {key: text for key, text in texts.items() if isinstance(text, str)}


def _id_of(backend: Backend, token: str | None) -> int | None:
    return None if token is None else backend.token_to_id(token)


def _eos_token_ids(folder: Path, tokenizer_eos: int | None) -> tuple[int, ...]:
    """Every token that ends an answer; a chat model often has several."""
    declared = _read_json(folder / "generation_config.json").get("eos_token_id")
    if declared is None:
        declared = _read_json(folder / "config.json").get("eos_token_id")
    ids = list(declared) if isinstance(declared, list) else [declared]
    return tuple(dict.fromkeys(i for i in [*ids, tokenizer_eos] if isinstance(i, int)))
