"""Countries, capitals, continents and other names, with the follow-ups that people ask."""

# ruff: noqa: SIM905 - word lists read better as text

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

from world.countries import CONTINENTS, COUNTRIES, Country, without_accents
from world.question import Answer, Question, ask, capitalised, misspelled

CAPITAL_ALIASES = {
    "Washington, D.C.": ("Washington", "Washington DC", "Washington D.C."),
    "New Delhi": ("Delhi",),
    "Kyiv": ("Kiev",),
    "Beijing": ("Peking",),
    "Sri Jayawardenepura Kotte": ("Kotte",),
    "Luxembourg City": ("Luxembourg",),
    "Saint John's": ("St. John's",),
    "Saint George's": ("St. George's",),
}
NO_CAPITALS = (
    "Barcelona|New York|Milan|Sydney|Toronto|Istanbul|Mumbai|Shanghai|Rio de Janeiro|Lagos|Munich|"
    "Hamburg|Frankfurt|Geneva|Zurich|Lyon|Marseille|Naples|Venice|Florence|Manchester|Liverpool|"
    "Los Angeles|Chicago|Boston|San Francisco|Vancouver|Montreal|Osaka|Kyoto|Busan|Karachi|Dubai|"
    "Johannesburg|Cape Town|Casablanca|Melbourne|Auckland|Saint Petersburg|Krakow|Antwerp|Seattle|"
    "Gotham|Hogwarts|Mordor|Porto|Seville|Cologne|Rotterdam|Gothenburg|Bergen"
).split("|")
NO_COUNTRIES = (
    "Atlantis|Narnia|Wakanda|Texas|California|Bavaria|Scotland|Wales|Catalonia|Tuscany|Florida|"
    "Sicily|Normandy|Quebec|Ontario|Siberia|Antarctica|Greenland|Mars|the Moon|Middle-earth|Utopia|"
    "Ruritania|Europe|Asia|Africa|Tasmania|Bali|Corsica|Hawaii|Alaska|Gondor|Elbonia|Zamunda"
).split("|")
_SYLLABLES = "ba co du fra gor hel ist ka lor mir nov pel qua ros syl tur vel wex yor zan".split()

OTHER_NAME_FOLLOW_UPS = (
    "What is another name for it?", "What else is it called?", "Does it have a nickname?",
    "Does it have another name?", "Another name for it?", "What is its nickname?",
    "Is there another name for it?", "Is it known by another name?", "What is it also called?",
    "And what is its other name?", "Do you know another name for it?", "Any other name?",
    "Tell me another name for it.", "What do people also call it?", "And its nickname?",
)  # fmt: skip
CONTINENT_FOLLOW_UPS = (
    "Which continent is that in?", "What continent is it in?", "What continent is it on?",
    "On which continent is it?", "And which continent?", "Which continent?", "And the continent?",
    "What continent is that?", "And what continent is that on?", "And on which continent is it?",
)  # fmt: skip
COUNTRY_FOLLOW_UPS = (
    "What country is it in?", "Which country is that in?", "In which country is it?",
    "What country does it belong to?", "And which country is it in?", "Which country is it in?",
)  # fmt: skip
CAPITAL_FOLLOW_UPS = (
    "What is its capital?", "And its capital?", "And the capital?", "What's the capital of it?",
    "Which city is its capital?", "What is the capital there?", "And what is its capital?",
    "What is the capital of that country?",
)  # fmt: skip
ABOUT_FOLLOW_UPS = ("Tell me more.", "Tell me more about it.", "What else do you know about it?")
SWITCH_FOLLOW_UPS = (
    "And {place}?", "What about {place}?", "And of {place}?", "How about {place}?", "and {place}",
    "Now {place}.", "And for {place}?", "The same for {place}.", "And what about {place}?",
)  # fmt: skip

_NICKNAMES = Counter(c.other_capital for c in COUNTRIES)


def _typed(rng: Random, names: tuple[str, ...]) -> str:
    name = names[0] if rng.random() < 0.6 else rng.choice(names)
    return misspelled(rng, name) if len(name) > 5 and rng.random() < 0.05 else name


def _country_typed(rng: Random, country: Country) -> str:
    return _typed(rng, (*country.spoken, country.bare))


def _capital_typed(rng: Random, country: Country) -> str:
    capital = country.capital
    return _typed(rng, (capital, without_accents(capital), *CAPITAL_ALIASES.get(capital, ())))


def _pair(country: Country) -> dict[str, str]:
    return {"country": country.bare, "capital": country.capital}


