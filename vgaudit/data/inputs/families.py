"""Which inputs a layer can take."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from vgaudit.data.inputs.consumers import Entry
from vgaudit.data.inputs.family import (
    COLOUR,
    GREY,
    LATENT,
    SEQUENCE,
    SIGNAL,
    Family,
    clip,
    hidden_state,
    ids,
    image,
    sequence,
    tensor,
    vector,
)
from vgaudit.data.inputs.form import TensorForm


def families(entry: Entry) -> list[Family]:
    """Returns what the layer of ``entry`` takes, most usual first."""
    if isinstance(entry.layer, nn.Parameter):
        return list(_parameter(entry.layer))
    layer: Any = entry.layer
    if entry.width is not None:
        layer = _Narrowed(entry.layer, entry.width)
    for kinds, build in _TABLE:
        if isinstance(entry.layer, kinds):
            return list(build(layer, entry.position))
    return [
        family
        for parameter in entry.layer.parameters(recurse=False)
        for family in _parameter(parameter)
    ]


class _Narrowed:
    """A layer as one part of a concatenation sees it."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        self.in_features = self.in_channels = self.input_size = width
        self._layer = layer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


def without_layer() -> list[Family]:
    """Returns the guesses for an argument that reaches no layer."""
    return [vector(16), image(3), tensor(16, 16)]


def _linear(layer: Any, position: int) -> Iterator[Family]:
    features = layer.in_features
    if features == 0:  # lazy: any width will do
        yield vector(16)
        return
    yield vector(features)
    yield sequence(features)
    for channels in (1, 3):
        side = math.isqrt(features // channels)
        if side > 1 and channels * side * side == features:
            yield tensor(channels, side, side)
    for channels in (3, 1):  # a linear embedding of patches
        if features % channels == 0:
            yield image(channels)
    if features == 1:
        yield tensor()


def _bilinear(layer: Any, position: int) -> Iterator[Family]:
    yield vector(layer.in2_features if position else layer.in1_features)


def _conv1d(layer: Any, position: int) -> Iterator[Family]:
    channels = layer.in_channels or 1
    yield Family(lambda n, s: TensorForm(shape=(n, channels, s)), SIGNAL)
    if channels == 1:
        yield Family(lambda n, s: TensorForm(shape=(n, s)), SIGNAL)
    yield Family(lambda n, s: TensorForm(shape=(n, s, channels)), SIGNAL)


def _conv2d(layer: Any, position: int) -> Iterator[Family]:
    channels = layer.in_channels or 3
    yield image(channels)
    if channels == 1:
        yield Family(lambda n, s: TensorForm(shape=(n, s, s)), GREY, True)
    yield Family(lambda n, s: TensorForm(shape=(n, s, s, channels)), COLOUR, True)
    if channels not in (1, 3):  # the model adds coordinates, frames or parts
        yield image(3)
        yield image(1)


def _conv3d(layer: Any, position: int) -> Iterator[Family]:
    yield clip(layer.in_channels or 1)


def _transposed(layer: Any, position: int) -> Iterator[Family]:
    channels, dims = layer.in_channels or 16, len(layer.kernel_size)
    yield Family(lambda n, s: TensorForm(shape=(n, channels, *[s] * dims)), LATENT)
    yield vector(channels)


def _embedding(layer: Any, position: int) -> Iterator[Family]:
    yield from ids(layer.num_embeddings)


def _recurrent(layer: Any, position: int) -> Iterator[Family]:
    if position == 0:
        yield sequence(layer.input_size, batch_first=layer.batch_first)
        if not layer.batch_first:
            yield sequence(layer.input_size)
    else:
        yield hidden_state(layer)


def _cell(layer: Any, position: int) -> Iterator[Family]:
    if position == 0:
        yield vector(layer.input_size)
    elif isinstance(layer, nn.LSTMCell):
        state = vector(layer.hidden_size)
        yield Family(lambda n, s: (state.build(n, s), state.build(n, s)))
    else:
        yield vector(layer.hidden_size)


def _attention(layer: Any, position: int) -> Iterator[Family]:
    width = (layer.embed_dim, layer.kdim, layer.vdim)[min(position, 2)]
    yield sequence(width, batch_first=layer.batch_first)
    if not layer.batch_first:
        yield sequence(width)


def _transformer(layer: Any, position: int) -> Iterator[Family]:
    inner = next(m for m in layer.modules() if isinstance(m, nn.MultiheadAttention))
    yield sequence(inner.embed_dim, batch_first=inner.batch_first)
    if not inner.batch_first:
        yield sequence(inner.embed_dim)


def _norm1d(layer: Any, position: int) -> Iterator[Family]:
    features = layer.num_features or 16
    yield vector(features)
    yield Family(lambda n, s: TensorForm(shape=(n, features, s)), SIGNAL)


def _norm2d(layer: Any, position: int) -> Iterator[Family]:
    yield image(layer.num_features or 3)


def _norm3d(layer: Any, position: int) -> Iterator[Family]:
    yield clip(layer.num_features or 1)


def _layer_norm(layer: Any, position: int) -> Iterator[Family]:
    shape = tuple(layer.normalized_shape)
    yield tensor(*shape)
    yield Family(lambda n, s: TensorForm(shape=(n, s, *shape)), SEQUENCE)


def _group_norm(layer: Any, position: int) -> Iterator[Family]:
    yield image(layer.num_channels)
    yield vector(layer.num_channels)
    yield Family(lambda n, s: TensorForm(shape=(n, layer.num_channels, s)), SIGNAL)


def _prelu(layer: Any, position: int) -> Iterator[Family]:
    yield vector(16 if layer.num_parameters == 1 else layer.num_parameters)


def _parameter(parameter: Any) -> Iterator[Family]:
    """Guesses from the shape of a weight that no layer owns."""
    if is_lazy(parameter):
        return
    shape = tuple(parameter.shape)
    if len(shape) == 4:
        yield image(shape[1])
    if len(shape) == 2:
        yield vector(shape[0])
        yield vector(shape[1])
        yield sequence(shape[0])
        yield sequence(shape[1])
    if len(shape) == 1:
        yield vector(shape[0])
        yield sequence(shape[0])
    if len(shape) > 2:
        yield tensor(*shape[1:])


_TABLE: tuple[tuple[Any, Callable[[Any, int], Iterator[Family]]], ...] = (
    (nn.Linear, _linear),
    (nn.Bilinear, _bilinear),
    (nn.Conv1d, _conv1d),
    (nn.Conv2d, _conv2d),
    (nn.Conv3d, _conv3d),
    ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _transposed),
    ((nn.Embedding, nn.EmbeddingBag), _embedding),
    (nn.RNNBase, _recurrent),
    (nn.RNNCellBase, _cell),
    (nn.MultiheadAttention, _attention),
    (
        (
            nn.Transformer,
            nn.TransformerEncoder,
            nn.TransformerDecoder,
            nn.TransformerEncoderLayer,
            nn.TransformerDecoderLayer,
        ),
        _transformer,
    ),
    ((nn.BatchNorm1d, nn.LazyBatchNorm1d, nn.InstanceNorm1d), _norm1d),
    ((nn.BatchNorm2d, nn.LazyBatchNorm2d, nn.InstanceNorm2d), _norm2d),
    ((nn.BatchNorm3d, nn.LazyBatchNorm3d, nn.InstanceNorm3d), _norm3d),
    ((nn.LayerNorm, nn.RMSNorm), _layer_norm),
    (nn.GroupNorm, _group_norm),
    (nn.PReLU, _prelu),
)
"""First match wins."""
