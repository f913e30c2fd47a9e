"""Colours, opposites, animals, planets and the units of time: what a child knows."""

# ruff: noqa: SIM905 - word lists read better as text

from __future__ import annotations

from random import Random

from world.question import Answer, Question, ask, capitalised

# thing -> colour; things are written as a sentence about them would name them.
COLOUR_OF = {
    thing: colour
    for colour, things in {
        "red": "a strawberry|a tomato|blood|a cherry|a fire engine|a stop sign|a ruby|a "
            "ladybird|a raspberry|ketchup",
        "yellow": "a banana|the sun|a lemon|an egg yolk|a sunflower|a duckling|butter|corn|a "
            "daffodil|cheese",
        "green": "grass|a frog|a leaf|a cucumber|broccoli|spinach|an emerald|a pea|lettuce|a "
            "cactus|a lime|a crocodile",
        "blue": "the sky|the sea|the ocean|a sapphire|a blueberry|a blue whale|a cornflower",
        "orange": "an orange|a carrot|a pumpkin|a tangerine|a goldfish|an apricot|a basketball|a tiger",
        "purple": "a plum|a grape|lavender|an aubergine|a violet|an amethyst|an eggplant",
        "white": "snow|milk|a polar bear|salt|a swan|rice|cotton|a cloud|flour|sugar|a tooth|"
            "paper|a sheep|ice",
        "black": "coal|the night|a raven|a crow|a panther|ink|a tyre|a tire|pepper|a black hole|tar",
        "brown": "chocolate|a bear|wood|coffee|a chestnut|soil|a potato|a walnut|cinnamon|bread|"
            "a horse|mud",
        "grey": "an elephant|a mouse|a rock|a stone|ash|a dolphin|a rhino|a wolf|a rain cloud|"
            "cement|a koala",
        "pink": "a flamingo|a pig|bubblegum|a rose|a cherry blossom|candy floss|cotton candy",
        "gold": "a gold coin|a crown|a gold medal|a trumpet",
        "silver": "the moon|a silver coin|a spoon|a fork|a silver medal|a mirror",
    }.items()
    for thing in things.split("|")
}  # fmt: skip
MIXES = {
    ("blue", "yellow"): "green", ("blue", "red"): "purple", ("red", "yellow"): "orange",
    ("black", "white"): "grey", ("red", "white"): "pink", ("green", "red"): "brown",
    ("blue", "white"): "light blue", ("green", "white"): "light green",
    ("blue", "orange"): "brown", ("purple", "yellow"): "brown", ("blue", "green"): "turquoise",
    ("black", "red"): "dark red", ("black", "blue"): "dark blue", ("black", "green"): "dark green",
    ("orange", "yellow"): "amber", ("orange", "red"): "vermilion", ("purple", "white"): "lilac",
    ("brown", "white"): "beige", ("pink", "blue"): "lilac", ("white", "yellow"): "cream",
}  # fmt: skip
_OPPOSITES = (
    "hot cold|big small|up down|left right|day night|good bad|fast slow|high low|old young|new old|"
    "open closed|wet dry|happy sad|light dark|full empty|rich poor|strong weak|hard soft|long short|"
    "early late|loud quiet|thick thin|near far|in out|on off|yes no|first last|black white|"
    "clean dirty|heavy light|easy difficult|true false|win lose|begin end|buy sell|push pull|"
    "inside outside|always never|love hate|north south|east west|sweet sour|wide narrow|deep shallow|"
    "brave afraid|friend enemy|give take|laugh cry|before after|above below|summer winter|"
    "hello goodbye|top bottom|front back|cheap expensive|safe dangerous|asleep awake|alive dead|"
    "tall short|small big|cold hot|down up|right left|night day|bad good|slow fast|low high|"
    "young old|closed open|dry wet|sad happy|dark light|empty full|poor rich|weak strong|soft hard|"
    "late early|quiet loud|thin thick|far near|out in|off on|no yes|last first|white black|"
    "dirty clean|difficult easy|false true|lose win|end begin|sell buy|pull push|outside inside|"
    "never always|hate love|south north|west east|sour sweet|narrow wide|shallow deep|enemy friend|"
    "take give|cry laugh|after before|below above|winter summer|goodbye hello|bottom top|back front|"
    "expensive cheap|dangerous safe|awake asleep|dead alive"
)
OPPOSITES = dict(pair.split() for pair in _OPPOSITES.split("|"))
# animal -> (sound, young, legs)
ANIMALS = {
    line.split()[0]: (line.split()[1], line.split()[2], int(line.split()[3]))
    for line in (
        "dog woof puppy 4|cat meow kitten 4|cow moo calf 4|sheep baa lamb 4|pig oink piglet 4|"
        "horse neigh foal 4|duck quack duckling 2|hen cluck chick 2|lion roar cub 4|frog ribbit "
            "tadpole 4|"
        "bird tweet chick 2|owl hoot owlet 2|bee buzz larva 6|snake hiss snakelet 0|mouse squeak pup 4|"
        "wolf howl pup 4|donkey hee-haw foal 4|goat bleat kid 4|rooster cock-a-doodle-doo chick 2|"
        "crow caw chick 2|bear growl cub 4|goose honk gosling 2|turkey gobble poult 2|elephant "
            "trumpet calf 4"
    ).split("|")
}  # fmt: skip
LEGS = {name: legs for name, (_, _, legs) in ANIMALS.items()} | {
    "spider": 8, "ant": 6, "beetle": 6, "butterfly": 6, "fly": 6, "fish": 0, "worm": 0, "crab": 10,
    "penguin": 2, "kangaroo": 2, "tiger": 4, "rabbit": 4, "fox": 4, "camel": 4, "giraffe": 4,
    "zebra": 4, "ostrich": 2, "octopus": 0, "chicken": 2, "person": 2, "human": 2, "table": 4,
}  # fmt: skip
PLANETS = "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split()
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()
)
UNITS = {
    ("seconds", "a minute"): 60, ("minutes", "an hour"): 60, ("hours", "a day"): 24,
    ("days", "a week"): 7, ("months", "a year"): 12, ("days", "a year"): 365,
    ("weeks", "a year"): 52, ("years", "a decade"): 10, ("years", "a century"): 100,
    ("seasons", "a year"): 4, ("days", "a leap year"): 366, ("minutes", "half an hour"): 30,
    ("letters", "the alphabet"): 26, ("planets", "the solar system"): 8,
    ("centimetres", "a metre"): 100, ("metres", "a kilometre"): 1000, ("grams", "a kilogram"): 1000,
    ("colours", "the rainbow"): 7, ("sides", "a triangle"): 3, ("sides", "a square"): 4,
    ("fingers", "a hand"): 5, ("eggs", "a dozen"): 12, ("wheels", "a car"): 4,
    ("wheels", "a bicycle"): 2, ("sides", "a hexagon"): 6, ("sides", "a pentagon"): 5,
}  # fmt: skip