def capital_of(rng: Random) -> Question:
    return _capital_of(rng, rng.choice(COUNTRIES))


def _capital_of(rng: Random, country: Country, follow_ups: tuple[str, ...] = ()) -> Question:
    text = f"The capital of {country.name} is {country.capital}."
    return ask(
        rng,
        "capitals",
        Answer(text, country.capital, _pair(country)),
        nouns=() if follow_ups else ("the capital of {country}", "the capital city of {country}",
                                     "{country}'s capital"),
        questions=follow_ups or (
            "Which city is the capital of {country}?", "What city is the capital of {country}?",
            "capital of {country}", "capital {country}", "{country} capital",
            "What is the name of the capital of {country}?", "Where is the capital of {country}?",
            "What do you call the capital of {country}?", "Name the capital city of {country}.",
            "The capital of {country} is", "The capital of {country} is?", "{country}: capital?",
            "I live in {country}. What is the capital?",
            "What do people call the capital of {country}?",
            "My friend comes from {country}. Which city is the capital?",
            "I would like to visit the capital of {country}. What is it called?",
            "I am travelling to {country}. What is its capital?", "Capital city of {country}?",
            "Which city is {country}'s capital?", "Does {country} have a capital?",
        ),
        slots={"country": _country_typed(rng, country), "place": _country_typed(rng, country)},
        key=country.name,
        follow=lambda r: _follow_place(r, country, is_capital=True),
    )  # fmt: skip


def country_of(rng: Random) -> Question:
    return _country_of(rng, rng.choice(COUNTRIES))


def _country_of(rng: Random, country: Country, follow_ups: tuple[str, ...] = ()) -> Question:
    text = f"{country.capital} is the capital of {country.name}."
    return ask(
        rng,
        "countries",
        Answer(text, country.bare, _pair(country)),
        nouns=() if follow_ups else ("the country whose capital is {capital}",),
        questions=follow_ups or (
            "Which country has the capital {capital}?", "What country is {capital} the capital of?",
            "{capital} is the capital of which country?", "{capital} is the capital of",
            "Whose capital is {capital}?", "Of which country is {capital} the capital?",
            "{capital} is the capital of what country?", "What is {capital} the capital of?",
            "Which country is {capital} the capital of?", "{capital} is the capital of?",
            "Which country's capital is {capital}?", "Which country does {capital} belong to?",
            "Name the country with the capital {capital}.", "What country is {capital} in?",
            "Which country is {capital} in?", "In which country is {capital}?",
        ),
        slots={"capital": _capital_typed(rng, country), "place": _capital_typed(rng, country)},
        key=country.name,
        follow=lambda r: _follow_place(r, country, is_capital=False),
    )  # fmt: skip


def is_capital(rng: Random) -> Question:
    country = rng.choice(COUNTRIES)
    right = rng.random() < 0.5
    other = country if right else rng.choice(COUNTRIES)
    right = other is country
    text = (
        f"Yes, {country.capital} is the capital of {country.name}." if right
        else f"No, the capital of {country.name} is {country.capital}."
    )  # fmt: skip
    word = "Yes" if right else "No"
    return ask(
        rng,
        "capitals",
        Answer(text, word, {"answer": word.lower()}),
        questions=(
            "Is {city} the capital of {country}?", "Is the capital of {country} {city}?",
            "The capital of {country} is {city}, right?", "Is {city} {country}'s capital?",
            "Is it true that {city} is the capital of {country}?",
        ),
        slots={"city": other.capital, "country": country.name},
        key=f"{country.name}|{other.name}",
        follow=lambda r: _follow_place(r, country, is_capital=True),
    )  # fmt: skip


def _place(country: Country, is_capital: bool) -> tuple[str, str]:
    return (country.capital, "city") if is_capital else (country.name, "country")


def continent_of(rng: Random) -> Question:
    return _continent_of(rng, rng.choice(COUNTRIES), rng.random() < 0.4)


def _continent_of(
    rng: Random, country: Country, is_capital: bool, follow_ups: tuple[str, ...] = ()
) -> Question:
    place, kind = _place(country, is_capital)
    data = {kind: place.removeprefix("the "), "continent": country.continent}
    typed = _capital_typed(rng, country) if is_capital else _country_typed(rng, country)
    return ask(
        rng,
        "continents",
        Answer(capitalised(f"{place} is in {country.continent}."), country.continent, data),
        nouns=() if follow_ups else ("the continent of {place}", "the continent {place} is in"),
        questions=follow_ups or (
            "Which continent is {place} in?", "What continent is {place} in?",
            "On which continent is {place}?", "What continent does {place} belong to?",
            "In which continent is {place}?", "What continent is {place} on?",
            "{place} is on which continent?", "{place} lies on which continent?",
            "Of which continent is {place} a part?", "{place} continent", "{place}: which continent?",
        ),
        slots={"place": typed},
        key=place,
        follow=lambda r: _follow_place(r, country, is_capital),
    )  # fmt: skip


