"""Lists and counting: the longer answers, which make a stream worth watching."""

# ruff: noqa: SIM905 - word lists read better as text

from __future__ import annotations

from random import Random

from world.countries import CONTINENTS, COUNTRIES
from world.days import DAYS, MONTHS, SEASONS
from world.everyday import PLANETS
from world.numbers import WORDS
from world.question import Answer, Question, ask, listing
from world.spelling import ALPHABET

RAINBOW = "red orange yellow green blue indigo violet".split()
# In the order in which "three colours" are given.
THINGS = {
    "colours": "red blue green yellow orange purple black white brown grey pink gold".split(),
    "fruits": "apple banana orange pear grape cherry lemon plum peach mango melon kiwi".split(),
    "vegetables": "carrot potato onion cabbage spinach pea leek pumpkin broccoli celery".split(),
    "animals": "dog cat horse cow sheep lion tiger elephant bear fox wolf rabbit".split(),
    "birds": "eagle owl robin crow duck swan goose penguin parrot sparrow".split(),
    "numbers": "one two three four five six seven eight nine ten".split(),
    "shapes": "circle square triangle rectangle star hexagon oval pentagon".split(),
    "instruments": "piano guitar violin drum flute trumpet harp cello".split(),
    "sports": "football tennis swimming running cycling basketball skiing rowing".split(),
    "flowers": "rose tulip daisy lily sunflower violet orchid poppy".split(),
    "trees": "oak pine birch maple willow ash beech elm".split(),
    "drinks": "water milk tea coffee juice lemonade cocoa soda".split(),
    "vehicles": "car bus train bicycle boat truck plane tram".split(),
    "clothes": "shirt coat hat sock shoe scarf glove dress".split(),
    "planets": PLANETS,
    "vowels": "a e i o u".split(),
}
_MANY = {c: [x.bare for x in COUNTRIES if x.continent == c] for c in CONTINENTS}
WHOLE = {
    "days of the week": DAYS,
    "months of the year": MONTHS,
    "seasons": SEASONS,
    "planets": PLANETS,
    "colours of the rainbow": RAINBOW,
    "letters of the alphabet": list(ALPHABET),
    "vowels": THINGS["vowels"],
}


def whole(rng: Random) -> Question:
    """A list that everybody knows by name."""
    name = rng.choice(tuple(WHOLE))
    items = WHOLE[name]
    asked = rng.choice((name, name, name.split()[0]))
    asked = {"letters": "letters in the alphabet", "colours": "colours in a rainbow"}.get(
        asked, asked
    )
    if "colours" in asked and rng.random() < 0.4:
        asked = asked.replace("colours", "colors")
    key = name.split()[0]
    return ask(
        rng,
        "lists",
        Answer(f"The {name} are {listing(items)}.", ", ".join(items), {key: items}),
        nouns=("the {name}", "a list of the {name}", "all the {name}", "the names of the {name}"),
        questions=(
            "List the {name}.", "List all {name}.", "What are the {name}?", "Name the {name}.",
            "Name all the {name}.", "Which are the {name}?", "Can you list the {name}?",
            "List the {name} in order.", "What are the {name} in order?", "The {name} are",
            "Write down the {name}.", "Tell me all the {name}.", "list {name}", "list the {name}",
        ),
        slots={"name": asked},
        key=name,
    )  # fmt: skip


def some(rng: Random) -> Question:
    """The first few of a kind: always the same ones, so that an answer can be checked."""
    name = rng.choice(tuple(THINGS))
    n = rng.randint(1, min(8, len(THINGS[name])))
    return _some(rng, name, n)


def _some(rng: Random, name: str, n: int, follow_ups: tuple[str, ...] = ()) -> Question:
    items = THINGS[name][:n]
    number: object = n if rng.random() < 0.6 else WORDS[n]
    asked = name if n > 1 else name.rstrip("s") if name != "clothes" else "piece of clothing"
    if "colour" in asked and rng.random() < 0.4:
        asked = asked.replace("colour", "color")
    return ask(
        rng,
        "lists",
        Answer(f"{listing(items)}.".capitalize() if name != "planets" else f"{listing(items)}.",
               ", ".join(items), {name: items}),
        nouns=() if follow_ups else ("{n} {name}", "a list of {n} {name}", "the names of {n} {name}"),
        questions=follow_ups or (
            "List {n} {name}.", "Name {n} {name}.", "Give me {n} {name}.", "Tell me {n} {name}.",
            "Can you name {n} {name}?", "Can you list {n} {name}?", "list {n} {name}", "{n} {name}",
            "Write down {n} {name}.", "I need {n} {name}.", "Name me {n} {name}.",
            "Please list {n} {name}.", "What are {n} {name}?",
        ),
        slots={"n": number, "name": asked},
        key=f"{n} {name}",
        follow=lambda r: _follow_some(r, name, n),
    )  # fmt: skip


