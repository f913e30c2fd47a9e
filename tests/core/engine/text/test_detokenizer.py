"""The text of an answer is the same however its tokens arrive, and no stop string shows in it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from inarch.engine.text.chat_template import ChatTemplate
from inarch.engine.text.detokenizer import CONTEXT_TOKENS, Detokenizer, WindowText
from inarch.engine.text.tokenizer import Tokenizer

MARK = "▁"
WORDS = ["the", "he", "cap", "é", "👍", "é👍", "日本", "\n", "a", "b", "c", ".", MARK]


def wrap(backend: Backend) -> Tokenizer:
    backend.add_special_tokens(["<s>", "</s>"])
    backend.add_tokens([AddedToken("<tool call>", special=False), AddedToken("Ġé", special=False)])
    template = ChatTemplate({}, {})
    return Tokenizer(backend, special_tokens={}, eos_token_ids=(), chat_template=template)


def byte_level() -> Tokenizer:
    """Like GPT-2: all bytes, and merges that end within a character and after several."""
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False)
    vocab = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = []
    for word in ["the", " the", "é👍", "日本", "\n\n"]:
        piece = "".join(part for part, _ in spelled.pre_tokenize_str(word))
        for end in range(2, len(piece) + 1):
            if piece[:end] not in vocab:
                vocab[piece[:end]] = len(vocab)
                merges.append((piece[: end - 1], piece[end - 1]))
    backend = Backend(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer, backend.decoder = spelled, decoders.ByteLevel()
    return wrap(backend)


def sentencepiece(decoder: decoders.Decoder) -> Tokenizer:
    """Like Llama 2: ▁ for a space, <0x..> for what the vocabulary lacks."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS, MARK * 3]
    pieces += [MARK + word for word in WORDS if word != MARK]
    vocab = [(piece, 0.0 if "<" in piece else -1.0) for piece in pieces]
    backend = Backend(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoder
    return wrap(backend)


def word_piece() -> Tokenizer:
    vocab = {"[UNK]": 0, "the": 1, "cap": 2, "##tain": 3, "é": 4, "##s": 5}
    backend = Backend(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece(cleanup=False)
    return wrap(backend)


def llama_decoder(*end: decoders.Decoder, mark: str | Regex = MARK) -> decoders.Decoder:
    steps = [decoders.Replace(mark, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, *end])


BYTE_LEVEL = byte_level()
LLAMA = sentencepiece(llama_decoder(decoders.Strip(" ", 1, 0)))
GEMMA = sentencepiece(llama_decoder())
METASPACE = sentencepiece(decoders.Metaspace())
UNUSUAL = sentencepiece(llama_decoder(decoders.Strip(" ", 1, 0), mark=Regex(MARK)))
WORD_PIECE = word_piece()
EXACT = {
    "byte-level": BYTE_LEVEL,
    "llama": LLAMA,
    "gemma": GEMMA,
    "metaspace": METASPACE,
    "any other": UNUSUAL,
}

texts = st.lists(st.sampled_from([*WORDS, " ", "  ", "x", "ß", "<s>", "<tool call>"])).map("".join)
any_text = st.one_of(texts, st.text(max_size=20))


def split(data: st.DataObject, items: Sequence[int]) -> list[Sequence[int]]:
    """The items cut at random places, some of the pieces empty."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(items)), max_size=len(items) + 2)))
    return [items[a:b] for a, b in zip([0, *cuts], [*cuts, len(items)], strict=True)]


def run(detokenizer: Detokenizer, pieces: Sequence[Sequence[int]]) -> str:
    return "".join([detokenizer.push(piece) for piece in pieces]) + detokenizer.finish()


def cut_at_stop(text: str, stops: Sequence[str], include: bool = False) -> tuple[str, str | None]:
    """The obvious way: look at every beginning of the text in turn."""
    for end in range(1, len(text) + 1):
        if found := [stop for stop in stops if text[:end].endswith(stop)]:
            longest = max(found, key=len)
            return text[: end if include else end - len(longest)], longest
    return text, None


@pytest.mark.parametrize("name", EXACT)
@given(data=st.data(), prompt=any_text, answer=any_text, skip=st.booleans())
def test_an_answer_in_pieces_is_what_decoding_adds_to_the_prompt(
    name: str, data: st.DataObject, prompt: str, answer: str, skip: bool
) -> None:
    tokenizer = EXACT[name]
    prompt_ids, ids = tokenizer.encode(prompt), tokenizer.encode(answer)
    whole = tokenizer.decode(prompt_ids + ids, skip)
    before = tokenizer.decode(prompt_ids, skip)
    detokenizer = tokenizer.detokenizer(prompt_ids, skip_special_tokens=skip)

    assert run(detokenizer, split(data, ids)) == whole.removeprefix(before)


@given(data=st.data(), ids=st.lists(st.integers(0, BYTE_LEVEL.vocab_size + 5)))
def test_any_byte_level_tokens_give_what_decoding_gives_even_if_it_is_no_text(
    data: st.DataObject, ids: list[int]
) -> None:
    whole = BYTE_LEVEL.decode(ids)

    assert run(BYTE_LEVEL.detokenizer(), split(data, ids)) == whole


@given(data=st.data(), ids=st.lists(st.integers(0, LLAMA.vocab_size + 5)))
def test_sentencepiece_bytes_that_are_no_text_spoil_nothing_beside_them(
    data: st.DataObject, ids: list[int]
) -> None:
    visible = [token for token in ids if token not in LLAMA.special_ids]
    whole = b"".join(LLAMA.token_bytes(token) for token in visible)

    assert run(LLAMA.detokenizer(), split(data, ids)) == whole.removeprefix(b" ").decode(
        errors="replace"
    )


@given(data=st.data(), answer=any_text)
def test_no_piece_shows_half_a_character(data: st.DataObject, answer: str) -> None:
    for tokenizer in (BYTE_LEVEL, LLAMA, UNUSUAL):
        ids = tokenizer.encode(answer.replace("\ufffd", ""))
        detokenizer = tokenizer.detokenizer()

        assert not any("\ufffd" in detokenizer.push([token]) for token in ids)


def test_a_character_cut_off_by_the_end_is_not_lost() -> None:
    ids = BYTE_LEVEL.encode("ab👋")
    detokenizer = BYTE_LEVEL.detokenizer()

    assert [detokenizer.push([token]) for token in ids[:-1]] == ["a", "b", "", "", ""]
    assert detokenizer.finish() == "\ufffd"


def test_bytes_that_never_become_text_do_not_hold_the_answer_up() -> None:
    endless = [UNUSUAL._backend.token_to_id("<0xFF>")] * 20

    assert "\ufffd" in UNUSUAL.detokenizer().push(endless)


def test_a_character_begun_by_the_prompt_is_completed() -> None:
    for tokenizer in (BYTE_LEVEL, GEMMA):
        ids = tokenizer.encode("x👋!")
        detokenizer = tokenizer.detokenizer(ids[:-3])

        assert run(detokenizer, [ids[-3:]]) == "👋!"


def test_a_word_keeps_its_space_after_a_prompt_and_loses_it_at_the_start() -> None:
    word = LLAMA.encode("the")

    assert run(LLAMA.detokenizer(), [word]) == "the"
    assert run(LLAMA.detokenizer(LLAMA.encode("<s>")), [word]) == "the"
    assert run(LLAMA.detokenizer(LLAMA.encode("a")), [word]) == " the"


def test_other_decoders_join_pieces_as_they_do_in_one_go() -> None:
    ids = WORD_PIECE.encode("the captains é the <s> cap")
    for cut in range(len(ids)):
        detokenizer = WORD_PIECE.detokenizer(ids[:cut])
        pieces = [[token] for token in ids[cut:]]

        assert WORD_PIECE.decode(ids[:cut]) + run(detokenizer, pieces) == "the captains é the cap"


def test_a_long_answer_is_not_decoded_again_for_each_token() -> None:
    asked: list[int] = []

    def decode(ids: Sequence[int]) -> str:
        asked.append(len(ids))
        return "".join(map(chr, ids))

    assert WindowText(decode, [97] * 50).feed([98] * 300) == "b" * 300
    assert max(asked) <= 2 * CONTEXT_TOKENS


@given(
    data=st.data(),
    answer=st.text(alphabet="abc é👍", max_size=30),
    stops=st.lists(st.text(alphabet="abc é", min_size=1, max_size=4), min_size=1, max_size=4),
    include=st.booleans(),
)
def test_an_answer_ends_at_the_stop_string_that_ends_first(
    data: st.DataObject, answer: str, stops: list[str], include: bool
) -> None:
    expected, matched = cut_at_stop(answer, stops, include)
    detokenizer = BYTE_LEVEL.detokenizer(stop=stops, include_stop=include)

    assert run(detokenizer, split(data, BYTE_LEVEL.encode(answer))) == expected
    assert detokenizer.matched == matched


@given(
    answer=st.text(alphabet="abc", max_size=30),
    stops=st.lists(st.text(alphabet="abc", min_size=1, max_size=5), min_size=1, max_size=4),
)
def test_text_is_held_back_only_while_it_may_become_a_stop_string(
    answer: str, stops: list[str]
) -> None:
    answer, _ = cut_at_stop(answer, stops)
    detokenizer = BYTE_LEVEL.detokenizer(stop=stops)
    shown = ""
    for at, token in enumerate(BYTE_LEVEL.encode(answer), 1):
        shown += detokenizer.push([token])
        beginnings = {stop[:n] for stop in stops for n in range(1, len(stop))}
        held = max((n for n in range(at + 1) if answer[at - n : at] in beginnings), default=0)

        assert shown == answer[: at - held]


def test_what_comes_after_a_stop_string_is_never_shown() -> None:
    detokenizer = BYTE_LEVEL.detokenizer(stop=("\n\n",))

    assert detokenizer.push(BYTE_LEVEL.encode("a\n")) == "a"
    assert detokenizer.push(BYTE_LEVEL.encode("\nb")) == ""
    assert detokenizer.matched == "\n\n"
    assert detokenizer.push(BYTE_LEVEL.encode("c")) == ""
    assert detokenizer.finish() == ""


def test_the_longest_of_two_stop_strings_that_end_together_is_the_one() -> None:
    detokenizer = BYTE_LEVEL.detokenizer(stop=("b", "ab"))

    assert run(detokenizer, [BYTE_LEVEL.encode("cab")]) == "c"
    assert detokenizer.matched == "ab"


def test_a_stop_string_in_the_midst_of_another_that_does_not_come_is_found() -> None:
    for stops, text in ((("abcd", "bc"), "xabcy"), (("aab", "b"), "xaaab"), (("abc", "b"), "xab")):
        expected, matched = cut_at_stop(text, stops)
        detokenizer = BYTE_LEVEL.detokenizer(stop=stops)

        assert run(detokenizer, [BYTE_LEVEL.encode(text)]) == expected
        assert detokenizer.matched == matched


def test_an_ignored_stop_string_may_hold_the_beginning_of_the_next() -> None:
    detokenizer = BYTE_LEVEL.detokenizer(stop=("ab", "bc"))

    assert detokenizer.push(BYTE_LEVEL.encode("xab"), check_stops=False) == "xa"
    assert detokenizer.push(BYTE_LEVEL.encode("c")) == ""
    assert detokenizer.matched == "bc"


def test_before_min_tokens_a_stop_string_is_ordinary_text() -> None:
    detokenizer = BYTE_LEVEL.detokenizer(stop=("ab",))

    assert detokenizer.push(BYTE_LEVEL.encode("xab"), check_stops=False) == "xab"
    assert detokenizer.push(BYTE_LEVEL.encode("ya"), check_stops=False) == "y"
    assert detokenizer.push(BYTE_LEVEL.encode("bz")) == ""
    assert detokenizer.matched == "ab"


def test_a_stop_string_may_hold_a_special_token_that_is_shown() -> None:
    detokenizer = BYTE_LEVEL.detokenizer(stop=("b</s>",), skip_special_tokens=False)

    assert run(detokenizer, [[token] for token in BYTE_LEVEL.encode("ab</s>c")]) == "a"
