"""Functions that the model may call, and the running of its calls.

A function describes itself: its name, its docstring, and the JSON schema of its annotated arguments.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from inarch import parsing
from inarch.errors import InvalidRequestError

ROUNDS = 16  # answers with calls, before a program that goes round in circles is stopped


@dataclass(frozen=True)
class CallMade:
    """A call as the model wrote it. arguments: a JSON object."""

    id: str
    name: str
    arguments: str

    def as_dict(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


@dataclass(frozen=True)
class Tool:
    """A function and what the model is told of it. parameters: JSON schema of its arguments."""

    name: str
    parameters: Mapping[str, Any]
    function: Callable[..., Any]
    description: str = ""

    @property
    def described(self) -> parsing.Tool:
        return parsing.Tool(self.name, self.parameters, self.description)

    async def run(self, call: CallMade) -> str:
        """The result as text; of a call that fails, what the model can do about it.

        A plain function runs in a thread, an `async` one in the language's event loop.
        """
        try:
            arguments = json.loads(call.arguments or "{}")
            if inspect.iscoroutinefunction(self.function):
                result = await self.function(**arguments)
            else:
                result = await asyncio.to_thread(self.function, **arguments)
            return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
        except Exception as error:
            return f"Error: {type(error).__name__}: {error}"


def made_tools(given: Iterable[Tool | Callable[..., Any]]) -> tuple[Tool, ...]:
    """Raises InvalidRequestError for what is no function, and for two of one name."""
    tools = tuple(tool if isinstance(tool, Tool) else _of_function(tool) for tool in given)
    names = [tool.name for tool in tools]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InvalidRequestError(f"there are two tools named {twice[0]}", param="tools")
    return tools


def _of_function(function: Callable[..., Any]) -> Tool:
    from pydantic import PydanticUserError, TypeAdapter

    if not callable(function) or not hasattr(function, "__name__"):
        raise InvalidRequestError(
            f"a tool is a function, or Tool(...) with the schema of one, not {function!r}",
            param="tools",
        )
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(function)  # type: ignore[arg-type]
        schema = adapter.json_schema()
    except (PydanticUserError, NameError, ValueError) as error:
        raise InvalidRequestError(
            f"the arguments of {function.__name__} cannot be described: {error}; give"
            " Tool(name, schema, function)",
            param="tools",
        ) from None
    if schema.get("type") != "object":
        raise InvalidRequestError(
            f"{function.__name__} takes arguments by place alone, and models give them by name",
            param="tools",
        )
    return Tool(function.__name__, schema, function, inspect.getdoc(function) or "")