def _follow_some(rng: Random, name: str, n: int) -> Question:
    other = rng.choice(tuple(THINGS))
    m = min(n, len(THINGS[other]))
    if m < n or n == 1:
        return some(rng)
    return _some(rng, other, n, ("And {n} {name}?", "Now {n} {name}.", "What about {n} {name}?"))


def countries(rng: Random) -> Question:
    continent = rng.choice(CONTINENTS)
    names = _MANY[continent]
    n = rng.randint(1, min(10, len(names)))
    if len(names) < 24 and rng.random() < 0.2:
        n = len(names)
    items = names[:n]
    asked = f"all {n}" if n == len(names) and n > 10 else f"{n}" if rng.random() < 0.6 else WORDS[n]
    return ask(
        rng,
        "lists",
        Answer(f"{listing(items)}.", ", ".join(items), {"countries": items}),
        nouns=("{n} {word} in {continent}", "a list of {n} {word} in {continent}"),
        questions=(
            "List {n} {word} in {continent}.", "Name {n} {word} in {continent}.",
            "Tell me {n} {word} in {continent}.", "{n} {word} in {continent}",
            "List {n} {word} of {continent}.", "Name {n} {word} from {continent}.",
            "Can you name {n} {word} in {continent}?",
        ),
        slots={"n": asked, "continent": continent, "word": "country" if n == 1 else "countries"},
        key=f"{n} {continent}",
    )  # fmt: skip


def count(rng: Random) -> Question:
    """Counting up, down, or in steps, up to some hundred tokens long."""
    kind = rng.choices(("up", "from", "down", "even", "odd", "steps"), (5, 4, 3, 1, 1, 2))[0]
    start, end, step = 1, rng.choice((5, 10, 10, 20, rng.randint(2, 40), rng.randint(2, 100))), 1
    questions: tuple[str, ...] = (
        "Count to {end}.", "Count from 1 to {end}.", "count to {end}", "Can you count to {end}?",
        "List the numbers from 1 to {end}.", "Please count to {end}.", "Count up to {end}.",
        "Write the numbers from 1 to {end}.", "count from 1 to {end}", "Say the numbers 1 to {end}.",
    )  # fmt: skip
    if kind == "from":
        start = rng.randint(0, 300)
        end = start + rng.randint(2, 25)
        questions = (
            "Count from {start} to {end}.",
            "List the numbers from {start} to {end}.",
            "count from {start} to {end}",
            "Write the numbers from {start} to {end}.",
        )
    elif kind == "down":
        start, end, step = end, rng.choice((0, 1, 1)), -1
        questions = (
            "Count down from {start} to {end}.",
            "Count backwards from {start} to {end}.",
            "count down from {start} to {end}",
            "Count from {start} down to {end}.",
        )
    elif kind in ("even", "odd"):
        start, step = (2, 2) if kind == "even" else (1, 2)
        end = rng.randint(6, 50)
        questions = (
            f"List the {kind} numbers up to {{end}}.",
            f"{kind} numbers up to {{end}}",
            f"Name the {kind} numbers up to {{end}}.",
            f"Count to {{end}} in {kind} numbers.",
        )
    elif kind == "steps":
        step = rng.choice((2, 3, 4, 5, 10, 10))
        start, end = step, step * rng.randint(3, 12)
        questions = (
            "Count to {end} in steps of {step}.",
            "Count by {step} to {end}.",
            "Count in steps of {step} to {end}.",
            "Count in {step}s to {end}.",
            "List the multiples of {step} up to {end}.",
        )
    to: object = end
    if 0 <= end <= 20 and rng.random() < 0.3:
        to = WORDS[end]
    numbers = list(range(start, end + (1 if step > 0 else -1), step))
    text = ", ".join(map(str, numbers))
    return ask(
        rng,
        "counting",
        Answer(f"{text}.", text, {"numbers": numbers}),
        questions=questions,
        slots={"start": start, "end": to, "step": step},
        key=f"{start} {end} {step}",
    )
