"""The request of /v1/decisions: one input, and questions about it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from inarch_server.answering.terms import TermsBody
from inarch_server.http.body import Body
from inarch_server.openai.chat_protocol import text_or_object
from inarch_server.openai.responses.protocol import InputItem, Text

MAX_QUESTIONS = 400
MAX_CHOICES = 255
MAX_LEVELS = 10


class Question(Body):
    instructions: Text = Field(min_length=1)
    name: str | None = None


class Predicate(Question):
    """How likely is a statement about the input to be true?"""

    type: Literal["predicate"]


class Option(Body):
    value: str | bool
    description: str | None = None


class ChoiceQuestion(Question):
    """Which of these options fits?"""

    type: Literal["choice"]
    choices: list[Option] = Field(min_length=2, max_length=MAX_CHOICES)

    @model_validator(mode="after")
    def _no_choice_twice(self) -> ChoiceQuestion:
        if len({(type(c.value), c.value) for c in self.choices}) < len(self.choices):
            raise ValueError("every choice must be another value")
        if any(choice.value == "" for choice in self.choices):
            raise ValueError("a choice must not be empty")
        return self


class Level(Body):
    label: str = Field(min_length=1)
    description: str | None = None


class Score(Question):
    """Where on these levels, lowest first, does the input lie?"""

    type: Literal["score"]
    levels: list[Level] = Field(min_length=2, max_length=MAX_LEVELS)

    @model_validator(mode="after")
    def _no_label_twice(self) -> Score:
        if len({level.label for level in self.levels}) < len(self.levels):
            raise ValueError("every level must have another label")
        return self


def _kind(value: Any) -> Any:
    return value.get("type") if isinstance(value, dict) else getattr(value, "type", None)


AnyQuestion = Annotated[
    Annotated[Predicate, Tag("predicate")]
    | Annotated[ChoiceQuestion, Tag("choice")]
    | Annotated[Score, Tag("score")],
    Discriminator(
        _kind,
        custom_error_type="unknown_question",
        custom_error_message="must be of the type predicate, choice or score",
    ),
]


class DecisionRequest(TermsBody):
    input: Annotated[
        Annotated[str, Tag("text")] | Annotated[list[InputItem], Tag("object")],
        Discriminator(text_or_object),
    ]
    questions: list[AnyQuestion] = Field(min_length=1, max_length=MAX_QUESTIONS)
    model: str | None = None
