"""Small arithmetic: sums and differences up to 999, products to 12 x 12, the divisions they undo.

Operand pairs are held out in every phrasing where the model should calculate (a pair that it has
never seen); small pairs, which it may know by heart, are held out in single phrasings.
"""

# ruff: noqa: SIM905 - word lists read better as text

from __future__ import annotations

from random import Random

from world.question import Answer, Question, ask

WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
).split()
LIMIT, TABLE = 999, 12
SMALL = 20

_PLUS = (
    "What is {a} + {b}?", "{a} + {b}", "{a}+{b}", "{a} + {b} =", "{a}+{b}=", "{a} plus {b}",
    "What is {a} plus {b}?", "Add {a} and {b}.", "What's {a} + {b}?", "Calculate {a} + {b}.",
    "How much is {a} + {b}?", "How much is {a} plus {b}?", "{a} and {b} makes?",
    "What do you get when you add {a} and {b}?", "Compute {a} + {b}.", "{a}+{b}?", "{a} + {b}?",
    "What is {a}+{b}?", "What does {a} plus {b} equal?", "Can you add {a} and {b}?",
    "Sum up {a} and {b}.", "If I add {b} to {a}, what do I get?", "{a} + {b} is", "{a} plus {b} is?",
    "Add {b} to {a}.", "what is the result of {a} + {b}", "Tell me what {a} and {b} make.",
    "what is {a} + {b} =", "Solve {a} + {b}.", "What is the sum {a} + {b}?",
)  # fmt: skip
_MINUS = (
    "What is {a} - {b}?", "{a} - {b}", "{a}-{b}", "{a} - {b} =", "{a}-{b}=", "{a} minus {b}",
    "What is {a} minus {b}?", "Subtract {b} from {a}.", "What's {a} - {b}?", "{a}-{b}?",
    "How much is {a} - {b}?", "Take {b} away from {a}.", "Calculate {a} - {b}.", "{a} - {b}?",
    "What is {a}-{b}?", "What does {a} minus {b} equal?", "Compute {a} - {b}.",
    "How much is {a} minus {b}?", "Solve {a} - {b}.", "{a} take away {b}",
    "What remains if I take {b} from {a}?", "{a} - {b} is", "{a} minus {b} is?", "From {a} take {b}.",
    "What do I get if I subtract {b} from {a}?", "what is the result of {a} - {b}",
)  # fmt: skip
_TIMES = (
    "What is {a} x {b}?", "{a} x {b}", "{a}*{b}", "{a} * {b}", "{a} times {b}", "{a} × {b}",
    "What is {a} times {b}?", "Multiply {a} by {b}.", "What's {a} * {b}?", "{a}x{b}", "{a} x {b} =",
    "How much is {a} x {b}?", "How much is {a} times {b}?", "Calculate {a} x {b}.", "{a} * {b} =",
    "What is {a} * {b}?", "What is {a} multiplied by {b}?", "Multiply {a} and {b}.", "{a}*{b}=",
    "Compute {a} * {b}.", "What does {a} times {b} equal?", "{a} multiplied by {b}",
)  # fmt: skip
_OVER = (
    "What is {a} / {b}?", "{a} / {b}", "{a}/{b}", "{a} divided by {b}", "{a} ÷ {b}", "{a} / {b} =",
    "What is {a} divided by {b}?", "Divide {a} by {b}.", "What's {a} / {b}?", "{a}/{b}=",
    "How much is {a} / {b}?", "How much is {a} divided by {b}?", "Calculate {a} / {b}.",
    "How many times does {b} go into {a}?", "Compute {a} / {b}.", "What is {a}/{b}?", "{a} : {b}",
)  # fmt: skip


def _operand(rng: Random) -> int:
    """One to three digits, the long ones most often: they take the most practice."""
    roll = rng.random()
    if roll < 0.15:
        return rng.randrange(13)
    return rng.randrange(100) if roll < 0.5 else rng.randrange(LIMIT + 1)


def _slots(rng: Random, a: int, b: int) -> dict[str, object]:
    if max(a, b) <= SMALL and min(a, b) >= 0 and rng.random() < 0.2:
        return {"a": WORDS[a], "b": WORDS[b]}
    return {"a": a, "b": b}


def plus(rng: Random) -> Question:
    return _plus(rng, _operand(rng), _operand(rng))


def _plus(rng: Random, a: int, b: int, follow_ups: tuple[str, ...] = ()) -> Question:
    total = a + b
    low, high = sorted((a, b))
    return ask(
        rng,
        "sums",
        Answer(f"{a} + {b} = {total}.", str(total), {"sum": total}),
        nouns=() if follow_ups else ("the sum of {a} and {b}", "{a} + {b}", "{a} plus {b}"),
        questions=follow_ups or _PLUS,
        slots=_slots(rng, a, b),
        key=f"{low} + {high}",
        key_only=high > SMALL,
        follow=lambda r: _go_on(r, total),
    )


