"""Runs a layer: its mixer and its feed-forward, each between the norms that it has.

The sum of the residual stream is left to the norm that follows, which adds and normalises at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from inarch.hal.executor import StepInputs
from inarch.hal.kv import KVState
from inarch.models.builder import Builder
from inarch.models.description import Layer, Norm
from inarch.models.layers import RunFeedForward, RunMixer, build_feed_forward, build_mixer
from inarch.models.layers.norm import AddNorm, build_add_norm, build_norm

# x [T, hidden], which is still to be added to the residual stream; the stream; the inputs; the
# state; the tokens that are needed afterwards [N] or None for all -> the same for the next layer.
RunLayer = Callable[
    [Tensor, Tensor | None, StepInputs, KVState, Tensor | None], tuple[Tensor, Tensor, KVState]
]


@dataclass(frozen=True, eq=False)
class Sequential:
    """First the mixer, then the feed-forward on the sum; either may be None."""

    mixer_norm: AddNorm
    mixer: RunMixer | None
    feed_forward_norm: AddNorm
    feed_forward: RunFeedForward | None

    def __call__(
        self,
        x: Tensor,
        residual: Tensor | None,
        inputs: StepInputs,
        kv: KVState,
        needed: Tensor | None,
    ) -> tuple[Tensor, Tensor, KVState]:
        if self.mixer is not None:
            x, residual = self.mixer_norm(x, residual)
            x, kv = self.mixer(x, inputs, kv)
        if needed is not None:
            x = x[needed]
            residual = None if residual is None else residual[needed]
        if self.feed_forward is not None:
            x, residual = self.feed_forward_norm(x, residual)
            x = self.feed_forward(x)
        assert residual is not None
        return x, residual, kv


@dataclass(frozen=True, eq=False)
class Parallel:
    """Both read the same; feed_forward_norm is None where they share the mixer's norm."""

    mixer_norm: AddNorm
    mixer: RunMixer
    feed_forward_norm: Callable[[Tensor], Tensor] | None
    feed_forward: RunFeedForward

    def __call__(
        self,
        x: Tensor,
        residual: Tensor | None,
        inputs: StepInputs,
        kv: KVState,
        needed: Tensor | None,
    ) -> tuple[Tensor, Tensor, KVState]:
        normed, residual = self.mixer_norm(x, residual)
        mixed, kv = self.mixer(normed, inputs, kv)
        if needed is not None:
            normed, residual, mixed = normed[needed], residual[needed], mixed[needed]
        own = self.feed_forward_norm
        fed = self.feed_forward(normed if own is None else own(residual))
        return mixed + fed, residual, kv


def build_layer(spec: Layer, builder: Builder, name: str) -> RunLayer:
    """name: the prefix of its parameters."""
    renewing = spec.normed_residual
    mixer_norm = build_add_norm(
        spec.mixer_norm, builder, f"{name}.mixer_norm", normed_residual=renewing
    )
    mixer = feed_forward = None
    if spec.mixer is not None:
        run = build_mixer(spec.mixer, builder, f"{name}.mixer")
        after = _after(
            spec.mixer_post_norm, spec.residual_scale, builder, f"{name}.mixer_post_norm"
        )
        mixer = run if after is None else _mixed(run, after)
    own_norm = f"{name}.feed_forward_norm"
    if spec.feed_forward is not None:
        fed = build_feed_forward(spec.feed_forward, builder, f"{name}.feed_forward")
        post_norm = f"{name}.feed_forward_post_norm"
        after = _after(spec.feed_forward_post_norm, spec.residual_scale, builder, post_norm)
        feed_forward = fed if after is None else _fed(fed, after)
    if not spec.parallel:
        norm = build_add_norm(spec.feed_forward_norm, builder, own_norm, normed_residual=renewing)
        return Sequential(mixer_norm, mixer, norm, feed_forward)
    assert mixer is not None
    assert feed_forward is not None
    own = spec.feed_forward_norm
    alone = None if own is None else build_norm(own, builder, own_norm).alone
    return Parallel(mixer_norm, mixer, alone, feed_forward)


def _after(
    post_norm: Norm | None, scale: float, builder: Builder, name: str
) -> Callable[[Tensor], Tensor] | None:
    """What is due to a half's result before it is added; None: nothing."""
    norm = None if post_norm is None else build_norm(post_norm, builder, name).alone
    if scale == 1.0:
        return norm
    return lambda x: (x if norm is None else norm(x)) * scale


def _mixed(run: RunMixer, after: Callable[[Tensor], Tensor]) -> RunMixer:
    def mixer(x: Tensor, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        x, kv = run(x, inputs, kv)
        return after(x), kv

    return mixer


def _fed(run: RunFeedForward, after: Callable[[Tensor], Tensor]) -> RunFeedForward:
    return lambda x: after(run(x))