def _color(rng: Random, templates: tuple[str, ...]) -> tuple[str, ...]:
    """Both spellings of the word are asked; the answer keeps "colour"."""
    if rng.random() < 0.5:
        return templates
    return tuple(t.replace("colour", "color").replace("Colour", "Color") for t in templates)


_NO_PLURAL = (
    "mouse",
    "tooth",
    "sheep",
    "sun",
    "sky",
    "sea",
    "ocean",
    "night",
    "moon",
    "goldfish",
    "rhino",
)


def _plural(thing: str) -> str:
    """ "a cherry" -> "cherries"; what cannot be counted stays as it is."""
    article, _, noun = thing.partition(" ")
    if article not in ("a", "an") or noun in _NO_PLURAL:
        return ""
    if noun == "leaf" or noun == "wolf":
        return noun[:-1] + "ves"
    if noun == "ruby" or noun.endswith("rry"):
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("o", "ch", "s")) else "s")


def colour_of(rng: Random) -> Question:
    return _colour_of(rng, rng.choice(tuple(COLOUR_OF)))


def _colour_of(rng: Random, thing: str, follow_ups: tuple[str, ...] = ()) -> Question:
    colour = COLOUR_OF[thing]
    bare = thing.split(" ", 1)[1] if thing.split()[0] in ("a", "an", "the") else thing
    text = capitalised(f"{thing} is {colour}.")
    if not follow_ups and (many := _plural(thing)) and rng.random() < 0.2:
        follow_ups = _color(
            rng,
            (
                "What colour are {many}?",
                "Which colour are {many}?",
                "What colour do {many} have?",
                "colour of {many}",
            ),
        )
    else:
        many = ""
    return ask(
        rng,
        "colours",
        Answer(text, colour, {"thing": bare, "colour": colour}),
        nouns=() if follow_ups else _color(rng, ("the colour of {thing}", "{thing}'s colour")),
        questions=follow_ups or _color(rng, (
            "What colour is {thing}?", "Which colour is {thing}?", "What colour does {thing} have?",
            "{bare} colour", "colour of {bare}", "What is the usual colour of {thing}?",
            "{thing} has which colour?", "Which colour does {thing} have?", "colour of {thing}?",
        )),
        slots={"thing": thing, "bare": bare, "many": many},
        key=thing,
        follow=lambda r: _colour_of(r, r.choice(tuple(COLOUR_OF)), (
            "And {thing}?", "What about {thing}?", "and {thing}", "How about {thing}?",
            "{thing}?", "And what about {thing}?",
        )),
    )  # fmt: skip


