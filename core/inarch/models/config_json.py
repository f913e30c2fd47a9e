"""Reads a config.json and says clearly which of its values is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from inarch.errors import ModelError


class Config:
    """A config.json, or a section of it. Whatever is wrong raises ModelError with key and value."""

    def __init__(self, values: Mapping[str, Any], section: str = "config.json") -> None:
        self._values, self._section = values, section

    def get(self, key: str, default: Any = None) -> Any:
        return self._values.get(key, default)

    def integer(self, key: str, default: int | None = None, least: int = 1) -> int:
        """A whole number of at least `least`."""
        value = self._values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.error(key, f"a whole number of at least {least}")
        return value

    def optional_integer(self, key: str, default: int | None = None) -> int | None:
        """As `integer`, where null means none at all."""
        return None if self._values.get(key, default) is None else self.integer(key, default)

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above zero."""
        value = self._values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(key, "a number above 0")
        if not (math.isfinite(value) and value > 0):
            raise self.error(key, "a number above 0")
        return float(value)

    def optional_number(self, key: str, default: float | None = None) -> float | None:
        """As `number`, where null means none at all."""
        return None if self._values.get(key, default) is None else self.number(key, default)

    def only(self, key: str, *served: Any) -> None:
        """Refuse a key that changes what the model does to what is not served; may be missing."""
        if key in self._values and self._values[key] not in served:
            raise self.error(key, f"{' or '.join(map(repr, served))}, since others are not served")

    def flag(self, key: str, default: bool) -> bool:
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "true or false")
        return value

    def section(self, key: str) -> Config:
        """An object inside this one; missing or null: an empty one."""
        value = self._values.get(key) or {}
        if not isinstance(value, Mapping):
            raise self.error(key, "an object")
        return Config(value, f"{key} of {self._section}")

    def changed(self, **values: Any) -> Config:
        return Config({**self._values, **values}, self._section)

    @property
    def values(self) -> Mapping[str, Any]:
        return self._values

    def error(self, key: str, wanted: str) -> ModelError:
        found = repr(self._values[key]) if key in self._values else "nothing"
        return ModelError(f"{self._section}: {key} must be {wanted}, found {found}")

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __bool__(self) -> bool:
        return bool(self._values)


def renamed(values: Mapping[str, Any], older: Mapping[str, str]) -> dict[str, Any]:
    """The values with keys of other names under ours too, where ours are missing."""
    return {new: values[old] for old, new in older.items() if old in values} | dict(values)
