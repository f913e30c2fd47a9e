"""What was said earlier in the conversation: names, numbers and things to keep; and repeating.

This is the one topic whose answer no training can put into the weights. It shows whether a server
hands the whole conversation to the model.
"""

# ruff: noqa: SIM905 - word lists read better as text

from __future__ import annotations

from collections.abc import Callable
from random import Random

from world.question import Answer, Question, ask, capitalised
from world.wordlist import WORDS, invented

NAMES = (
    "Ada Alan Alice Amir Ana Anna Ben Bob Carla Chen Clara Daniel David Diego Elena Emma Eva Fatima "
    "Felix Finn Grace Hana Hugo Ines Ivan Jack Jana Jonas Julia Karim Kenji Lea Leo Lina Lucas Maria "
    "Mark Maya Mei Mia Nina Noah Nora Olga Omar Oscar Paul Priya Ravi Rosa Ruth Sam Sara Sofia Tom "
    "Uma Vera Victor Wei Yara Yusuf Zoe"
).split()

Recall = tuple[Question, Callable[[Random], Question]]


def _name(rng: Random) -> str:
    if rng.random() < 0.6:
        return rng.choice(NAMES)
    return capitalised(invented(rng))


def _thing(rng: Random) -> str:
    roll = rng.random()
    if roll < 0.4:
        return str(rng.randrange(10 ** rng.randint(1, 6)))
    return rng.choice(WORDS) if roll < 0.7 else invented(rng)


def name_recall(rng: Random) -> Recall:
    name = _name(rng)
    told = ask(
        rng, "memory", Answer(f"Nice to meet you, {name}!", name, {"name": name}),
        questions=("My name is {name}.", "I am {name}.", "Hi, I'm {name}!", "Hello, my name is {name}.",
                   "Call me {name}.", "I'm {name}", "my name is {name}", "Hi! My name is {name}."),
        slots={"name": name}, verbatim=True,
    )  # fmt: skip
    return told, lambda r: ask(
        r, "memory", Answer(f"Your name is {name}.", name, {"name": name}),
        questions=("What is my name?", "What's my name?", "Do you remember my name?", "Who am I?",
                   "What was my name?", "Do you know my name?", "Tell me my name.", "my name?"),
        key=name,
    )  # fmt: skip


def thing_recall(rng: Random) -> Recall:
    thing = _thing(rng)
    kind = "number" if thing.isdigit() else "word"
    told = ask(
        rng, "memory", Answer(f"I will remember the {kind} {thing}.", thing, {kind: thing}),
        questions=("Remember the {kind} {thing}.", "Please remember the {kind} {thing}.",
                   "Remember this {kind}: {thing}", "Keep the {kind} {thing} in mind.",
                   "The secret {kind} is {thing}.", "Can you remember the {kind} {thing}?"),
        slots={"kind": kind, "thing": thing}, verbatim=True,
    )  # fmt: skip
    return told, lambda r: ask(
        r, "memory", Answer(f"The {kind} is {thing}.", thing, {kind: thing}),
        questions=("What was the {kind}?", "What is the {kind}?", "Which {kind} did I tell you?",
                   "What {kind} did I ask you to remember?", "Do you remember the {kind}?",
                   "Tell me the {kind}.", "What is the secret {kind}?", "And what was the {kind}?"),
        slots={"kind": kind}, key=thing,
    )  # fmt: skip


def favourite_recall(rng: Random) -> Recall:
    kind, options = rng.choice((
        ("colour", "red blue green yellow orange purple black white pink".split()),
        ("animal", "dog cat horse lion tiger bear fox wolf rabbit owl".split()),
        ("food", "pizza soup rice bread pasta salad cake cheese".split()),
        ("number", [str(i) for i in range(100)]),
    ))  # fmt: skip
    thing = rng.choice(options)
    told = ask(
        rng, "memory",
        Answer(f"Your favourite {kind} is {thing}. I will remember that.", thing, {kind: thing}),
        questions=("My favourite {kind} is {thing}.", "My favorite {kind} is {thing}.",
                   "my favourite {kind} is {thing}", "The {kind} I like best is {thing}."),
        slots={"kind": kind, "thing": thing},
    )  # fmt: skip
    return told, lambda r: ask(
        r, "memory", Answer(f"Your favourite {kind} is {thing}.", thing, {kind: thing}),
        questions=("What is my favourite {kind}?", "What's my favorite {kind}?",
                   "Which {kind} do I like best?", "Do you remember my favourite {kind}?"),
        slots={"kind": kind}, key=f"{kind} {thing}",
    )  # fmt: skip


def recall(rng: Random) -> Recall:
    """Something to tell, and the question for it that may come turns later."""
    return rng.choices((name_recall, thing_recall, favourite_recall), (4, 4, 2))[0](rng)


def repeat(rng: Random) -> Question:
    n = rng.randint(1, 8)
    words = [rng.choice(WORDS) if rng.random() < 0.7 else _thing(rng) for _ in range(n)]
    text = " ".join(words)
    if rng.random() < 0.3:
        text = capitalised(text) + "."
    return ask(
        rng, "repeating", Answer(text, text, {"text": text}),
        questions=("Repeat after me: {text}", "Repeat: {text}", "Say: {text}", 'Say "{text}"',
                   "Please repeat: {text}", 'Repeat this: "{text}"', "Say exactly this: {text}",
                   "Echo: {text}", "echo {text}", "repeat {text}"),
        slots={"text": text}, key=text, key_only=True, verbatim=True,
    )  # fmt: skip


def no_name(rng: Random) -> Question:
    return ask(
        rng, "memory", Answer("You have not told me your name.", "Unknown", {"name": None}),
        questions=("What is my name?", "What's my name?", "Do you know my name?", "Who am I?",
                   "Tell me my name.", "my name?"),
    )  # fmt: skip