def minus(rng: Random) -> Question:
    a, b = _operand(rng), _operand(rng)
    if a < b and rng.random() < 0.7:
        a, b = b, a
    return _minus(rng, a, b)


def _minus(rng: Random, a: int, b: int, follow_ups: tuple[str, ...] = ()) -> Question:
    rest = a - b
    return ask(
        rng,
        "differences",
        Answer(f"{a} - {b} = {rest}.", str(rest), {"difference": rest}),
        nouns=() if follow_ups else ("{a} - {b}", "{a} minus {b}",
                                     "the difference between {a} and {b}")[: 3 if a >= b else 2],
        questions=follow_ups or _MINUS,
        slots=_slots(rng, a, b),
        key=f"{a} - {b}",
        key_only=max(a, b) > SMALL,
        follow=lambda r: _go_on(r, rest),
    )  # fmt: skip


def times(rng: Random) -> Question:
    return _times(rng, rng.randint(0, TABLE), rng.randint(0, TABLE))


def _times(rng: Random, a: int, b: int, follow_ups: tuple[str, ...] = ()) -> Question:
    product = a * b
    return ask(
        rng,
        "products",
        Answer(f"{a} x {b} = {product}.", str(product), {"product": product}),
        nouns=() if follow_ups else ("the product of {a} and {b}", "{a} x {b}", "{a} times {b}"),
        questions=follow_ups or _TIMES,
        slots=_slots(rng, a, b),
        key=f"{a} x {b}",
        follow=lambda r: _go_on(r, product),
    )


def over(rng: Random) -> Question:
    b = rng.randint(0, TABLE) if rng.random() < 0.05 else rng.randint(1, TABLE)
    exact = rng.random() < 0.75
    return _over(
        rng, b * rng.randint(0, TABLE) if exact else rng.randrange((TABLE + 1) * b or 1), b
    )


def _over(rng: Random, a: int, b: int) -> Question:
    slots: dict[str, object] = {"a": a, "b": b}
    if b == 0:
        answer = Answer("Nothing can be divided by zero.", "Undefined", {"quotient": None})
        return ask(rng, "quotients", answer, questions=_OVER[:-1], slots=slots, key=f"{a} / 0")
    quotient, rest = divmod(a, b)
    text, short, data = f"{a} / {b} = {quotient}.", str(quotient), {"quotient": quotient}
    if rest:
        whole = b * quotient
        text = (
            f"{b} x {quotient} = {whole} and {a} - {whole} = {rest}, "
            f"so {a} / {b} = {quotient} remainder {rest}."
        )
        short, data = f"{quotient} remainder {rest}", data | {"remainder": rest}
    return ask(
        rng,
        "quotients",
        Answer(text, short, data),
        nouns=("{a} / {b}", "{a} divided by {b}"),
        questions=_OVER,
        slots=slots,
        key=f"{a} / {b}",
        follow=None if rest else lambda r: _go_on(r, quotient),
    )


def too_large(rng: Random) -> Question:
    digits = rng.randint(4, 9)
    a, b = rng.randrange(10 ** (digits - 1), 10**digits), rng.randrange(10 ** rng.randint(2, 8))
    if rng.random() < 0.5:
        a, b = b, a
    if rng.random() < 0.5:
        text = f"I only add and subtract numbers up to {LIMIT}."
        questions = rng.choice((_PLUS, _MINUS))
    elif rng.random() < 0.7:
        text = f"I only multiply numbers up to {TABLE}."
        questions = _TIMES
        if rng.random() < 0.6:
            a, b = rng.randint(13, 999), rng.randint(2, 999)
            a, b = rng.choice(((a, b), (b, a)))
    else:
        text = f"I only divide numbers up to {TABLE**2} by numbers up to {TABLE}."
        questions = _OVER
        if rng.random() < 0.6:
            a, b = rng.randint(190, 999), rng.randint(1, 99)
    return ask(rng, "too large", Answer(text, "Unknown", {"answer": None}), questions=questions,
               slots={"a": a, "b": b}, key=f"{a} ? {b}")  # fmt: skip


def three_terms(rng: Random) -> Question:
    a, b, c = (rng.randint(0, 30) for _ in range(3))
    total = a + b + c
    return ask(
        rng,
        "sums",
        Answer(f"{a} + {b} + {c} = {a + b} + {c} = {total}.", str(total), {"sum": total}),
        nouns=("{a} + {b} + {c}", "the sum of {a}, {b} and {c}"),
        questions=("{a}+{b}+{c}", "{a} + {b} + {c} =", "Add {a}, {b} and {c}.",
                   "{a} plus {b} plus {c}"),
        slots={"a": a, "b": b, "c": c},
        key=f"{a} + {b} + {c}",
        key_only=True,
        follow=lambda r: _go_on(r, total),
    )  # fmt: skip