def is_in(rng: Random) -> Question:
    country, is_capital = rng.choice(COUNTRIES), rng.random() < 0.3
    guess = country.continent if rng.random() < 0.5 else rng.choice(CONTINENTS)
    place, _ = _place(country, is_capital)
    word = "Yes" if guess == country.continent else "No"
    return ask(
        rng,
        "continents",
        Answer(f"{word}, {place} is in {country.continent}.", word, {"answer": word.lower()}),
        questions=("Is {place} in {guess}?", "Is {place} a part of {guess}?",
                   "Does {place} lie in {guess}?",
                   "{place} is in {guess}, right?", "Is it true that {place} is in {guess}?"),
        slots={"place": place, "guess": guess},
        key=f"{place} {guess}",
        follow=lambda r: _follow_place(r, country, is_capital),
    )  # fmt: skip


def in_country(rng: Random) -> Question:
    return _where(rng, rng.choice(COUNTRIES), rng.random() < 0.6)


def _where(
    rng: Random, country: Country, is_capital: bool, follow_ups: tuple[str, ...] = ()
) -> Question:
    place, kind = _place(country, is_capital)
    if is_capital:
        answer = Answer(f"{place} is in {country.name}.", country.bare, _pair(country))
    else:
        data = {kind: country.bare, "continent": country.continent}
        text = capitalised(f"{place} is in {country.continent}.")
        answer = Answer(text, country.continent, data)
    typed = _capital_typed(rng, country) if is_capital else _country_typed(rng, country)
    return ask(
        rng,
        "countries",
        answer,
        questions=follow_ups or ("Where is {place}?", "Where's {place}?", "Where can I find {place}?",
                                 "Where does {place} lie?", "Where in the world is {place}?"),
        slots={"place": typed},
        key=place,
        follow=lambda r: _follow_place(r, country, is_capital),
    )  # fmt: skip


def other_name(rng: Random) -> Question:
    country, is_capital = rng.choice(COUNTRIES), rng.random() < 0.5
    if not _other(country, is_capital) and rng.random() < 0.5:
        return other_name(rng)
    return _other_name(rng, country, is_capital)


def _other(country: Country, is_capital: bool) -> str:
    return country.other_capital if is_capital else country.other_name


def _other_name(
    rng: Random, country: Country, is_capital: bool, follow_ups: tuple[str, ...] = ()
) -> Question:
    place, _ = _place(country, is_capital)
    other = _other(country, is_capital)
    text = f"{place} is also called {other}." if other else f"I know no other name for {place}."
    data = {"name": place.removeprefix("the "), "other_name": other or None}
    return ask(
        rng,
        "other names",
        Answer(capitalised(text), capitalised(other) or "None", data),
        nouns=() if follow_ups else ("another name for {place}", "the nickname of {place}",
                                     "the other name of {place}"),
        questions=follow_ups or (
            "What else is {place} called?", "Does {place} have a nickname?",
            "Does {place} have another name?", "What is {place} also called?",
            "What is {place} also known as?", "How else do people call {place}?",
            "{place} is also called", "{place} nickname", "another name for {place}",
        ),
        slots={"place": place},
        key=place,
        follow=lambda r: _follow_place(r, country, is_capital),
    )  # fmt: skip


def nicknamed(rng: Random) -> Question:
    known = [c for c in COUNTRIES if c.other_capital and _NICKNAMES[c.other_capital] == 1]
    country = rng.choice(known)
    text = f"{country.other_capital} is {country.capital}, the capital of {country.name}."
    data = {"name": country.capital, "other_name": country.other_capital}
    return ask(
        rng,
        "other names",
        Answer(capitalised(text), country.capital, data),
        questions=(
            "Which city is called {nickname}?", "Which city is also called {nickname}?",
            "What city is known as {nickname}?", "Which capital is known as {nickname}?",
            "Which capital is also called {nickname}?", "What city has the nickname {nickname}?",
        ),
        slots={"nickname": country.other_capital},
        key=country.name,
        follow=lambda r: _follow_place(r, country, is_capital=True),
    )  # fmt: skip


