"""What the engine needs of a model, whatever runs it: our decoder, or transformers' own code.

Before its weights are there a model is a blueprint, which says what must be kept of each token; a
page store is made for that, and then the weights are loaded for the store.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from inarch.hal.attention import AttentionBatch, HostPlan
from inarch.hal.device import Device
from inarch.hal.dispatch import Dispatcher
from inarch.hal.executor import StepInputs, StepShape
from inarch.hal.kv import KVSpec, KVState, KVStore
from inarch.hal.state import StateSpec
from inarch.models.description.pooling import PooledHead
from inarch.models.layers.pooling import RunHead
from inarch.models.survey import Survey


class Model(Protocol):
    """A loaded model on one device. Letters in shapes: S sequences, V vocabulary, N any number."""

    @property
    def generates(self) -> bool:
        """Whether there are logits: else `forward` and `logits` must not be called."""
        ...

    @property
    def pooled(self) -> RunHead:
        """What makes vectors or scores of hidden states."""
        ...

    @property
    def capturable(self) -> bool:
        """Whether `forward` may be recorded and replayed: see Attention."""
        ...

    @property
    def states(self) -> StateSpec:
        """What it keeps of a sequence beside what it keeps of tokens: nothing, for most."""
        ...

    def kept_bytes(self, most: StepShape) -> int:
        """What its attention will keep of the device's memory for steps up to `most`."""
        ...

    def plan(self, batch: AttentionBatch) -> HostPlan:
        """What one step needs, which is bound to a tuple: `StepInputs.plans`."""
        ...

    def forward(self, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        """Logits [S, V] float32 after each sequence's last token, and the new KV state."""
        ...

    def hidden(self, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        """The last hidden states, normed, [len(last_token), hidden], and the new KV state."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [N, V] float32 of hidden states [N, hidden]."""
        ...


class Blueprint(Protocol):
    """A model of which no weight is there yet.

    on_kernels: whether every op is one of ours, which a backend's kernels may serve.
    """

    on_kernels: bool

    @property
    def vocab_size(self) -> int: ...

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and answer together."""
        ...

    @property
    def long_from(self) -> int | None:
        """See `Description.long_from`."""
        ...

    @property
    def hidden(self) -> int:
        """Features of a hidden state."""
        ...

    @property
    def causal(self) -> bool:
        """Whether no token sees a later one, so that a prompt may come in chunks."""
        ...

    @property
    def token_types(self) -> int:
        """How many kinds of text it tells apart; 0: none."""
        ...

    @property
    def pooled(self) -> PooledHead | None:
        """What it has in place of an output head; None: it is a language model."""
        ...

    def kv_spec(self, dtype: torch.dtype) -> KVSpec:
        """What it keeps of a token, in `dtype`."""
        ...

    def state_spec(self, dtype: torch.dtype) -> StateSpec:
        """What it keeps of a sequence, computing in `dtype`."""
        ...

    def survey(self, dtype: torch.dtype) -> Survey:
        """What it is, in words. Raises ModelError if its checkpoint shows that `load` would."""
        ...

    def bind(
        self, dispatcher: Dispatcher, store: KVStore, device: Device, dtype: torch.dtype
    ) -> None:
        """Choose the kernels that `load` would, without weights. Raises UnsupportedError."""
        ...

    def load(
        self, dispatcher: Dispatcher, store: KVStore, device: Device, dtype: torch.dtype
    ) -> Model:
        """Bring the weights to the device in `dtype` and bind every op.

        store: of this blueprint's `kv_spec`. Raises ModelError for an incomplete or damaged
        checkpoint, UnsupportedError if a kernel lacks.
        """
        ...
