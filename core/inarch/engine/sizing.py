"""Size the KV cache of a model that is loaded: steps of padding are run, and what they leave is it."""

from __future__ import annotations

from dataclasses import replace

import torch

from inarch.config import EngineConfig
from inarch.engine.batch import build_batch, nothing
from inarch.engine.core import MAX_IN_FLIGHT
from inarch.engine.memory import MemoryPlan, RunStep, measure_activations, plan_memory
from inarch.engine.pooling import Pooler
from inarch.engine.sampler import Sampler
from inarch.engine.table import RequestTable
from inarch.hal.device import Device
from inarch.hal.executor import Executor, StepInputs, StepShape
from inarch.hal.kv import KVStore
from inarch.hal.packing import upload
from inarch.hal.state import allocate_states
from inarch.models.model import Model

# More KV than this many full contexts per running request could only be idle cache.
USEFUL_CONTEXTS = 4


def size_memory(
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
