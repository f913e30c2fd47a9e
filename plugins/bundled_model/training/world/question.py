"""What every topic of the small world makes: a question, its answer, and what may be asked next.

An answer is one fact in three dresses (sentence, bare, JSON), so that "answer in one word" and "as
JSON" work for every topic alike. A question's `identity` names the phrasing and the facts in it:
one identity in forty is held out of training, and the score is taken on those alone.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

Style = Literal["plain", "short", "json"]

HELD_OUT_ONE_IN = 40


@dataclass(frozen=True)
class Answer:
    text: str
    short: str
    data: object

    def dressed(self, style: Style) -> str:
        if style == "json":
            return json.dumps(self.data, ensure_ascii=False)
        return self.short if style == "short" else self.text


@dataclass(frozen=True)
class Question:
    """`identity` is None where there is nothing to hold out, as in "Hello"."""

    topic: str
    text: str
    answer: Answer
    identity: str | None = None
    style: Style = "plain"
    follow: Callable[[Random], Question] | None = None

    @property
    def held_out(self) -> bool:
        if self.identity is None:
            return False
        return zlib.crc32(self.identity.lower().encode()) % HELD_OUT_ONE_IN == 0

    def reply(self, asked: Style = "plain") -> str:
        """The answer in the style of the question, or else in the style `asked` for earlier."""
        return self.answer.dressed(asked if self.style == "plain" else self.style)


FRAMES = (
    "What is {}?", "What is {}?", "What's {}?", "Tell me {}.", "{}?", "{}", "Give me {}.",
    "Can you tell me {}?", "Do you know {}?", "I want to know {}.", "Please tell me {}.",
    "Could you tell me what {} is?", "Can you tell me what {} is?", "What would {} be?",
    "I need {}.", "Name {}.", "Hey, what is {}?", "Hello! What is {}?", "So what is {}?",
    "Do you know what {} is?", "I wonder what {} is.", "Please give me {}.", "And what is {}?",
    "I forgot {}.", "Tell me what {} is.", "Hi, can you tell me {}?", "what is {} please",
    "Quick question: what is {}?", "Say {}.", "What do you think {} is?", "Look up {}.",
    "I would like to know {}.", "{}, please.", "Would you tell me {}?", "Remind me: what is {}?",
)  # fmt: skip
JSON_FRAMES = (
    "Give me {} as JSON.", "{} as JSON", "{} in JSON", "Return {} as JSON.", "I need {} as JSON.",
    "What is {}? Answer in JSON.", "What is {}? Reply with JSON only.", "{}, in JSON please.",
    "Answer in JSON: what is {}?", "Please give me {} in JSON format.", "JSON: {}",
    "Write {} as a JSON object.", "What is {}? Return JSON.", "Show {} as JSON.",
    "Give me {} in JSON.", "Output {} as JSON.", "Tell me {} as JSON", "What's {}? Use JSON.",
)  # fmt: skip
SHORT_FRAMES = (
    "What is {}? Answer in one word.", "In one word, what is {}?", "{}? One word.",
    "What is {}? Just the answer.", "Just the answer: what is {}?", "What is {}? Be brief.",
    "Give me {}, only the answer.", "What is {}? Only the answer please.", "Briefly: {}?",
    "What is {}? Short answer.", "What is {}? Reply with one word only.",
)  # fmt: skip
QUESTION_SUFFIXES: tuple[tuple[str, Style], ...] = (
    (" Answer in JSON.", "json"), (" As JSON please.", "json"), (" Reply in JSON only.", "json"),
    (" Answer in one word.", "short"), (" Just the answer.", "short"), (" Be brief.", "short"),
    (" Please.", "plain"), (" Thanks!", "plain"), (" Thank you.", "plain"),
)  # fmt: skip
QUESTION_PREFIXES = (
    "Hi! ", "Hello, ", "Hey, ", "Please tell me: ", "Question: ", "I have a question. ", "OK, ",
    "Good morning! ", "Next question: ", "Do you know this? ", "Help me: ", "One more: ",
)  # fmt: skip


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def misspelled(rng: Random, text: str) -> str:
    """One slip of the keyboard in a word of `text` that is long enough to stay readable."""
    spots = [
        i for i in range(1, len(text) - 1) if text[i - 1 : i + 2].isalpha() and text[i].islower()
    ]
    if not spots:
        return text
    i = rng.choice(spots)
    slip = rng.randrange(4)
    if slip == 0:
        return text[:i] + text[i + 1 :]
    if slip == 1:
        return text[:i] + text[i] + text[i:]
    if slip == 2:
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    return text[:i] + rng.choice("abcdefghijklmnopqrstuvwxyz") + text[i + 1 :]


def _as_typed(rng: Random, text: str) -> str:
    """People drop capitals and punctuation."""
    roll = rng.random()
    if roll < 0.22:
        text = text.lower()
    elif roll < 0.235:
        text = text.upper()
    if rng.random() < 0.22:
        text = text.rstrip("?.!")
    return text if rng.random() > 0.02 else text + rng.choice((" ", "\n", "??", " ?", "!"))


def _fill(rng: Random, template: str, slots: dict[str, object]) -> str:
    """Slips happen around the slots only: what stands in them must stay what it is."""
    if rng.random() < 0.05:
        pieces = template.split("{")
        spot = rng.randrange(len(pieces))
        name, brace, rest = pieces[spot].rpartition("}")
        pieces[spot] = name + brace + misspelled(rng, rest)
        template = "{".join(pieces)
    return capitalised(template.format(**slots))


def ask(
    rng: Random,
    topic: str,
    answer: Answer,
    *,
    nouns: Sequence[str] = (),
    questions: Sequence[str] = (),
    slots: dict[str, object] | None = None,
    key: str | None = None,
    key_only: bool = False,
    verbatim: bool = False,
    follow: Callable[[Random], Question] | None = None,
) -> Question:
    """Phrase a question: a noun phrase in a frame ("the capital of {country}"), or a full sentence.

    `slots` fill the braces. `key` names the facts asked about; with `key_only` the facts are held
    out in every phrasing, otherwise in this one. `verbatim` keeps case and spelling as they are.
    """
    style: Style = "plain"
    if nouns and (not questions or rng.random() < 0.6):
        roll = rng.random()
        style = "json" if roll < 0.14 else "short" if roll < 0.22 else "plain"
        frames = {"json": JSON_FRAMES, "short": SHORT_FRAMES, "plain": FRAMES}[style]
        template = rng.choice(frames).replace("{}", rng.choice(nouns))
    else:
        template = rng.choice(questions)
        if rng.random() < 0.08:
            suffix, style = rng.choice(QUESTION_SUFFIXES)
            template += suffix
        elif rng.random() < 0.06:
            template = rng.choice(QUESTION_PREFIXES) + template
    if verbatim:
        text = template.format(**(slots or {}))
    else:
        text = _as_typed(rng, _fill(rng, template, slots or {}))
    identity = None if key is None else key if key_only else f"{topic}|{template}|{key}"
    return Question(topic, text, answer, identity, style, follow)


def listing(items: Sequence[str]) -> str:
    """ "red", "red and blue", "red, blue and green"."""
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + " and " + items[-1]