_STORIES = (
    (
        "I have {a} {things} and get {b} more. How many do I have?",
        "{a} + {b} = {n}, so you have {n} {things}.",
    ),
    (
        "There are {a} {things} in one box and {b} in another. How many are there?",
        "{a} + {b} = {n}, so there are {n} {things}.",
    ),
    (
        "I had {a} {things} and gave away {b}. How many are left?",
        "{a} - {b} = {n}, so {n} {things} are left.",
    ),
    (
        "If I eat {b} of my {a} {things}, how many are left?",
        "{a} - {b} = {n}, so {n} {things} are left.",
    ),
)
_THINGS = "apples pears coins books cookies balls cats dogs stones stars eggs oranges".split()


def word_problem(rng: Random) -> Question:
    question, solution = rng.choice(_STORIES)
    a, b = rng.randint(2, 60), rng.randint(2, 60)
    a, b = max(a, b), min(a, b)
    n = a + b if "+" in solution else a - b
    things = rng.choice(_THINGS)
    text = solution.format(a=a, b=b, n=n, things=things)
    return ask(rng, "word problems", Answer(text, str(n), {things: n}), questions=(question,),
               slots={"a": a, "b": b, "things": things}, key=f"{a} {b} {things}",
               follow=lambda r: _go_on(r, n))  # fmt: skip


def compare(rng: Random) -> Question:
    a, b = _operand(rng), _operand(rng)
    if a == b:
        b += 1
    larger = rng.random() < 0.5
    best = max(a, b) if larger else min(a, b)
    other = a + b - best
    word = rng.choice(("bigger", "larger", "greater") if larger else ("smaller", "less"))
    canonical = "larger" if larger else "smaller"
    return ask(
        rng,
        "comparing",
        Answer(f"{best} is {canonical} than {other}.", str(best), {canonical: best}),
        questions=("Which is {word}, {a} or {b}?", "Which number is {word}: {a} or {b}?",
                   "What is {word}, {a} or {b}?", "Is {a} or {b} {word}?",
                   "{a} or {b}: which is {word}?"),
        slots={"a": a, "b": b, "word": word},
        key=f"{a} {canonical} {b}",
    )  # fmt: skip


def even_or_odd(rng: Random) -> Question:
    a = _operand(rng)
    kind = "odd" if a % 2 else "even"
    return ask(rng, "comparing", Answer(f"{a} is {kind}.", kind, {"number": a, "kind": kind}),
               questions=("Is {a} even or odd?", "Is {a} odd or even?", "{a}: even or odd?",
                          "Is the number {a} even or odd?"),
               slots={"a": a}, key=str(a))  # fmt: skip


def one_number(rng: Random) -> Question:
    kind = rng.randrange(4)
    a = rng.randint(0, 500)
    if kind == 0:
        n, nouns = 2 * a, ("double {a}", "twice {a}", "the double of {a}")
        text = f"Double {a} is {n}."
    elif kind == 1:
        a, n, nouns = 2 * a, a, ("half of {a}", "a half of {a}")
        text = f"Half of {a} is {n}."
    elif kind == 2:
        n, nouns = a + 1, ("the number after {a}", "the next number after {a}")
        text = f"{n} comes after {a}."
    else:
        a, n, nouns = a + 1, a, ("the number before {a}", "one less than {a}")
        text = f"{n} comes before {a}."
    return ask(rng, "one number", Answer(text, str(n), {"number": n}), nouns=nouns,
               slots={"a": a}, key=str(a), follow=lambda r: _go_on(r, n))  # fmt: skip


def _go_on(rng: Random, n: int) -> Question:
    """The next step of a calculation that starts from the last result."""
    b = _operand(rng) if rng.random() < 0.4 else rng.randint(0, TABLE)
    roll = rng.random()
    if not 0 <= n <= LIMIT or roll < 0.12:
        return rng.choice((plus, minus, times))(rng)
    if roll < 0.2 and n <= TABLE:
        return _times(
            rng,
            n,
            rng.randint(0, TABLE),
            ("Times {b}?", "Multiply that by {b}.", "And times {b}?", "Now multiply it by {b}."),
        )
    if roll < 0.6:
        return _plus(
            rng,
            n,
            b,
            (
                "Add {b} to that.",
                "Plus {b}?",
                "And plus {b}?",
                "plus {b}",
                "Now add {b}.",
                "Add {b}.",
                "And if I add {b}?",
                "+ {b}",
            ),
        )
    return _minus(
        rng,
        n,
        b,
        (
            "Subtract {b} from that.",
            "Minus {b}?",
            "And minus {b}?",
            "- {b}",
            "Now subtract {b}.",
            "Take away {b}.",
            "And if I take away {b}?",
        ),
    )
