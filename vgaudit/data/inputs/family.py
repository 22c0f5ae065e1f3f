"""Families of forms: the same tensor with one free extent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vgaudit.data.inputs.form import TensorForm

SEQUENCE = (16, 8, 32, 64, 128, 256, 512, 1024, 4, 2)
SIGNAL = (128, 256, 512, 1024, 2048, 4096, 16_000, 64, 32, 16)
GREY = (28, 32, 64, 96, 128, 224, 256, 299, 384, 512, 84, 16, 8)
COLOUR = (32, 64, 96, 128, 160, 192, 224, 256, 299, 384, 448, 512, 518, 84, 28, 16, 8)
LATENT = (1, 4, 7, 8, 16, 32, 64)
CLIP = ((16, 64), (16, 112), (16, 224), (8, 112), (32, 224), (32, 32), (64, 64))
"""Extents in order of preference; clips are frames and side."""


@dataclass(frozen=True, slots=True)
class Family:
    """Forms that differ in one extent.

    Attributes:
        build: the form for batch and extent.
        sizes: extents to try, in order; ``(0,)`` where there is none.
        spatial: larger maps are better while deep convolutions see almost none.
    """

    build: Callable[[int, int], Any]
    sizes: tuple[int, ...] = (0,)
    spatial: bool = False


def tensor(*extents: int, batch_dims: tuple[int, ...] = (0,)) -> Family:
    """Returns one form without a free extent; the batch comes first."""
    return Family(lambda n, _: TensorForm(shape=(n, *extents), batch_dims=batch_dims))


def vector(features: int) -> Family:
    """Returns ``[N, features]``."""
    return tensor(features)


def sequence(features: int, *, batch_first: bool = True) -> Family:
    """Returns ``[N, L, features]``, or ``[L, N, features]``."""
    if batch_first:
        return Family(lambda n, s: TensorForm(shape=(n, s, features)), SEQUENCE)
    return Family(
        lambda n, s: TensorForm(shape=(s, n, features), batch_dims=(1,)), SEQUENCE
    )


def ids(high: int) -> list[Family]:
    """Returns whole numbers below ``high``: ``[N, L]``, else ``[N]``."""

    def form(*shape: int) -> TensorForm:
        return TensorForm(shape=shape, dtype=torch.int64, fill="ids", high=high)

    return [Family(lambda n, s: form(n, s), SEQUENCE), Family(lambda n, _: form(n))]


def image(channels: int) -> Family:
    """Returns square images ``[N, channels, S, S]``."""
    sizes = GREY if channels == 1 else COLOUR
    return Family(lambda n, s: TensorForm(shape=(n, channels, s, s)), sizes, True)


def clip(channels: int) -> Family:
    """Returns clips ``[N, channels, T, S, S]``; the extent is an index of ``CLIP``."""

    def build(n: int, index: int) -> TensorForm:
        frames, side = CLIP[index]
        return TensorForm(shape=(n, channels, frames, side, side))

    return Family(build, tuple(range(len(CLIP))))


def hidden_state(layer: Any) -> Family:
    """Returns the state of a recurrent layer, a pair for an LSTM."""
    lines = layer.num_layers * (2 if layer.bidirectional else 1)

    def form(n: int, width: int) -> TensorForm:
        return TensorForm(shape=(lines, n, width), batch_dims=(1,))

    if not isinstance(layer, nn.LSTM):
        return Family(lambda n, _: form(n, layer.hidden_size))
    output = layer.proj_size or layer.hidden_size
    return Family(lambda n, _: (form(n, output), form(n, layer.hidden_size)))
