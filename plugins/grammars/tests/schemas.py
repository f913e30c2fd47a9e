"""Schemas at random: of everything that JSON Schema has, in combinations that nobody would think of."""

from __future__ import annotations

import random
from typing import Any

VALUES = ["a", "b", 1, 2.5, None, True, {"k": [1, "x"]}, [1, 2], 'é"\\\n', -3]
PATTERNS = ["^a+$", "ab", "^[^x]{2}$", r"^\d{1,3}$", "^.{1,4}$", '"', r"^(a|b\\)$", "x$", "^é"]
FORMATS = ["date", "date-time", "email", "ipv4", "ipv6", "uuid", "duration", "regex", "other"]
SIMPLE = ["string", "number", "integer", "enum", "boolean"]
DEEP = [*SIMPLE, "object", "object", "array", "array", "const", "anyOf", "oneOf", "allOf", "any"]
DEEP += ["types", "$ref", "mixed"]


class Author:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def document(self) -> dict[str, Any]:
        node = {
            "type": "object", "required": ["v"], "additionalProperties": False,
            "properties": {
                "v": self.schema(2), "n": {"anyOf": [{"$ref": "#/$defs/q"}, {"type": "null"}]},
            },
        }  # fmt: skip
        return {**self.schema(0), "$defs": {"p": self.schema(2), "q": node}}

    def maybe(self, share: float = 0.4) -> bool:
        return self.chance.random() < share

    def schema(self, depth: int) -> dict[str, Any]:  # noqa: C901
        kind = self.chance.choice(SIMPLE if depth > 2 else DEEP)
        match kind:
            case "string":
                return self.string()
            case "integer" | "number":
                return self.number(kind)
            case "object":
                return self.object(depth + 1)
            case "array":
                return self.array(depth + 1)
            case "enum":
                more = {"type": "string"} if self.maybe(0.2) else {}
                return {"enum": self.chance.sample(VALUES, self.chance.randint(1, 4)), **more}
            case "const":
                return {"const": self.chance.choice(VALUES)}
            case "anyOf" | "oneOf" | "allOf":
                return {kind: [self.schema(depth + 1) for _ in range(self.chance.randint(1, 2))]}
            case "any":
                return {"description": "anything"}
            case "types":
                types = self.chance.sample(["string", "integer", "null", "object", "array"], 2)
                return {"type": types, **({"minLength": 2} if self.maybe() else {})}
            case "$ref":
                return {"$ref": self.chance.choice(["#/$defs/p", "#/$defs/q"])}
            case "mixed":
                return {**self.schema(4), **self.schema(4)}
        return {"type": kind}

    def string(self) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "string"}
        if self.maybe(0.2):
            found["minLength"] = self.chance.randint(0, 3)
        if self.maybe(0.3):
            found["maxLength"] = self.chance.randint(3, 6)
        if self.maybe(0.2):
            found["format"] = self.chance.choice(FORMATS)
        elif self.maybe(0.2):
            found["pattern"] = self.chance.choice(PATTERNS)
        return found

    def number(self, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = {"type": kind}
        low = self.chance.randint(-120, 120)
        if kind == "number" and self.maybe():
            low += round(self.chance.random(), 2)
        if self.maybe():
            found[self.chance.choice(["minimum", "exclusiveMinimum"])] = low
        if self.maybe():
            found[self.chance.choice(["maximum", "exclusiveMaximum"])] = low + self.chance.randint(
                2, 300
            )
        if self.maybe(0.1):
            found["multipleOf"] = self.chance.choice([3, 0.5, 7])
        return found

    def object(self, depth: int) -> dict[str, Any]:
        names = self.chance.sample(["a", "b", "na me", "é", "x1", 'q"t'], self.chance.randint(0, 3))
        found: dict[str, Any] = {
            "type": "object",
            "properties": {n: self.schema(depth) for n in names},
        }
        if self.maybe(0.7):
            found["required"] = [name for name in names if self.maybe(0.6)]
        if self.maybe(0.5):
            found["additionalProperties"] = False
        elif self.maybe(0.2):
            found["additionalProperties"] = self.schema(depth)
        extras = {
            "minProperties": self.chance.randint(0, 2),
            "maxProperties": self.chance.randint(1, 4),
            "patternProperties": {"^x": self.schema(3)},
            "propertyNames": {"pattern": "^[a-z]+$"},
            "dependentRequired": {"a": ["b"]},
        }
        return found | {name: value for name, value in extras.items() if self.maybe(0.08)}

    def array(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "array"}
        if self.maybe(0.8):
            found["items"] = self.schema(depth)
        if self.maybe(0.25):
            found["prefixItems"] = [self.schema(depth) for _ in range(self.chance.randint(1, 3))]
        if self.maybe():
            found["minItems"] = self.chance.randint(0, 3)
        if self.maybe(0.5):
            found["maxItems"] = found.get("minItems", 0) + self.chance.randint(0, 3)
        if self.maybe(0.05):
            found["uniqueItems"] = True
        return found
