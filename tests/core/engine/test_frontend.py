"""The text half of an engine: what it makes of a step's tokens, and in which order."""

from __future__ import annotations

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

from inarch.engine.frontend import Frontend
from inarch.engine.messages import HeadInfo, ModelInfo, TokenOutput
from inarch.engine.text.chat_template import ChatTemplate
from inarch.engine.text.tokenizer import Tokenizer
from inarch.sampling import SamplingParams

HEAD = HeadInfo(
    generates=True, outputs=4, each_token=False, normalized=True, labels=(), scores="raw",
    tells_texts_apart=False, whole_prompts=False,
)  # fmt: skip
INFO = ModelInfo(
    head=HEAD, name="none", path="/nowhere", architecture="none", context_length=64,
    max_request_tokens=64, vocab_size=26, dtype="float32", backend="none", device="none",
    kv_tokens=64, page_tokens=16, kv_dtype="float32", max_running_requests=4, eos_token_ids=(),
    default_sampling={}, memory={},
)  # fmt: skip


def frontend() -> Frontend:
    """Token ids 0 to 25 are the letters a to z."""
    backend = Backend(models.BPE({chr(97 + i): i for i in range(26)}, []))
    backend.decoder = decoders.ByteLevel()
    template = ChatTemplate({}, {})
    tokenizer = Tokenizer(backend, special_tokens={}, eos_token_ids=[], chat_template=template)
    return Frontend(tokenizer, INFO)


def open_one(text: Frontend, name: str, **params: object) -> int:
    (message,) = text.open([0], SamplingParams(**params), request_id=name)  # type: ignore[arg-type]
    return message.handle


def test_first_tokens_are_told_before_those_of_running_answers_and_each_answer_in_order() -> None:
    text = frontend()
    old, new = open_one(text, "old"), open_one(text, "new")
    text.receive(TokenOutput(handles=[old], tokens=[1], cached={0: 0}))
    two_steps = TokenOutput(handles=[old, new, old, new], tokens=[2, 3, 4, 5], cached={1: 7})
    outputs, cut = text.receive(two_steps)
    said = [(output.request_id, output.text, output.cached_tokens) for output in outputs]
    assert said == [("new", "d", 7), ("old", "c", 0), ("old", "e", 0), ("new", "f", 7)]
    assert cut == []


def test_the_engine_is_told_to_end_what_it_cannot_know_has_ended() -> None:
    text = frontend()
    by_text, by_length = open_one(text, "a", stop=("bc",)), open_one(text, "b", stop=("bc",))
    handles = [by_text, by_length]
    text.receive(TokenOutput(handles=handles, tokens=[1, 1]))
    outputs, cut = text.receive(TokenOutput(handles=handles, tokens=[2, 2], finish={1: "length"}))
    assert [(output.finish_reason, output.matched_stop) for output in outputs] == [
        ("stop", "bc")
    ] * 2
    assert cut == [by_text]  # the other one has ended by itself
    assert text.receive(TokenOutput(handles=handles, tokens=[3, 3])) == ([], [])
