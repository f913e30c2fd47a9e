"""Models whose code does what pages cannot serve, each in one way, registered with transformers.

They are Llama but for one thing: what a third party's code may do unseen.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    PreTrainedModel,
)
from transformers.masking_utils import create_sliding_window_causal_mask
from transformers.models.llama.modeling_llama import LlamaAttention, apply_rotary_pos_emb


class BypassingAttention(LlamaAttention):
    """Attends by torch's own function, whatever the config asks for."""

    def forward(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], **kwargs: Any
    ) -> tuple[Tensor, None]:
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (project(hidden_states).view(shape).transpose(1, 2) for project in projections)
        q, k = apply_rotary_pos_emb(q, k, *position_embeddings)
        out = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=True
        )
        return self.o_proj(out.transpose(1, 2).flatten(2)), None


class Shifting(torch.nn.Module):
    """Adds the token before to each token, as recurrent models do, and calls what it wraps."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        before = torch.nn.functional.pad(x, (0, 0, 1, 0))[:, :-1]
        return self.inner(x + before)


def registered(name: str, change: Any) -> type[PreTrainedModel]:
    """A Llama that `change` changes once it is made, under a model_type and a class of its own."""

    class Config(LlamaConfig):
        model_type = name

    def __init__(self: LlamaForCausalLM, config: LlamaConfig) -> None:
        LlamaForCausalLM.__init__(self, config)
        change(self.model)

    body = {"__init__": __init__, "config_class": Config, "__module__": __name__}
    model_class = type(f"{name.title().replace('_', '')}ForCausalLM", (LlamaForCausalLM,), body)
    AutoConfig.register(name, Config, exist_ok=True)
    AutoModelForCausalLM.register(Config, model_class, exist_ok=True)
    return model_class


def bypass_everywhere(model: LlamaModel) -> None:
    for index, layer in enumerate(model.layers):
        layer.self_attn = BypassingAttention(model.config, index)


def bypass_one_layer(model: LlamaModel) -> None:
    model.layers[1].self_attn = BypassingAttention(model.config, 1)


def shift_tokens(model: LlamaModel) -> None:
    model.layers[1].mlp = Shifting(model.layers[1].mlp)


def ignore_positions(model: LlamaModel) -> None:
    """Counts from 0 whatever it is told."""
    forward = model.rotary_emb.forward

    def counting(x: Tensor, position_ids: Tensor) -> Any:
        return forward(x, torch.arange(x.shape[1], device=x.device)[None])

    model.rotary_emb.forward = counting


def look_further(model: LlamaModel) -> None:
    """A mask of its own, that the attention interface gets as it is."""
    for layer in model.layers:
        layer.register_forward_pre_hook(_with_own_mask, with_kwargs=True)


def _with_own_mask(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    length = args[0].shape[1]
    mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=args[0].device)
    return args, kwargs | {"attention_mask": mask}


def ask_for_a_bias(model: LlamaModel) -> None:
    for layer in model.layers:
        layer.self_attn.register_forward_pre_hook(_with_bias, with_kwargs=True)


def _with_bias(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    return args, kwargs | {"position_bias": torch.zeros(1)}


def slide_by_mask_alone(model: LlamaModel) -> None:
    """A window that no keyword of the attention call tells."""
    model.config.sliding_window = 9
    for layer in model.layers:
        layer.config = model.config
        layer.register_forward_pre_hook(_with_sliding_mask, with_kwargs=True)


def _with_sliding_mask(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    mask = create_sliding_window_causal_mask(
        module.config, inputs_embeds=args[0], attention_mask=None, past_key_values=None
    )
    return args, kwargs | {"attention_mask": mask}
