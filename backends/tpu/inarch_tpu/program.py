"""A torch function as an XLA program: traced once for the shapes it is called with, then run whole.

Tensors that the function reads but was not given (weights, tables, the tokens sampled last) are found
while it is traced. They become arguments, read anew at each run: what was written to them since counts,
and no program holds a copy of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import jax
import torch
from jax.sharding import Mesh
from torch import Tensor

from inarch_tpu.dtypes import to_numpy
from inarch_tpu.mesh import constrained, whole
from inarch_tpu.tensor import JaxTensor, capturing, value


class Program:
    """One compiled program."""

    def __init__(
        self,
        function: Callable[..., Any],
        leaves: list[Any],
        tree: Any,
        donated: list[int],
        mesh: Mesh,
    ) -> None:
        """leaves: arrays or tensors; donated: which of them the program may overwrite."""
        wrapped = [isinstance(leaf, Tensor) for leaf in leaves]
        dtypes = [leaf.dtype for leaf in leaves]
        shape: Any = None

        def pure(*arrays: Any) -> list[Any]:
            nonlocal shape
            given = [
                JaxTensor(a, dtype=d) if w else a
                for a, d, w in zip(arrays, dtypes, wrapped, strict=True)
            ]
            with torch.inference_mode():
                out, shape = jax.tree.flatten(function(*jax.tree.unflatten(tree, given)))
            self._wrapped = [isinstance(x, Tensor) for x in out]
            return [constrained(value(x), mesh, None) if isinstance(x, Tensor) else x for x in out]

        arrays = [array_of(leaf) for leaf in leaves]
        with capturing() as captured:
            traced = jax.make_jaxpr(pure)(*arrays)
        self._tree = shape
        self._read = [captured.get(id(const), const) for const in traced.consts]
        for tensor in self._read:
            if isinstance(tensor, JaxTensor) and mesh.size > 1 and not _spread(tensor.array, mesh):
                tensor.array = jax.device_put(tensor.array, whole(mesh))

        def run(read: list[Any], *arrays: Any) -> list[Any]:
            return jax.core.eval_jaxpr(traced.jaxpr, read, *arrays)

        jitted = jax.jit(run, donate_argnums=tuple(1 + i for i in donated))
        self.compiled = jitted.lower(self._arrays(), *arrays).compile()
        self.scratch_bytes = _scratch(self.compiled)

    def __call__(self, leaves: list[Any]) -> Any:
        out = self.compiled(self._arrays(), *map(array_of, leaves))
        given = [JaxTensor(x) if w else x for x, w in zip(out, self._wrapped, strict=True)]
        return jax.tree.unflatten(self._tree, given)

    def _arrays(self) -> list[Any]:
        return [x.array if isinstance(x, JaxTensor) else x for x in self._read]


def _spread(array: Any, mesh: Mesh) -> bool:
    return len(array.sharding.device_set) == mesh.size


def _scratch(compiled: Any) -> int:
    found = compiled.memory_analysis()
    return 0 if found is None else found.temp_size_in_bytes + found.output_size_in_bytes


def array_of(leaf: Any) -> Any:
    if isinstance(leaf, JaxTensor):
        return leaf.array
    return to_numpy(leaf) if isinstance(leaf, Tensor) else leaf


def signature(leaves: list[Any], tree: Any) -> Hashable:
    """What a program is for."""
    return tree, tuple((tuple(leaf.shape), leaf.dtype) for leaf in leaves)
