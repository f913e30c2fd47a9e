"""What a model is, as data: a family fills this in, the one decoder runs it.

A model is a stack of layers; a layer is a mixer (it moves information between tokens) and a
feed-forward (it works on each token alone). A new kind of either is one more frozen dataclass here,
which names its tensors, and one class in `inarch.models.layers` that runs it; the decoder stays as
it is. No torch here: a description can be compared, hashed and printed before anything is loaded.
"""

from inarch.models.description.attention import GroupedQueryAttention, QueryScaling
from inarch.models.description.feed_forward import MLP, GatedMLP
from inarch.models.description.latent import LatentAttention
from inarch.models.description.model import (
    Description,
    FeedForward,
    Layer,
    LearnedPositions,
    Mixer,
)
from inarch.models.description.moe import (
    ClampedSwiglu,
    MixtureOfExperts,
    Router,
    SparseMixer,
)
from inarch.models.description.norm import LayerNorm, Norm, RMSNorm
from inarch.models.description.parallel import Branch, ParallelMixers
from inarch.models.description.recurrent import (
    GatedDeltaNet,
    GatedNorm,
    KimiDeltaAttention,
    Mamba2,
)
from inarch.models.description.rotary import (
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    ProportionalScaling,
    Rotary,
    RotaryScaling,
    YarnScaling,
)

__all__ = [
    "MLP",
    "Branch",
    "ClampedSwiglu",
    "Description",
    "FeedForward",
    "GatedDeltaNet",
    "GatedMLP",
    "GatedNorm",
    "GroupedQueryAttention",
    "KimiDeltaAttention",
    "LatentAttention",
    "Layer",
    "LayerNorm",
    "LearnedPositions",
    "LinearScaling",
    "Llama3Scaling",
    "LongRopeScaling",
    "Mamba2",
    "Mixer",
    "MixtureOfExperts",
    "Norm",
    "ParallelMixers",
    "ProportionalScaling",
    "QueryScaling",
    "RMSNorm",
    "Rotary",
    "RotaryScaling",
    "Router",
    "SparseMixer",
    "YarnScaling",
]