def mix(rng: Random) -> Question:
    pair, result = rng.choice(tuple(MIXES.items()))
    a, b = rng.sample(pair, 2)
    return ask(
        rng,
        "colours",
        Answer(f"{capitalised(a)} and {b} make {result}.", result,
               {"colours": [a, b], "mix": result}),
        nouns=("the mix of {a} and {b}", "{a} mixed with {b}", "{a} and {b} mixed"),
        questions=_color(rng, (
            "What do {a} and {b} make?", "What colour do {a} and {b} make?",
            "What do you get when you mix {a} and {b}?", "Mix {a} and {b}.", "{a} + {b}",
            "Which colour do you get if you mix {a} with {b}?", "{a} and {b} make?",
            "What colour is {a} mixed with {b}?", "If I mix {a} and {b}, what do I get?",
        )),
        slots={"a": a, "b": b},
        key=f"{a} {b}",
    )  # fmt: skip


def is_colour(rng: Random) -> Question:
    thing = rng.choice(tuple(COLOUR_OF))
    colour = COLOUR_OF[thing]
    guess = colour if rng.random() < 0.5 else rng.choice(tuple(COLOUR_OF.values()))
    word = "Yes" if guess == colour else "No"
    return ask(
        rng, "colours", Answer(f"{word}, {thing} is {colour}.", word, {"answer": word.lower()}),
        questions=("Is {thing} {guess}?", "Is it true that {thing} is {guess}?",
                   "{thing} is {guess}, right?"),
        slots={"thing": thing, "guess": guess}, key=f"{thing} {guess}",
    )  # fmt: skip


def opposite(rng: Random) -> Question:
    return _opposite(rng, rng.choice(tuple(OPPOSITES)))


