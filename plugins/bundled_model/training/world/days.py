"""The calendar: days, months and seasons, their order and length."""

# ruff: noqa: SIM905 - word lists read better as text

from __future__ import annotations

from random import Random

from world.everyday import ORDINALS
from world.question import Answer, Question, ask

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = (
    "January February March April May June July August September October November December".split()
)
SEASONS = "spring summer autumn winter".split()
LENGTHS = dict(zip(MONTHS, (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), strict=True))
CYCLES = {"day": DAYS, "month": MONTHS, "season": SEASONS}


def step(rng: Random) -> Question:
    kind = rng.choices(tuple(CYCLES), (5, 5, 1))[0]
    return _step(rng, kind, rng.randrange(len(CYCLES[kind])), rng.choice((1, -1)))


def _step(
    rng: Random, kind: str, i: int, direction: int, follow_ups: tuple[str, ...] = ()
) -> Question:
    cycle = CYCLES[kind]
    here, there = cycle[i], cycle[(i + direction) % len(cycle)]
    word = "after" if direction > 0 else "before"
    text = f"{there} comes {word} {here}."
    return ask(
        rng,
        f"{kind}s",
        Answer(text[:1].upper() + text[1:], there, {kind: here, word: there}),
        nouns=() if follow_ups else (
            f"the {kind} {word} {{here}}", f"the next {kind} after {{here}}" if direction > 0
            else f"the {kind} that comes before {{here}}"),
        questions=follow_ups or (
            f"What {kind} comes {word} {{here}}?", f"Which {kind} comes {word} {{here}}?",
            f"What comes {word} {{here}}?", *_follows(kind, direction),
            f"Which {kind} is {word} {{here}}?", f"{word} {{here}}",
            f"What {kind} is {word} {{here}}?", f"Which {kind} is right {word} {{here}}?",
            *_only_days(kind, direction),
        ),
        slots={"here": here},
        key=here,
        follow=lambda r: _go_on(r, kind, (i + direction) % len(cycle), direction),
    )  # fmt: skip


def _follows(kind: str, direction: int) -> tuple[str, ...]:
    if direction > 0:
        return (
            f"Which {kind} follows {{here}}?",
            "What follows {here}?",
            f"the {kind} following {{here}}",
        )
    return (f"Which {kind} precedes {{here}}?", "What precedes {here}?")


def _only_days(kind: str, direction: int) -> tuple[str, ...]:
    if kind != "day":
        return ()
    if direction > 0:
        return ("If today is {here}, what day is tomorrow?", "Today is {here}. What is tomorrow?")
    return ("If today is {here}, what day was yesterday?", "Today is {here}. What was yesterday?")


def _go_on(rng: Random, kind: str, i: int, direction: int) -> Question:
    cycle = CYCLES[kind]
    if rng.random() < 0.6:
        word = "after" if direction > 0 else "before"
        return _step(rng, kind, i, direction, (
            f"And {word} that?", f"And {word} it?", f"What comes {word} that?", f"And {word} {cycle[i]}?",
            f"and {word} that", f"And the {kind} {word} that?",
        ))  # fmt: skip
    if kind == "month":
        return _length(
            rng,
            cycle[i],
            (
                "How many days does it have?",
                "How long is it?",
                "How many days has it?",
                "And how many days does it have?",
            ),
        )
    return step(rng)


def jump(rng: Random) -> Question:
    i, n = rng.randrange(7), rng.randint(2, 10)
    here, there = DAYS[i], DAYS[(i + n) % 7]
    return ask(
        rng,
        "days",
        Answer(f"{n} days after {here} is {there}.", there, {"day": here, "later": there}),
        nouns=("the day {n} days after {here}",),
        questions=("What day is {n} days after {here}?", "Which day is {n} days after {here}?",
                   "Today is {here}. What day is it in {n} days?",
                   "If today is {here}, what day is it in {n} days?"),
        slots={"n": n, "here": here},
        key=f"{here} + {n}",
        follow=lambda r: _go_on(r, "day", (i + n) % 7, 1),
    )  # fmt: skip


def length(rng: Random) -> Question:
    return _length(rng, rng.choice(MONTHS))


def _length(rng: Random, month: str, follow_ups: tuple[str, ...] = ()) -> Question:
    n = LENGTHS[month]
    text = f"{month} has {n} days."
    if month == "February":
        text = "February has 28 days, and 29 in a leap year."
    return ask(
        rng,
        "months",
        Answer(text, str(n), {"month": month, "days": n}),
        nouns=() if follow_ups else ("the number of days in {month}", "the length of {month}"),
        questions=follow_ups or (
            "How many days does {month} have?", "How many days are in {month}?",
            "How many days are there in {month}?", "How long is {month}?", "days in {month}",
            "How many days has {month}?", "{month} has how many days?",
        ),
        slots={"month": month},
        key=month,
        follow=lambda r: _length(r, r.choice(MONTHS), (
            "And {month}?", "What about {month}?", "How about {month}?", "And in {month}?",
        )),
    )  # fmt: skip


def nth(rng: Random) -> Question:
    """The n-th of a cycle, and which one something is."""
    kind = rng.choice(("day", "month"))
    cycle, whole = CYCLES[kind], {"day": "the week", "month": "the year"}[kind]
    i = rng.randrange(len(cycle))
    name, ordinal = cycle[i], ORDINALS[i]
    data = {kind: name, "position": i + 1}
    if rng.random() < 0.6:
        if i == len(cycle) - 1 and rng.random() < 0.5:
            ordinal = "last"
        return ask(
            rng, f"{kind}s",
            Answer(f"The {ordinal} {kind} of {whole} is {name}.", name, data),
            nouns=(f"the {{nth}} {kind} of {whole}", f"the {{nth}} {kind}"),
            questions=(f"Which {kind} is the {{nth}} of {whole}?", f"Which {kind} is the {{nth}}?",
                       f"What {kind} is the {{nth}} {kind} of {whole}?"),
            slots={"nth": ordinal}, key=ordinal,
            follow=lambda r: _go_on(r, kind, i, 1),
        )  # fmt: skip
    return ask(
        rng, f"{kind}s",
        Answer(f"{name} is the {ordinal} {kind} of {whole}.", ordinal, data),
        nouns=(f"the position of {{name}} in {whole}",),
        questions=(f"Which {kind} of {whole} is {{name}}?", f"Which number is {{name}} in {whole}?",
                   f"What number {kind} is {{name}}?"),
        slots={"name": name}, key=name,
        follow=lambda r: _go_on(r, kind, i, 1),
    )  # fmt: skip


def weekend(rng: Random) -> Question:
    day = rng.choice(DAYS)
    word = "Yes" if day in DAYS[5:] else "No"
    kind = "weekend day" if day in DAYS[5:] else "weekday"
    return ask(
        rng, "days", Answer(f"{word}, {day} is a {kind}.", word, {"answer": word.lower()}),
        questions=("Is {day} on the weekend?", "Is {day} a weekend day?", "Is {day} in the weekend?",
                   "Does {day} belong to the weekend?"),
        slots={"day": day}, key=day,
    )  # fmt: skip
