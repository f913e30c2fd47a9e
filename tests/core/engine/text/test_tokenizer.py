"""A model folder's tokenizer reads and writes as the Transformers library would, without loading it."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer

from inarch.engine.text.tokenizer import Tokenizer
from inarch.errors import ConfigError, InvalidRequestError, ModelError

TEMPLATE = "{{ bos_token }}{% for m in messages %}<u>{{ m.content }}{{ eos_token }}{% endfor %}"
BOS, EOS, USER = 256, 257, 258
CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<s>",
    "eos_token": {"__type": "AddedToken", "content": "</s>", "special": True},
    "chat_template": TEMPLATE,
}


def gpt2_vocab() -> dict[str, int]:
    return {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def byte_level() -> Backend:
    """Every byte, and the special tokens <s>, </s> and <u>."""
    backend = Backend(models.BPE(vocab=gpt2_vocab(), merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>", "<u>"])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BOS)]
    )
    return backend


def sentencepiece() -> Backend:
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "▁a", "é"]
    backend = Backend(models.Unigram([(p, -1.0) for p in pieces], unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(steps)
    return backend


def write(folder: Path, backend: Backend | None = None, **files: Any) -> Path:
    """A model folder; `files` by name without .json."""
    (backend or byte_level()).save(str(folder / "tokenizer.json"))
    for name, content in ({"tokenizer_config": CONFIG} | files).items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def sentencepiece_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(write(tmp_path_factory.mktemp("model"), sentencepiece()))


TEXTS = ["", "hello", " two  spaces ", "é 👍 日本", "<s>marked</s> text <u>", "a\r\n\tb"]


def test_loading_brings_in_neither_torch_nor_transformers(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from inarch.engine.text.tokenizer import Tokenizer;"
        f"Tokenizer.load(Path({str(folder)!r})).apply_chat_template([{{'content': 'x'}}]);"
        "sys.exit(', '.join({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stderr.strip() == ""


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("text", TEXTS)
def test_ids_and_text_are_those_of_transformers(
    folder: Path, tokenizer: Tokenizer, text: str, special: bool
) -> None:
    oracle = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.encode(text, add_special_tokens=special)

    assert ids == oracle.encode(text, add_special_tokens=special)
    assert tokenizer.decode(ids, special) == oracle.decode(ids, skip_special_tokens=special)


def test_the_post_processor_alone_says_what_begins_a_text(tmp_path: Path) -> None:
    config = CONFIG | {"add_bos_token": False}
    tokenizer = Tokenizer.load(write(tmp_path, tokenizer_config=config))

    assert tokenizer.encode("x") == [BOS, *tokenizer.encode("x", add_special_tokens=False)]
    assert tokenizer.encode("x") == AutoTokenizer.from_pretrained(tmp_path).encode("x")


@given(text=st.text())
def test_the_bytes_of_the_tokens_are_the_bytes_of_the_text(
    tokenizer: Tokenizer, sentencepiece_tokenizer: Tokenizer, text: str
) -> None:
    for each in (tokenizer, sentencepiece_tokenizer):
        ids = each.encode(text, add_special_tokens=False)
        expected = text if each is tokenizer else text.replace("▁", " ")

        assert b"".join(map(each.token_bytes, ids)) == expected.encode()


def test_a_token_is_printed_as_its_text_or_else_as_its_bytes(tokenizer: Tokenizer) -> None:
    half, rest = tokenizer.encode("é", add_special_tokens=False)

    assert tokenizer.token_text(BOS) == "<s>"
    assert tokenizer.token_text(tokenizer.encode(" ", add_special_tokens=False)[0]) == " "
    assert tokenizer.token_text(half) == "bytes:\\xc3"
    assert tokenizer.token_text(rest) == "bytes:\\xa9"


def test_an_id_that_the_vocabulary_lacks_is_no_text(tokenizer: Tokenizer) -> None:
    beyond = tokenizer.vocab_size + 7

    assert tokenizer.token_bytes(beyond) == b""
    assert tokenizer.token_text(beyond) == ""


def test_a_vocabulary_of_words_has_tokens_with_text_too(tmp_path: Path) -> None:
    backend = Backend(models.WordPiece({"[UNK]": 0, "cap": 1, "##tain": 2}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    tokenizer = Tokenizer.load(write(tmp_path, backend))

    assert tokenizer.token_bytes(1) == b"cap"


def test_sizes_and_special_ids(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 259
    assert tokenizer.bos_token_id == BOS
    assert tokenizer.special_ids == {BOS, EOS, USER}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (EOS,)),
        ({"generation_config": {"eos_token_id": 258}}, (258, EOS)),
        ({"generation_config": {"eos_token_id": [EOS, 258]}}, (EOS, 258)),
        ({"generation_config": {"do_sample": True}, "config": {"eos_token_id": 7}}, (7, EOS)),
        ({"generation_config": {"eos_token_id": 9}, "config": {"eos_token_id": 7}}, (9, EOS)),
    ],
)
def test_every_token_that_ends_an_answer_is_known(
    tmp_path: Path, files: dict[str, Any], expected: tuple[int, ...]
) -> None:
    assert Tokenizer.load(write(tmp_path, **files)).eos_token_ids == expected


def test_roles_may_stand_in_special_tokens_map_instead(tmp_path: Path) -> None:
    files = {
        "special_tokens_map": {"bos_token": {"content": "<u>"}, "eos_token": "<u>"},
        "tokenizer_config": {"eos_token": "</s>", "pad_token": None},
    }
    tokenizer = Tokenizer.load(write(tmp_path, **files))

    assert (tokenizer.bos_token_id, tokenizer.eos_token_ids) == (USER, (EOS,))


def test_a_folder_with_tokenizer_json_alone_is_enough(tmp_path: Path) -> None:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path)

    assert tokenizer.decode(tokenizer.encode("hello")) == "hello"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_ids) == (None, ())
    assert not tokenizer.has_chat_template


def test_a_token_with_a_role_is_special_even_if_the_file_forgot(tmp_path: Path) -> None:
    backend = byte_level()
    backend.add_tokens(["<end>"])
    tokenizer = Tokenizer.load(write(tmp_path, backend, tokenizer_config={"eos_token": "<end>"}))

    assert tokenizer.eos_token_ids == (259,)
    assert tokenizer.decode(tokenizer.encode("x<end>")) == "x"


def test_a_role_without_a_token_does_not_widen_the_vocabulary(tmp_path: Path) -> None:
    config = CONFIG | {"pad_token": "[PAD]"}

    assert Tokenizer.load(write(tmp_path, tokenizer_config=config)).vocab_size == 259


def test_tokens_that_only_the_config_lists_are_added_in_order(tmp_path: Path) -> None:
    listed = {
        "260": {"content": "<b>", "special": False},
        "259": {"content": "<a>", "special": True},
        "256": {"content": "<s>", "special": True},
    }
    config = CONFIG | {"added_tokens_decoder": listed}
    tokenizer = Tokenizer.load(write(tmp_path, tokenizer_config=config))

    assert tokenizer.encode("<a><b>", add_special_tokens=False) == [259, 260]
    assert tokenizer.decode([259, 260]) == "<b>"


def test_truncation_and_padding_of_the_trainer_do_not_touch_prompts(tmp_path: Path) -> None:
    backend = byte_level()
    backend.enable_truncation(4)
    backend.enable_padding(length=32)
    tokenizer = Tokenizer.load(write(tmp_path, backend))

    assert len(tokenizer.encode("sixteen letters!")) == 17


def test_a_folder_of_an_older_format_is_converted(tmp_path: Path) -> None:
    vocab = gpt2_vocab() | {"he": 256, "<|endoftext|>": 257}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nh e\n")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    tokenizer = Tokenizer.load(tmp_path)

    assert tokenizer.encode("hé he")[-1] == 256
    assert tokenizer.decode(tokenizer.encode("hé he")) == "hé he"
    assert tokenizer.eos_token_ids == (257,)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')

    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("tokenizer.json", "{}", r"tokenizer\.json is not a usable tokenizer"),
        ("tokenizer.json", '{"trunc', r"tokenizer\.json is not a usable tokenizer"),
        ("tokenizer_config.json", "{", r"tokenizer_config\.json is not readable JSON"),
        ("generation_config.json", "[]", "must hold a JSON object, got list"),
        ("tokenizer_config.json", '{"chat_template": 7}', "chat_template must be"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str, reason: str) -> None:
    write(tmp_path)
    (tmp_path / name).write_text(content)

    with pytest.raises(ModelError, match=reason):
        Tokenizer.load(tmp_path)


def test_text_that_is_not_unicode_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequestError, match=r"lone surrogate '\\ud800' at character 2"):
        tokenizer.encode("ab\ud800")


def test_many_threads_may_encode_at_once(tokenizer: Tokenizer) -> None:
    texts = [f"text {i} é " * 50 for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(tokenizer.encode, texts))

    assert [tokenizer.decode(each) for each in ids] == texts


def test_a_chat_is_encoded_as_transformers_encodes_it(folder: Path, tokenizer: Tokenizer) -> None:
    messages = [{"role": "user", "content": "hé"}]
    oracle = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(messages)

    assert tokenizer.has_chat_template
    assert text == "<s><u>hé</s>"
    assert tokenizer.encode(text, add_special_tokens=False) == oracle.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )


def test_another_chat_template_can_take_the_models_place(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder, chat_template="{{ bos_token }}{{ style }}")

    assert tokenizer.apply_chat_template([{"content": "x"}], style="mine") == "<s>mine"
    with pytest.raises(ConfigError, match=r"no_such_file\.jinja"):
        Tokenizer.load(folder, chat_template="no_such_file.jinja")
