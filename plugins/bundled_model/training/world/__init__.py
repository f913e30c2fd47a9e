"""The small world that the bundled model lives in: every topic, and how often it is practised.

A topic is a function that draws one question. To teach the model something new, write such a
function and give it a weight here.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from world import days, everyday, geography, lists, memory, numbers, spelling, stories, talk
from world.question import Question

Topic = Callable[[Random], Question]

# Weights are shares of the questions asked. What must be calculated takes the most practice.
TOPICS: dict[Topic, float] = {
    geography.capital_of: 8,
    geography.country_of: 6,
    geography.is_capital: 4,
    geography.continent_of: 3,
    geography.in_country: 2,
    geography.is_in: 1.5,
    geography.other_name: 4,
    geography.nicknamed: 2,
    geography.about: 2,
    geography.unknown_place: 2,
    geography.switching: 3,
    geography.continents: 0.2,
    numbers.plus: 18,
    numbers.minus: 18,
    numbers.times: 5,
    numbers.over: 5,
    numbers.three_terms: 3,
    numbers.too_large: 2,
    numbers.word_problem: 2.5,
    numbers.compare: 2.5,
    numbers.even_or_odd: 0.7,
    numbers.one_number: 3,
    everyday.colour_of: 4.5,
    everyday.mix: 1.5,
    everyday.is_colour: 1.5,
    everyday.opposite: 2,
    everyday.animal: 1.5,
    everyday.legs: 1.2,
    everyday.unit: 1,
    everyday.planet: 0.5,
    days.step: 2.5,
    days.jump: 1.5,
    days.length: 1.2,
    days.nth: 1.2,
    days.weekend: 0.6,
    spelling.spell: 5,
    spelling.backwards: 5,
    spelling.count_letters: 4,
    spelling.count_one_letter: 5,
    spelling.letter_at: 2.5,
    spelling.neighbour_letter: 1,
    lists.whole: 1.5,
    lists.some: 3,
    lists.countries: 2,
    lists.count: 4,
    memory.repeat: 3,
    memory.no_name: 0.15,
    stories.story: 1,
    talk.fixed: 6,
    talk.pleasantry: 1,
    talk.outside: 6,
}

_NAMES, _WEIGHTS = tuple(TOPICS), tuple(TOPICS.values())


def any_question(rng: Random) -> Question:
    """One question of any topic, held out or not."""
    return rng.choices(_NAMES, _WEIGHTS)[0](rng)


def seen(rng: Random, draw: Topic = any_question) -> Question:
    """A question that training may show."""
    while (question := draw(rng)).held_out:
        pass
    return question


def unseen(rng: Random, draw: Topic, tries: int = 5000) -> Question | None:
    """A question that training never shows; None where the topic holds nothing out."""
    for _ in range(tries):
        if (question := draw(rng)).held_out:
            return question
    return None
