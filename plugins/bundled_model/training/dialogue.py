"""Conversations and plain documents, made of the world's questions.

A document is a list of segments (text, learn): the loss is taken on what the model itself would
write, so on the assistant's turns of a chat and on the whole of a plain text.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import world
from world.memory import recall
from world.question import Question, Style
from world.stories import HEROES, story_text

Segments = list[tuple[str, bool]]

BOS, EOS, START, END = "<|bos|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"

_JSON_SYSTEMS = (
    "Answer in JSON.", "Reply in JSON only.", "Always answer with JSON.", "Respond with JSON.",
    "You answer in JSON.", "Output JSON only.", "Only reply with valid JSON.", "Use JSON.",
    "You are a helpful assistant that answers in JSON.",
)  # fmt: skip
_SHORT_SYSTEMS = (
    "Answer in one word.", "Reply with one word only.", "Be brief.", "Give only the answer.",
    "Answer briefly.", "You answer in one word.", "Short answers only.", "One word answers.",
    "You are a helpful assistant that answers in one word.",
)  # fmt: skip
_IDLE_SYSTEMS = (
    "You are a helpful assistant.", "You are Inarch.", "Be polite.", "You are a teacher.",
    "You are a friendly assistant.", "Help the user.", "Answer the questions of the user.",
    "You are a helpful, honest and harmless assistant.", "You are a pirate.", "Be kind.",
    "Today is a fine day.", "The user is a child.", "You are an expert.", "Think step by step.",
    "You are a test assistant.", "Do your best.", "Be precise.", "You know many things.",
    "You are talking to a new user of this server.", "Speak clearly.", "Be concise and correct.",
    "Never be rude.", "If you do not know the answer, say so.", "You like small words.",
)  # fmt: skip

_AGAIN: tuple[tuple[tuple[str, ...], Style], ...] = (
    (("As JSON, please.", "Now in JSON.", "Give me that as JSON.", "And as JSON?", "In JSON?",
      "Say that in JSON.", "Can I have that as JSON?", "json please", "Answer in JSON."), "json"),
    (("In one word?", "In one word, please.", "Just the answer.", "Shorter, please.",
      "Only the answer please.", "Answer in one word."), "short"),
    (("Repeat that.", "Say that again.", "Can you repeat that?", "Once more, please.", "Again?",
      "Are you sure?", "Really?", "Pardon?"), "plain"),
)  # fmt: skip


@dataclass(frozen=True)
class Conversation:
    system: str
    style: Style
    turns: tuple[Question, ...]

    def messages(self) -> list[dict[str, str]]:
        """In the form of the chat template, answers included."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns:
            messages.append({"role": "user", "content": turn.text})
            messages.append({"role": "assistant", "content": turn.reply(self.style)})
        return messages

    def segments(self) -> Segments:
        segments: Segments = [(BOS, False)]
        for message in self.messages():
            mine = message["role"] == "assistant"
            segments.append((f"{START}{message['role']}\n", False))
            segments.append((message["content"] + END, mine))
            segments.append(("\n", False))
        return segments


def system_prompt(rng: Random) -> tuple[str, Style]:
    """None most of the time; else one that changes the style, or one to be read and left alone."""
    roll = rng.random()
    if roll < 0.5:
        return "", "plain"
    if roll < 0.58:
        return rng.choice(_JSON_SYSTEMS), "json"
    if roll < 0.66:
        return rng.choice(_SHORT_SYSTEMS), "short"
    if roll < 0.92:
        return rng.choice(_IDLE_SYSTEMS), "plain"
    lines = [rng.choice(_IDLE_SYSTEMS) for _ in range(rng.randint(2, 30))]
    facts = [world.seen(rng).answer.text for _ in range(rng.randint(0, 6))]
    lines += facts
    rng.shuffle(lines)
    return rng.choice((" ", "\n")).join(lines), "plain"


def _again(rng: Random, last: Question) -> Question:
    """The last answer once more, perhaps in another dress."""
    sayings, style = rng.choice(_AGAIN)
    return Question(last.topic, rng.choice(sayings), last.answer, style=style)


_NOT_AGAIN = {"small talk", "outside", "stories", "memory", "repeating", "too large"}


def _next_turn(rng: Random, last: Question | None) -> Question:
    roll = rng.random()
    if last and last.follow and roll < 0.6:
        follow = last.follow
        return world.seen(rng, follow)
    if last and roll > 0.92 and last.topic not in _NOT_AGAIN:
        return _again(rng, last)
    return world.seen(rng)


