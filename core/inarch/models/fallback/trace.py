"""What a model asks of attention, learnt by following its forward pass without any weight.

The model is made on torch's meta device, where tensors have shapes and no numbers, and run once.
Each attention call becomes a spec; whatever our paged attention could not do is refused here, with
its reason, before a byte of the checkpoint is read.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inarch.errors import ModelError
from inarch.hal.attention import AttentionSpec
from inarch.models.fallback.interface import SEES, Sight, attach
from inarch.models.fallback.parts import split
from inarch.models.fallback.refusing import described, refusal

TRACED_TOKENS = 8
TRACED_DTYPE = torch.bfloat16  # grouped products of experts know no other on the meta device
# What attention calls carry beside what a spec says, and what changes no answer of a forward pass.
HARMLESS = frozenset(
    (
        "dropout",
        "position_ids",
        "use_cache",
        "cache_position",
        "logits_to_keep",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "return_dict",
    )
)


@dataclass(frozen=True)
class Trace:
    """specs: of each attention call of a forward pass, in order; modules: the names of those."""

    specs: tuple[AttentionSpec, ...]
    modules: tuple[str, ...]
    layers: int
    vocab_size: int
    parameters: int  # elements


def trace(model: Any) -> Trace:
    """Follow a forward pass of a model that was made on the meta device under the name TRACING.

    Raises ModelError for a model that cannot run over pages.
    """
    name = type(model).__name__
    backbone, _ = split(model)
    _refuse_without_positions(name, backbone)
    if model._is_stateful:
        raise refusal(name, "it keeps a recurrent state beside what attention keeps")
    calls = _Calls(model)
    attach(model, calls)
    try:
        vocab_size = _run(model)
    except ModelError:
        raise
    except Exception as error:
        why = f"its code cannot be followed without weights ({described(error)})"
        raise refusal(name, why) from error
    layers = model.config.get_text_config().num_hidden_layers
    _refuse_bypassing(name, len(calls.specs), layers)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Trace(tuple(calls.specs), tuple(calls.modules), layers, vocab_size, parameters)


def _refuse_bypassing(name: str, calls: int, layers: int) -> None:
    """Every layer must have attended where we could see it."""
    if calls == 0:
        raise refusal(
            name,
            f"none of its {layers} layers attends through transformers' attention interface "
            "(ALL_ATTENTION_FUNCTIONS), so it would attend without the pages",
        )
    if calls < layers:
        raise refusal(
            name,
            f"only {calls} of its {layers} layers attend through transformers' attention interface "
            "(ALL_ATTENTION_FUNCTIONS); the others mix tokens where the pages do not reach",
        )


def _refuse_without_positions(name: str, backbone: nn.Module) -> None:
    if "position_ids" not in inspect.signature(backbone.forward).parameters:
        raise refusal(
            name,
            f"{type(backbone).__name__}.forward takes no position_ids, so that sequences cannot lie "
            "one after the other in a batch",
        )


def _run(model: Any) -> int:
    """One forward pass: the size of the vocabulary."""
    with torch.device("meta"), torch.inference_mode():
        # A mask of the input keeps transformers from reading the positions' values.
        out = model(
            input_ids=torch.zeros(1, TRACED_TOKENS, dtype=torch.int64),
            position_ids=torch.arange(TRACED_TOKENS)[None],
            attention_mask=torch.ones(1, TRACED_TOKENS, dtype=torch.int64),
            use_cache=False,
        )
    return int(out.logits.shape[-1])


class _Calls:
    """Notes every attention call, and refuses what pages cannot do. See `Attend`."""

    def __init__(self, model: nn.Module) -> None:
        self.specs: list[AttentionSpec] = []
        self.modules: list[str] = []
        self._model = type(model).__name__
        self._names = {id(module): name for name, module in model.named_modules()}

    def __call__(
        self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, asked: dict[str, Any]
    ) -> Tensor:
        if why := _unservable(q, k, mask, module, asked):
            where = self._names[id(module)]
            raise refusal(self._model, f"the attention of {where} {why}")
        self.specs.append(_spec(q, k, v, mask, asked))
        self.modules.append(self._names[id(module)])
        return q.new_empty(1, q.shape[2], q.shape[1], v.shape[3])


def _spec(q: Tensor, k: Tensor, v: Tensor, mask: Any, asked: dict[str, Any]) -> AttentionSpec:
    # The mask is what transformers' own attention goes by; the window beside it is a hint to others.
    window = asked.get("sliding_window") if mask is None else getattr(mask, SEES).window
    scale, softcap = asked.get("scaling"), asked.get("softcap")
    return AttentionSpec(
        q_heads=q.shape[1],
        kv_heads=k.shape[1],
        key_dim=k.shape[3],
        value_dim=v.shape[3],
        scale=float(q.shape[3] ** -0.5 if scale is None else scale),
        dtype=q.dtype,
        window=window,
        softcap=None if softcap is None else float(softcap),
        sinks=asked.get("s_aux") is not None,
    )


def _unservable(
    q: Tensor, k: Tensor, mask: Any, module: nn.Module, asked: dict[str, Any]
) -> str | None:
    """Why a call cannot be served over pages; None if it can."""
    if k.shape[2] != q.shape[2]:
        return f"has {q.shape[2]} queries for {k.shape[2]} keys: it looks at something else than the text"
    if mask is not None:
        sight = getattr(mask, SEES, Sight(strange="a mask of the model's own making"))
        if sight.strange:
            return f"goes by {sight.strange}"
    causal = asked.get("is_causal")
    if mask is None and not (getattr(module, "is_causal", True) if causal is None else causal):
        return "is not causal"
    known = HARMLESS | {"scaling", "sliding_window", "softcap", "s_aux", "is_causal"}
    unknown = [key for key, value in asked.items() if value is not None and key not in known]
    return f"asks for {', '.join(unknown)}, which pages do not serve" if unknown else None
