"""Several states that go on from one: what is said to all of them, and how they come back together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, overload

from inarch.errors import InvalidRequestError
from inarch.lang.events import Variable
from inarch.lang.expressions import Expression

if TYPE_CHECKING:
    from inarch.lang.state import State


class Forks:
    """Several states at once: an index gives one, adding adds to all, a name reads from all."""

    def __init__(self, parent: State, states: list[State]) -> None:
        self._parent, self._states = parent, states

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[State]:
        return iter(self._states)

    @overload
    def __getitem__(self, key: int) -> State: ...
    @overload
    def __getitem__(self, key: str) -> list[Any]: ...
    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return [state[key] for state in self._states]
        return self._states[key]

    def __setitem__(self, index: int, state: State) -> None:
        """What `forks[i] += ...` puts back. Raises InvalidRequestError for any other state."""
        if state is not self._states[index]:
            raise InvalidRequestError("forks are added to, not replaced: forks[i] += ...")

    def __iadd__(
        self, other: Expression | str | list[Expression | str] | Callable[[int], Expression | str]
    ) -> Forks:
        """To all of them: the same, one of a list each, or what a function makes of the index."""
        if isinstance(other, list) and len(other) != len(self._states):
            raise InvalidRequestError(f"{len(self._states)} forks, but {len(other)} expressions")
        for index, state in enumerate(self._states):
            own = other[index] if isinstance(other, list) else other
            state.__iadd__(own(index) if callable(own) else own)
        return self

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self.join()

    def join(
        self, mode: Literal["gather_variable", "concate_and_append"] = "gather_variable"
    ) -> None:
        """Bring them back. gather_variable: what each set becomes a list in the parent, in order.
        concate_and_append: what each said is added to the parent, in order."""
        if mode == "concate_and_append":
            for state in self._states:
                self._parent._append(state)
            return
        if mode != "gather_variable":
            raise InvalidRequestError(
                f"mode must be gather_variable or concate_and_append, got {mode!r}", param="mode"
            )
        before = set(self._parent._track.values)
        names = dict.fromkeys(name for state in self._states for name in state._track.values)
        for name in names:
            if name not in before:
                found = [state._variable(name) for state in self._states if name in state]
                meta = {"forks": [variable.meta for variable in found]}
                self._parent._set(name, Variable([variable.value for variable in found], meta))