def _opposite(rng: Random, word: str, follow_ups: tuple[str, ...] = ()) -> Question:
    other = OPPOSITES[word]
    return ask(
        rng,
        "opposites",
        Answer(f"The opposite of {word} is {other}.", other, {"word": word, "opposite": other}),
        nouns=() if follow_ups else ("the opposite of {word}", 'the opposite of "{word}"'),
        questions=follow_ups or ("What's the opposite of {word}?", "opposite of {word}",
                                 "Which word is the opposite of {word}?", "{word} opposite",
                                 "The opposite of {word} is"),
        slots={"word": word},
        key=word,
        follow=lambda r: _opposite(r, r.choice(tuple(OPPOSITES)), (
            "And of {word}?", "And {word}?", "What about {word}?", "How about {word}?",
        )),
    )  # fmt: skip


def animal(rng: Random) -> Question:
    name, (sound, young, _) = rng.choice(tuple(ANIMALS.items()))
    a = "an" if name[0] in "aeiou" else "a"
    if rng.random() < 0.5:
        return ask(
            rng, "animals",
            Answer(f"{a.title()} {name} says {sound}.", sound, {"animal": name, "sound": sound}),
            nouns=("the sound of {a} {name}", "the sound {a} {name} makes"),
            questions=("What does {a} {name} say?", "What sound does {a} {name} make?",
                       "Which sound does {a} {name} make?", "How does {a} {name} sound?",
                       "What does the {name} say?", "{name} sound"),
            slots={"a": a, "name": name}, key=name,
        )  # fmt: skip
    return ask(
        rng, "animals",
        Answer(f"A young {name} is called a {young}.".replace("a owl", "an owl"), young,
               {"animal": name, "young": young}),
        nouns=("the name of a young {name}", "the name of a baby {name}"),
        questions=("What is a baby {name} called?", "What is a young {name} called?",
                   "What do you call a baby {name}?", "What do you call a young {name}?"),
        slots={"name": name}, key=name,
    )  # fmt: skip


def legs(rng: Random) -> Question:
    return _legs(rng, rng.choice(tuple(LEGS)))


def _legs(rng: Random, name: str, follow_ups: tuple[str, ...] = ()) -> Question:
    n = LEGS[name]
    a = "an" if name[0] in "aeiou" else "a"
    return ask(
        rng, "animals",
        Answer(f"{a.title()} {name} has {n or 'no'} legs.", str(n), {"animal": name, "legs": n}),
        nouns=() if follow_ups else ("the number of legs of {a} {name}",),
        questions=follow_ups or (
            "How many legs does {a} {name} have?", "How many legs has {a} {name}?",
            "{name} legs", "How many legs are on {a} {name}?", "How many legs do you see on {a} {name}?",
        ),
        slots={"a": a, "name": name}, key=name,
        follow=lambda r: _legs(r, r.choice(tuple(LEGS)), (
            "And {a} {name}?", "What about {a} {name}?", "How about {a} {name}?",
        )),
    )  # fmt: skip


def unit(rng: Random) -> Question:
    (small, large), n = rng.choice(tuple(UNITS.items()))
    whole = large.split(" ", 1)[1]
    return ask(
        rng, "units",
        Answer(capitalised(f"{large} has {n} {small}."), str(n), {"unit": whole, small: n}),
        nouns=("the number of {small} in {large}",),
        questions=("How many {small} are in {large}?", "How many {small} does {large} have?",
                   "How many {small} are there in {large}?", "How many {small} in {large}?",
                   "How many {small} has {large}?", "{small} in {large}"),
        slots={"small": small, "large": large}, key=f"{small} {large}",
    )  # fmt: skip


def planet(rng: Random) -> Question:
    i = rng.randrange(len(PLANETS))
    name, nth = PLANETS[i], ORDINALS[i]
    return ask(
        rng, "planets",
        Answer(f"The {nth} planet from the sun is {name}.", name, {"planet": name, "position": i + 1}),
        nouns=("the {nth} planet", "the {nth} planet from the sun"),
        questions=("Which planet is the {nth} from the sun?", "Which planet is the {nth} one?",
                   "Which is the {nth} planet?"),
        slots={"nth": nth}, key=nth,
    )  # fmt: skip
