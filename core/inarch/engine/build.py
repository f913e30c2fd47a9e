"""From a resolved configuration to a running core: device, model, memory, scheduler, runner."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from inarch.config import EngineConfig
from inarch.engine.core import EngineCore
from inarch.engine.grammars import Grammars, choose_engines
from inarch.engine.kv_bytes import Origin
from inarch.engine.memory import MemoryPlan
from inarch.engine.messages import ModelInfo
from inarch.engine.model_info import eos_token_ids, model_info
from inarch.engine.pooling import Pooler
from inarch.engine.prefixes import Prefixes
from inarch.engine.preparation import prepare, quantization_scheme
from inarch.engine.runner import Runner
from inarch.engine.sampler import Sampler
from inarch.engine.scheduler import Scheduler
from inarch.engine.scoring import Scorer
from inarch.engine.sizing import size_memory
from inarch.engine.text.tokenizer import Tokenizer
from inarch.engine.text.vocabulary import TokenizerVocabulary
from inarch.hal.backend import Backend
from inarch.hal.device import Device
from inarch.hal.dispatch import Dispatcher
from inarch.hal.executor import StepShape
from inarch.hal.kv import KVStore
from inarch.hal.reference.executor import EagerExecutor
from inarch.hal.state import allocate_states
from inarch.models.checkpoint import Checkpoint
from inarch.models.fingerprint import fingerprint
from inarch.plugins import Plugins

log = logging.getLogger(__name__)

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
    memory = size_memory(
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
    grammars = _grammars(config, plugins, blueprint.vocab_size, eos_token_ids(checkpoint))
    core = EngineCore(scheduler, runner, grammars, max_waiting=config.max_queued_requests)
    info = model_info(
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