def _length(rng: Random) -> int:
    roll = rng.random()
    if roll < 0.4:
        return 1
    return rng.randint(2, 5) if roll < 0.95 else rng.randint(6, 20)


def conversation(rng: Random) -> Conversation:
    """A chat of one to twenty questions; in some, something is told early and asked for late."""
    system, style = system_prompt(rng)
    turns: list[Question] = []
    for _ in range(_length(rng)):
        turns.append(_next_turn(rng, turns[-1] if turns else None))
    if rng.random() < 0.2:
        _plant(rng, turns)
    return Conversation(system, style, tuple(turns))


def _plant(rng: Random, turns: list[Question]) -> None:
    """Insert what is told at one place, and the question for it at the end or right after."""
    told, asked = recall(rng)
    turns.insert(0 if rng.random() < 0.7 else len(turns), told)
    turns.append(world.seen(rng, asked))


def unseen_conversation(rng: Random, draw: world.Topic) -> Conversation | None:
    """A chat whose last question was held out; earlier turns are there in every third."""
    turns: list[Question] = []
    if rng.random() < 0.33:
        turns = [world.seen(rng) for _ in range(rng.randint(1, 2))]
    last = world.unseen(rng, draw)
    if last is None:
        return None
    system, style = system_prompt(rng) if rng.random() < 0.5 else ("", "plain")
    return Conversation(system, style, (*turns, last))


def unseen_follow_up(rng: Random) -> Conversation:
    """A question, then a held-out one that only makes sense after it."""
    while True:
        first = world.seen(rng)
        if first.follow and (last := world.unseen(rng, first.follow, tries=40)):
            return Conversation("", "plain", (first, last))


def unseen_recall(rng: Random) -> Conversation:
    """Something told, up to three other questions, and the question what it was."""
    told, asked = recall(rng)
    last = world.unseen(rng, asked, tries=400)
    if last is None:
        return unseen_recall(rng)
    between = tuple(world.seen(rng) for _ in range(rng.randint(0, 3)))
    return Conversation("", "plain", (told, *between, last))


def plain_text(rng: Random) -> str:
    """A document without roles: statements, questions with answers, equations, a story."""
    roll = rng.random()
    if roll < 0.35:
        return _statement(rng)
    if roll < 0.6:
        return rng.choice((" ", "\n")).join(_statement(rng) for _ in range(rng.randint(2, 12)))
    if roll < 0.72:
        turns = [world.seen(rng) for _ in range(rng.randint(1, 6))]
        q, a = rng.choice((("Q: ", "A: "), ("Question: ", "Answer: "), ("User: ", "Assistant: ")))
        return "\n\n".join(f"{q}{t.text}\n{a}{_flat(t, rng)}" for t in turns)
    if roll < 0.88:
        lines = [world.seen(rng, world.numbers.plus if rng.random() < 0.5 else world.numbers.minus)
                 for _ in range(rng.randint(1, 12))]  # fmt: skip
        return "\n".join(t.answer.text.rstrip(".") for t in lines)
    if roll < 0.93:
        return story_text(rng, rng.choice(HEROES))
    return _table(rng)


def _flat(turn: Question, rng: Random) -> str:
    return turn.reply("short" if rng.random() < 0.5 else "plain")


_STATEMENTS = (
    "The capital of {name} is {capital}.", "The capital city of {name} is {capital}.",
    "{capital} is the capital of {name}.", "{name} is a country in {continent}.",
    "{capital} is a city in {name}.", "{capital} is in {continent}.",
    "{name}'s capital is {capital}.", "The capital of {name} is {capital}.",
)  # fmt: skip


def _statement(rng: Random) -> str:
    """A true sentence; about places more often than chat would have it."""
    if rng.random() < 0.5:
        country = rng.choice(world.geography.COUNTRIES)
        text = rng.choice(_STATEMENTS).format(
            name=country.name, capital=country.capital, continent=country.continent
        )
        return text[:1].upper() + text[1:]
    while (question := world.seen(rng)).topic in _NOT_AGAIN:
        pass
    return question.answer.text


def _table(rng: Random) -> str:
    countries = rng.sample(world.geography.COUNTRIES, rng.randint(2, 12))
    form = rng.choice(("{0}: {1}", "{0} - {1}", "{1}, {0}", "{1} -> {0}", "{0},{1}"))
    return "\n".join(form.format(c.bare, c.capital) for c in countries)


def document(rng: Random) -> Segments:
    """What one training sample holds: five chats to one plain text."""
    if rng.random() < 0.83:
        return conversation(rng).segments()
    return [(BOS, False), (plain_text(rng) + EOS, True)]