def about(rng: Random) -> Question:
    return _about(rng, rng.choice(COUNTRIES), rng.random() < 0.4)


def _about(
    rng: Random, country: Country, is_capital: bool, follow_ups: tuple[str, ...] = ()
) -> Question:
    place, _ = _place(country, is_capital)
    other = _other(country, is_capital)
    if is_capital:
        text = f"{place} is the capital of {country.name}, a country in {country.continent}."
    else:
        text = f"{place} is a country in {country.continent}. Its capital is {country.capital}."
    if other:
        text += f" It is also called {other}."
    return ask(
        rng,
        "about places",
        Answer(capitalised(text), _short_about(country, is_capital),
               _pair(country) | {"continent": country.continent}),
        nouns=() if follow_ups else ("{place}",),
        questions=follow_ups or (
            "Tell me about {place}.", "What do you know about {place}?", "Describe {place}.",
            "Tell me something about {place}.", "Do you know {place}?", "Facts about {place}",
            "What can you tell me about {place}?", "Who or what is {place}?",
        ),
        slots={"place": place},
        key=place,
        follow=lambda r: _follow_place(r, country, is_capital),
    )  # fmt: skip


def _short_about(country: Country, is_capital: bool) -> str:
    return f"The capital of {country.name}" if is_capital else f"A country in {country.continent}"


def unknown_place(rng: Random) -> Question:
    if rng.random() < 0.5:
        invented = capitalised("".join(rng.choices(_SYLLABLES, k=rng.randint(2, 3))))
        place = rng.choice((*NO_COUNTRIES, invented + rng.choice(("ia", "land", "stan", ""))))
        text = f"I know no country called {place}."
        questions = (
            "What is the capital of {place}?",
            "capital of {place}",
            "{place} capital",
            "Which city is the capital of {place}?",
            "Tell me the capital of {place}.",
        )
    else:
        invented = capitalised("".join(rng.choices(_SYLLABLES, k=rng.randint(2, 3))))
        place = rng.choice((*NO_CAPITALS, invented, invented))
        text = f"I know no capital called {place}."
        questions = ("Which country has the capital {place}?", "{place} is the capital of?",
                     "What country is {place} the capital of?", "Which country is {place} in?",
                     "Where is {place}?")  # fmt: skip
    answer = Answer(text, "Unknown", {"answer": None})
    return ask(rng, "unknown places", answer, questions=questions,
               slots={"place": place}, key=place, verbatim=True)  # fmt: skip


def _follow_place(rng: Random, country: Country, is_capital: bool) -> Question:
    """What people ask next about a place; "it" is the place that the last answer was about."""
    roll = rng.random()
    if roll < 0.3:
        return _other_name(rng, country, is_capital, OTHER_NAME_FOLLOW_UPS)
    if roll < 0.48:
        return _continent_of(rng, country, is_capital, CONTINENT_FOLLOW_UPS)
    if roll < 0.64 and is_capital:
        return _where(rng, country, is_capital, COUNTRY_FOLLOW_UPS)
    if roll < 0.64:
        return _capital_of(rng, country, CAPITAL_FOLLOW_UPS)
    if roll < 0.72:
        return _about(rng, country, is_capital, ABOUT_FOLLOW_UPS)
    return capital_of(rng) if is_capital else country_of(rng)


def switching(rng: Random) -> Question:
    """A question that the next one shortens: "And Germany?"."""
    first, second = rng.sample(COUNTRIES, 2)
    one, other = rng.choice(
        ((_capital_of, _capital_of), (_country_of, _country_of), (_continent, _continent))
    )
    question = one(rng, first)
    return replace(question, follow=lambda r: other(r, second, SWITCH_FOLLOW_UPS))


def _continent(rng: Random, country: Country, follow_ups: tuple[str, ...] = ()) -> Question:
    return _continent_of(rng, country, False, follow_ups)


def continents(rng: Random) -> Question:
    names = sorted((*CONTINENTS, "Antarctica"))
    return ask(
        rng,
        "lists",
        Answer(f"The continents are {', '.join(names[:-1])} and {names[-1]}.",
               ", ".join(names), {"continents": names}),
        nouns=("the continents", "the names of the continents", "all continents",
               "a list of the continents"),
        questions=("List the continents.", "Name all continents.", "Which continents are there?",
                   "What are the continents?", "How many continents are there and which?"),
        key="continents",
    )  # fmt: skip
