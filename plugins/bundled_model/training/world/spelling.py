"""Words letter by letter: spelling, counting letters, reading backwards, the alphabet.

Where a word must be counted or turned around, the answer spells it first: that is the working-out
that lets a small model see the letters inside its tokens.
"""

from __future__ import annotations

from random import Random

from world.countries import COUNTRIES
from world.everyday import ORDINALS
from world.question import Answer, Question, ask
from world.wordlist import WORDS, invented

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_PLACES = [
    name
    for c in COUNTRIES
    for name in (c.name, c.capital)
    if name.isascii() and name.isalpha()
]  # fmt: skip


def _word(rng: Random) -> tuple[str, bool]:
    """A word, and whether it is one that the model must work out rather than know."""
    roll = rng.random()
    if roll < 0.55:
        return rng.choice(WORDS), False
    return (rng.choice(_PLACES), False) if roll < 0.7 else (invented(rng), True)


def spelled(word: str) -> str:
    return "-".join(word.lower())


def spell(rng: Random) -> Question:
    word, new = _word(rng)
    letters = spelled(word)
    return ask(
        rng,
        "spelling",
        Answer(f"{word} is spelled {letters}.", letters, {"word": word, "letters": list(word.lower())}),
        nouns=("the spelling of {word}", 'the spelling of "{word}"'),
        questions=(
            "Spell {word}.", "Spell {word}", "spell {word}", "How do you spell {word}?",
            'Spell "{word}".', "Spell the word {word}.", "How is {word} spelled?",
            "Can you spell {word}?", "Please spell {word}.", 'Spell the word "{word}".',
            "Spell {word} for me.", "Could you spell {word}?", "How do I spell {word}?",
        ),
        slots={"word": word},
        key=word,
        key_only=new,
        verbatim=True,
        follow=lambda r: _follow(r, word),
    )  # fmt: skip


def backwards(rng: Random) -> Question:
    word, new = _word(rng)
    return _backwards(rng, word, new)


def _backwards(
    rng: Random, word: str, new: bool = False, follow_ups: tuple[str, ...] = ()
) -> Question:
    turned = word.lower()[::-1]
    text = f"{word} is spelled {spelled(word)}, so backwards it is {spelled(turned)}: {turned}."
    return ask(
        rng,
        "backwards",
        Answer(text, turned, {"word": word, "backwards": turned}),
        questions=follow_ups or (
            "Spell {word} backwards.", "spell {word} backwards", "What is {word} backwards?",
            "Reverse {word}.", "Reverse the word {word}.", "Write {word} backwards.",
            'What is "{word}" spelled backwards?', "Say {word} backwards.", 'Reverse "{word}".',
        ),
        slots={"word": word},
        key=word,
        key_only=new,
        verbatim=True,
    )  # fmt: skip


def count_letters(rng: Random) -> Question:
    word, new = _word(rng)
    return _count_letters(rng, word, new)


def _count_letters(
    rng: Random, word: str, new: bool = False, follow_ups: tuple[str, ...] = ()
) -> Question:
    n = len(word)
    noun = "letter" if n == 1 else "letters"
    return ask(
        rng,
        "counting letters",
        Answer(f"{word} is spelled {spelled(word)}, so it has {n} {noun}.", str(n),
               {"word": word, "letters": n}),
        nouns=() if follow_ups else ("the number of letters in {word}", "the length of the word {word}"),
        questions=follow_ups or (
            "How many letters are in {word}?", "How many letters does {word} have?",
            "How many letters are there in {word}?", 'How many letters are in "{word}"?',
            "Count the letters in {word}.", "How many letters in {word}?", "How long is the word {word}?",
            "How many letters does the word {word} have?", "How many letters has {word}?",
        ),
        slots={"word": word},
        key=word,
        key_only=new,
        verbatim=True,
        follow=lambda r: _follow(r, word),
    )  # fmt: skip


def count_one_letter(rng: Random) -> Question:
    word, new = _word(rng)
    letter = rng.choice(word.lower()) if rng.random() < 0.85 else rng.choice(ALPHABET)
    n = word.lower().count(letter)
    times = {0: "does not appear", 1: "appears once", 2: "appears twice"}.get(
        n, f"appears {n} times"
    )
    return ask(
        rng,
        "counting letters",
        Answer(f"{word} is spelled {spelled(word)}, so {letter} {times}.", str(n),
               {"word": word, "letter": letter, "count": n}),
        questions=(
            "How many times does the letter {letter} appear in {word}?", "How many {letter} in {word}?",
            "How many {letter}'s are in {word}?", "How often does {letter} appear in {word}?",
            "How many {letter}s are there in {word}?", "Count the letter {letter} in {word}.",
            "How many times does {letter} occur in {word}?", "How many {letter}s are in {word}?",
        ),
        slots={"word": word, "letter": letter},
        key=f"{word} {letter}",
        key_only=new,
        verbatim=True,
    )  # fmt: skip


def letter_at(rng: Random) -> Question:
    """The first, last or n-th letter of a word."""
    word, new = _word(rng)
    i = rng.choice((0, -1, rng.randrange(len(word))))
    position = "last" if i == -1 else ORDINALS[i] if i < len(ORDINALS) else "last"
    letter = word.lower()[i] if position != "last" else word.lower()[-1]
    return ask(
        rng,
        "spelling",
        Answer(f"The {position} letter of {word} is {letter}.", letter,
               {"word": word, "position": position, "letter": letter}),
        nouns=("the {position} letter of {word}", "the {position} letter in {word}"),
        questions=("Which letter is the {position} in {word}?",
                   "{word}: {position} letter?"),
        slots={"word": word, "position": position},
        key=f"{word} {position}",
        key_only=new,
        verbatim=True,
        follow=lambda r: _follow(r, word),
    )  # fmt: skip


def neighbour_letter(rng: Random) -> Question:
    i = rng.randrange(25)
    after = rng.random() < 0.6
    here, there = (ALPHABET[i], ALPHABET[i + 1]) if after else (ALPHABET[i + 1], ALPHABET[i])
    word = "after" if after else "before"
    return ask(
        rng,
        "alphabet",
        Answer(f"{there.upper()} comes {word} {here.upper()}.", there, {"letter": here, word: there}),
        nouns=(f"the letter {word} {{here}}", f"the letter {word} {{here}} in the alphabet"),
        questions=(f"What letter comes {word} {{here}}?", f"Which letter comes {word} {{here}}?",
                   f"Which letter is {word} {{here}}?", f"What comes {word} {{here}} in the alphabet?"),
        slots={"here": here if rng.random() < 0.5 else here.upper()},
        key=here,
        follow=lambda r: rng.choice((neighbour_letter, spell))(r),
    )  # fmt: skip


def _follow(rng: Random, word: str) -> Question:
    if rng.random() < 0.5:
        return _backwards(
            rng,
            word,
            follow_ups=(
                "And backwards?",
                "Now backwards.",
                "And in reverse?",
                "Spell it backwards.",
                "Now spell it backwards.",
            ),
        )
    return _count_letters(
        rng,
        word,
        follow_ups=(
            "How many letters does it have?",
            "And how many letters?",
            "How many letters is that?",
            "How many letters are in it?",
        ),
    )
