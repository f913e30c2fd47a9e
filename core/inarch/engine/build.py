"""From a resolved configuration to a running core: device, model, memory, scheduler, runner."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from inarch.config import EngineConfig
from inarch.engine.batch import build_batch, nothing
from inarch.engine.choices import Choices, dtype_name
from inarch.engine.core import MAX_IN_FLIGHT, EngineCore
from inarch.engine.grammars import Grammars, choose_engines
from inarch.engine.kv_bytes import Origin
from inarch.engine.memory import MemoryPlan, RunStep, measure_activations, plan_memory
from inarch.engine.messages import HeadInfo, ModelInfo, OpChoice
from inarch.engine.pooling import Pooler
from inarch.engine.prefixes import Prefixes
from inarch.engine.preparation import prepare, quantization_scheme
from inarch.engine.runner import Runner
from inarch.engine.sampler import Sampler
from inarch.engine.scheduler import Scheduler
from inarch.engine.scoring import Scorer
from inarch.engine.table import RequestTable
from inarch.engine.text.tokenizer import Tokenizer
from inarch.engine.text.vocabulary import TokenizerVocabulary
from inarch.hal.backend import Backend
from inarch.hal.device import Device
from inarch.hal.dispatch import REFERENCE, Dispatcher, explain
from inarch.hal.executor import Executor, StepInputs, StepShape
from inarch.hal.kv import KVStore
from inarch.hal.packing import upload
from inarch.hal.reference.executor import EagerExecutor
from inarch.hal.state import allocate_states
from inarch.models.checkpoint import Checkpoint
from inarch.models.description.pooling import LAST_TOKEN
from inarch.models.fingerprint import fingerprint
from inarch.models.model import Blueprint, Model
from inarch.models.sentence_modules import read_prompts, read_words
from inarch.plugins import Plugins

log = logging.getLogger(__name__)

# More KV than this many full contexts per running request could only be idle cache.
USEFUL_CONTEXTS = 4
LONGEST_WHOLE = 8192  # tokens of a step, for a prompt that must be computed at once


@dataclass(frozen=True)
class Built:
    """A core that is ready to step, and everything that can be said about it."""

    core: EngineCore
    prefixes: Prefixes
    info: ModelInfo
    device: Device
    dispatcher: Dispatcher
    memory: MemoryPlan
    reasons: Mapping[str, str]  # choice -> why


def build(config: EngineConfig, backend: Backend, plugins: Plugins) -> Built:
    """Open the device, load the model and size the KV cache. Raises InarchError."""
    ready = prepare(config, backend, plugins)
    checkpoint, blueprint, chosen = ready.checkpoint, ready.blueprint, ready.chosen
    device, dispatcher, store = ready.device, ready.dispatcher, ready.store
    before = device.memory().used
    model = blueprint.load(dispatcher, store, device, chosen.dtype)
    loaded = max(device.memory().used - before, 0)
    running = config.max_running_requests or device.running_requests
    sampler = Sampler(running, blueprint.vocab_size, device, dispatcher)
    scorer = Scorer(device, dispatcher, model.logits, running)
    pooler = Pooler(device, model.pooled, running, blueprint.hidden)
    dispatcher.freeze()
    captured = device.executor() if model.generates and model.capturable else None
    executor = captured or EagerExecutor(device)
    step_tokens = _step_tokens(config, device, chosen.context, running, causal=blueprint.causal)
    most = StepShape(step_tokens, running, step_tokens)
    memory = _size_memory(
        config,
        device,
        store,
        model,
        executor,
        sampler if model.generates else None,
        pooler,
        most,
        weights=loaded,
        context=chosen.context,
        vocab_size=blueprint.vocab_size,
        causal=blueprint.causal,
    )
    scheduler = Scheduler(
        pages=memory.pages,
        page_tokens=chosen.page_tokens,
        max_running=_running(running, memory),
        max_step_tokens=step_tokens,
        context_length=chosen.context,
        prefix_cache=config.prefix_cache and blueprint.causal,
        whole_prompts=not blueprint.causal,
        state_slots=memory.slots,
        long_from=blueprint.long_from,
        long_shift=blueprint.context_length,
    )
    pages = store.allocate(memory.pages)
    kv = allocate_states(pages, model.states, memory.slots, device.torch_device)
    runner = Runner(
        model,
        executor,
        sampler,
        scorer,
        pooler,
        scheduler.pool.table,
        store,
        kv,
        most,
        tells_types=blueprint.token_types > 1,
    )
    grammars = _grammars(config, plugins, blueprint.vocab_size, _eos_token_ids(checkpoint))
    core = EngineCore(scheduler, runner, grammars, max_waiting=config.max_queued_requests)
    info = _model_info(
        config, checkpoint, blueprint, device, scheduler, memory, chosen, dispatcher, grammars
    )
    reasons = {**chosen.reasons, "KV pages": f"limited by {memory.limited_by}"}
    prefixes = Prefixes(scheduler.pool, runner, _origin(config, checkpoint, chosen.dtype, store))
    return Built(core, prefixes, info, device, dispatcher, memory, reasons)


def _origin(
    config: EngineConfig, checkpoint: Checkpoint, dtype: torch.dtype, store: KVStore
) -> Callable[[], Origin]:
    """What is loaded, and how; a few bytes of every weight are read for it, once."""
    weights, scheme = config.load_format != "dummy", quantization_scheme(config)
    kept = "" if scheme is None else f", weights in {scheme}"

    def origin() -> Origin:
        return Origin(fingerprint(checkpoint, weights=weights) + kept, dtype, store.spec)

    return functools.cache(origin)


def _running(wanted: int, memory: MemoryPlan) -> int:
    """Requests at once: as many as recurrent states leave room for."""
    if not memory.slots or memory.slots > wanted:
        return wanted
    log.warning(
        "%d requests run at once, not %d: each has a recurrent state of %d MiB",
        memory.slots - 1,
        wanted,
        memory.slot_bytes >> 20,
    )
    return memory.slots - 1


def _step_tokens(
    config: EngineConfig, device: Device, context: int, running: int, *, causal: bool
) -> int:
    """The budget of a step. Attention to both sides needs a prompt whole: the longest should fit."""
    if config.max_step_tokens is not None:
        return max(config.max_step_tokens, running)
    longest = 0 if causal else min(context, LONGEST_WHOLE)
    return max(device.step_tokens, running, longest)


def _grammars(
    config: EngineConfig, plugins: Plugins, vocab_size: int, eos_token_ids: Sequence[int]
) -> Grammars:
    engines = choose_engines(plugins.grammar_engines(), config.grammar_engine)

    def vocabulary() -> TokenizerVocabulary:
        tokenizer = Tokenizer.load(Path(str(config.model)))
        return TokenizerVocabulary(tokenizer, vocab_size, eos_token_ids)

    return Grammars(engines, vocabulary, vocab_size)


def _size_memory(
    config: EngineConfig,
    device: Device,
    store: KVStore,
    model: Model,
    executor: Executor,
    sampler: Sampler | None,
    pooler: Pooler,
    most: StepShape,
    *,
    weights: int,
    context: int,
    vocab_size: int,
    causal: bool,
) -> MemoryPlan:
    behind = context if causal else 0
    sampled = _rehearsal(device, store, model, sampler or pooler, behind)
    activations = measure_activations(device, sampled, most.tokens, most.seqs)
    kept = model.kept_bytes(most)
    captured = executor.kept(most)
    if captured is not None:
        shape, unsampled = captured.shape, _rehearsal(device, store, model, None, behind)
        kept += captured.more + measure_activations(device, unsampled, shape.tokens, shape.seqs)
    return plan_memory(
        device,
        store.layout,
        share=config.memory_share or device.memory_share,
        weights=weights,
        activations=activations,
        kept=kept,
        sampling=Sampler.penalty_bytes(most.seqs, vocab_size) if sampler else 0,
        kv_tokens=config.kv_tokens,
        most_tokens=(
            context * most.seqs * USEFUL_CONTEXTS
            if causal  # else nothing is kept behind a step
            else MAX_IN_FLIGHT * (most.tokens + most.seqs * store.layout.page_tokens)
        ),
        slot_bytes=model.states.slot_bytes,
        running=most.seqs,
        fewer=config.max_running_requests is None,
    )


def _rehearsal(
    device: Device, store: KVStore, model: Model, after: Sampler | Pooler | None, context: int
) -> RunStep:
    """A step of padding; with `prefix` its last sequence's tokens end a whole context.

    after: what works on its results.
    """

    @torch.inference_mode()
    def run_step(tokens: int, seqs: int, prefix: bool) -> None:
        pages = -(-max(tokens, context) // store.layout.page_tokens)
        shape = StepShape(tokens, seqs, tokens)
        batch = build_batch(nothing(), RequestTable(0, pages), shape)
        kv_lens = batch.attention.kv_lens
        kv_lens[-1] = max(kv_lens[-1], context if prefix else 0)
        plans = model.plan(batch.attention).on(device)
        inputs = StepInputs(**upload(device, batch.inputs), plans=plans)
        if not model.generates:
            inputs = replace(inputs, last_token=torch.arange(tokens, device=device.torch_device))
        run = model.forward if model.generates else model.hidden
        kv = allocate_states(store.allocate(2), model.states, 2, device.torch_device)
        result, _ = device.rehearse(run, inputs, kv)
        if after is not None:
            after.rehearse(result)

    return run_step


def _model_info(
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
        eos_token_ids=_eos_token_ids(checkpoint),
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


def _eos_token_ids(checkpoint: Checkpoint) -> tuple[int, ...]:
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
