"""Tiny stories: sentences with moving parts, for long streams and for sampling with temperature."""

# ruff: noqa: SIM905 - word lists read better as text

from __future__ import annotations

from random import Random

from world.lists import THINGS
from world.memory import NAMES
from world.question import Answer, Question, ask

HEROES = (*THINGS["animals"], "owl", "duck", "mouse", "frog", "bee", "robot", "girl", "boy")
_PLACES = "forest garden castle village valley meadow library harbour city desert island".split()
_TRAITS = "small brave curious quiet clever happy shy kind hungry old".split()
_FRIENDS = "an owl,a snail,a fox,a mouse,a wise woman,a robot,a little bird,a frog".split(",")
_OBJECTS = "key lamp map book coin bell star flower letter drum kite stone".split()
_COLOURS = "red blue green yellow golden silver white purple".split()
_MIDDLES = (
    "One morning, {name} found a {colour} {object} near the {place}.",
    "One day, {name} lost a {colour} {object} in the {place}.",
    "Every evening, {name} looked for a {colour} {object} in the {place}.",
)
_MEETINGS = (
    'On the way, {name} met {friend}. "Where are you going?" asked the stranger.',
    'Then {friend} came by. "Can I help you?" asked the stranger.',
    'Soon {friend} appeared. "That is a fine day," said the stranger.',
)
_TURNS = (
    '"Come with me," said {name}, and they walked together until night.',
    '"Yes, please," said {name}, and they worked until the moon came up.',
    "{name} smiled and told the whole story.",
)
_ENDS = (
    "From that day on, they were friends.",
    "In the end, the {colour} {object} was safe at home.",
    "And {name} slept well that night.",
)


def story_text(rng: Random, hero: str) -> str:
    trait = rng.choice(_TRAITS)
    article = "an" if trait[0] in "aeiou" else "a"
    sentences = (
        f"Once upon a time there was {article} {trait} {hero} called {{name}}.",
        "{name} lived in a {place}.",
        rng.choice(_MIDDLES), rng.choice(_MEETINGS), rng.choice(_TURNS), rng.choice(_ENDS),
        "The end.",
    )  # fmt: skip
    return " ".join(sentences).format(
        name=rng.choice(NAMES), place=rng.choice(_PLACES), colour=rng.choice(_COLOURS),
        object=rng.choice(_OBJECTS), friend=rng.choice(_FRIENDS),
    )  # fmt: skip


def story(rng: Random) -> Question:
    """No identity: a story has no one right answer, so it is trained and not scored."""
    hero = rng.choice(HEROES)
    text = story_text(rng, hero)
    article = "an" if hero[0] in "aeiou" else "a"
    return ask(
        rng, "stories", Answer(text, text, {"story": text}),
        questions=("Tell me a story about {a} {hero}.", "Write a story about {a} {hero}.",
                   "A story about {a} {hero}, please.", "Can you tell me a story about {a} {hero}?",
                   "Tell me a story.", "Write a short story.", "tell me a story about {a} {hero}",
                   "Write a short story about {a} {hero}.", "Tell a story about {a} {hero}."),
        slots={"a": article, "hero": hero},
    )  # fmt: skip
