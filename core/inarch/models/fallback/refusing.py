"""How a model that transformers' code cannot run over pages is refused."""

from __future__ import annotations

from inarch.errors import ModelError


def refusal(name: str, why: str) -> ModelError:
    """name: of the model's class."""
    return ModelError(
        f"{name} cannot run by transformers' code with paged attention: {why}. It needs a model "
        "family (see docs/models.md)"
    )


def described(error: Exception) -> str:
    """What foreign code raised, on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"
