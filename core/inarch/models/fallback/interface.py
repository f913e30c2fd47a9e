"""Our place in transformers' attention interface.

A model's code looks its attention up by a name in its config and calls it with the attention module
first. So what is to happen hangs on the modules themselves (`attach`), and what is registered under
the name, which is global because the interface is, only passes the call on. Nothing depends on how
a model hands keyword arguments down to its layers.

While a model is traced, masks tell what a layer may see. In a step there are none: transformers
builds none for a name that it knows no masks for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

RUNNING, TRACING = "inarch", "inarch_tracing"  # the names in a config's _attn_implementation
SEES = "inarch_sees"  # attribute of a mask made while tracing: Sight
ATTEND = "inarch_attend"  # attribute of the modules: Attend


class Attend(Protocol):
    def __call__(
        self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, asked: dict[str, Any]
    ) -> Tensor:
        """Attend with q [1, H, T, D] to k, v [1, G, T, D]: [1, T, H, value_dim].

        asked: the further keyword arguments of the call (scaling, sliding_window ...).
        """
        ...


@dataclass(frozen=True)
class Sight:
    """What queries see by a mask. window: tokens, itself included; None = all before it.

    strange: why it is no such thing, if so.
    """

    window: int | None = None
    strange: str | None = None


def attach(model: nn.Module, attend: Attend) -> None:
    """From now on the model's attention calls under our names go to `attend`."""
    for module in model.modules():
        setattr(module, ATTEND, attend)


def register() -> None:
    """Make our names known to transformers. Doing so again changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(RUNNING, _attend)
    AttentionInterface.register(TRACING, _attend)
    AttentionMaskInterface.register(TRACING, _mask)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any = None,
    **asked: Any,
) -> tuple[Tensor, None]:
    return getattr(module, ATTEND)(module, query, key, value, attention_mask, asked), None


def _mask(
    *, q_length: int, kv_length: int, mask_function: Callable[..., Any], **rest: Any
) -> Tensor:
    """An empty mask [1, 1, Q, K] that carries what it stands for."""
    mask = torch.empty(1, 1, q_length, kv_length, dtype=torch.bool, device="meta")
    setattr(mask, SEES, sight(mask_function, rest.get("local_size")))
    return mask


def sight(mask_function: Callable[..., Any], stated: int | None) -> Sight:
    """Look through a mask from places near and far. stated: a window or chunk that the model names."""
    near = {0, 1, 5} if stated is None else {0, 1, stated - 1, stated, stated + 1, 2 * stated + 2}
    widths: dict[int, int] = {}
    for query in sorted(near | {2**power for power in range(4, 18)}):
        try:
            seen = _seen_from(query, mask_function)
        except (RuntimeError, IndexError, TypeError) as error:
            return Sight(strange=f"a mask that depends on its input ({error})")
        if not seen or seen[-1] > query:
            return Sight(strange="a mask by which tokens see later ones")
        if seen[-1] != query or len(seen) != query - seen[0] + 1:
            return Sight(strange="a mask with gaps")
        widths[query] = len(seen)
    widest = max(widths.values())
    if any(width != min(query + 1, widest) for query, width in widths.items()):
        return Sight(strange="a mask in chunks" + (f" of {stated} tokens" if stated else ""))
    return Sight(None if widest == max(widths) + 1 else widest)


def _seen_from(query: int, mask_function: Callable[..., Any]) -> list[int]:
    with torch.device("cpu"):  # a mask may make tensors of its own, which must have values
        keys, zero = torch.arange(query + 3), torch.zeros((), dtype=torch.int64)
        seen = mask_function(zero, zero, zero + query, keys)
        found: list[int] = seen.expand(len(keys)).nonzero().ravel().tolist()
    return found
