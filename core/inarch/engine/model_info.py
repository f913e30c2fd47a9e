"""What front ends and users are told of the model that an engine serves, and how it is served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.config import EngineConfig
from inarch.engine.choices import Choices, dtype_name
from inarch.engine.grammars import Grammars
from inarch.engine.memory import MemoryPlan
from inarch.engine.messages import HeadInfo, ModelInfo, OpChoice
from inarch.engine.preparation import quantization_scheme
from inarch.engine.scheduler import Scheduler
from inarch.hal.device import Device
from inarch.hal.dispatch import REFERENCE, Dispatcher, explain
from inarch.models.checkpoint import Checkpoint
from inarch.models.description.pooling import LAST_TOKEN
from inarch.models.model import Blueprint
from inarch.models.sentence_modules import read_prompts, read_words


def model_info(
    config: EngineConfig,
    checkpoint: Checkpoint,
    blueprint: Blueprint,
    device: Device,
    scheduler: Scheduler,
    memory: MemoryPlan,
    chosen: Choices,
    dispatcher: Dispatcher,
    grammars: Grammars,
) -> ModelInfo:
    assert config.model is not None
    assert config.served_model_name is not None
    assert config.backend is not None
    on_reference = {choice.op for choice in dispatcher.choices if choice.kernel == REFERENCE}
    return ModelInfo(
        name=config.served_model_name,
        path=config.model,
        architecture=str(checkpoint.config["architectures"][0]),
        context_length=chosen.context,
        max_request_tokens=scheduler.longest(chosen.context),
        head=_head_info(checkpoint, blueprint),
        vocab_size=blueprint.vocab_size,
        dtype=dtype_name(chosen.dtype),
        weights=str(quantization_scheme(config) or ""),
        backend=config.backend,
        device=device.info.name,
        kv_tokens=scheduler.pool.capacity,
        kv_dtype=dtype_name(chosen.kv_dtype),
        page_tokens=scheduler.pool.page_tokens,
        max_running_requests=scheduler.max_running,
        eos_token_ids=eos_token_ids(checkpoint),
        default_sampling=_default_sampling(checkpoint.generation_config),
        memory=memory.as_dict(),
        reference_ops=tuple(sorted(on_reference)),
        ops=tuple(OpChoice(*row) for row in explain(dispatcher.choices)),
        grammar_kinds=grammars.kinds,
    )


def _head_info(checkpoint: Checkpoint, blueprint: Blueprint) -> HeadInfo:
    head = blueprint.pooled or LAST_TOKEN
    prompts, default = read_prompts(checkpoint.folder)
    return HeadInfo(
        generates=blueprint.pooled is None,
        outputs=head.outputs(blueprint.hidden),
        each_token=head.pooling.kind == "each",
        normalized=head.normalize,
        labels=head.labels,
        scores=head.scores,
        tells_texts_apart=blueprint.token_types > 1,
        whole_prompts=not blueprint.causal,
        prompts=prompts,
        default_prompt=default,
        words=read_words(checkpoint.folder),
    )


def eos_token_ids(checkpoint: Checkpoint) -> tuple[int, ...]:
    found = checkpoint.generation_config.get("eos_token_id", checkpoint.config.get("eos_token_id"))
    if found is None:
        return ()
    return tuple(found) if isinstance(found, list) else (int(found),)


def _default_sampling(generation: Mapping[str, Any]) -> dict[str, Any]:
    """What the model's makers recommend, in the names of SamplingParams."""
    known = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    found = {name: generation[name] for name in known if generation.get(name) is not None}
    if found.get("top_k") == 0:
        del found["top_k"]
    return found
