"""Offers the bundled model to `inarch serve`, `chat` and `generate`."""

from __future__ import annotations

from pathlib import Path

from inarch.hookspecs import BundledModel, hookimpl

INARCH_API = (1, 0)


@hookimpl
def inarch_bundled_models() -> list[BundledModel]:
    return [
        BundledModel(
            name="inarch-tiny",
            path=Path(__file__).parent / "data",
            description="a tiny chat model that knows capitals, sums, colours, days and spelling",
        )
    ]
