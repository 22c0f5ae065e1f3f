"""What the name of an argument tells: times, lengths, masks, states, graphs."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import nn

from vgaudit.data.inputs.family import SEQUENCE, Family, hidden_state, tensor
from vgaudit.data.inputs.form import TensorForm


def by_name(name: str, model: nn.Module) -> list[Family]:
    """Returns what the name of an argument tells, for well-known names."""
    for pattern, build in _NAMES:
        if re.fullmatch(pattern, name):
            return build(model)
    return []


def hidden_width(model: nn.Module) -> int:
    """Returns the width that the model calls hidden; 0 if it calls none so."""
    for name in ("hidden_size", "hidden_dim"):
        width = getattr(model, name, None)
        if isinstance(width, int):
            return width
    return 0


def _times(model: nn.Module) -> list[Family]:
    tables = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    high = min([1000, *tables])
    return [
        Family(
            lambda n, _: TensorForm(
                shape=(n,), dtype=torch.int64, fill="ids", high=high
            )
        ),
        Family(lambda n, _: TensorForm(shape=(n,), fill="uniform")),
        Family(lambda n, _: TensorForm(shape=(n, 1), fill="uniform")),
    ]


def _lengths(model: nn.Module) -> list[Family]:
    return [
        Family(
            lambda n, s: TensorForm(
                shape=(n,), dtype=torch.int64, fill="full", high=max(s, 1)
            ),
            SEQUENCE,
        )
    ]


def _mask(value: int) -> Callable[[nn.Module], list[Family]]:
    def form(dtype: torch.dtype, *shape: int, batch: bool = True) -> TensorForm:
        dims = (0,) if batch else ()
        return TensorForm(
            shape=shape, dtype=dtype, fill="full", high=value, batch_dims=dims
        )

    return lambda model: [
        Family(lambda n, s: form(torch.bool, n, s), SEQUENCE),
        Family(lambda n, s: form(torch.bool, s, s, batch=False), SEQUENCE),
        Family(lambda n, s: form(torch.float32, n, s), SEQUENCE),
        Family(lambda n, s: form(torch.float32, s, s, batch=False), SEQUENCE),
        Family(lambda n, s: form(torch.bool, n, 1, s, s), SEQUENCE),
        Family(lambda n, s: form(torch.bool, n, 1, 1, s), SEQUENCE),
    ]


def _state(model: nn.Module) -> list[Family]:
    layers = [m for m in model.modules() if isinstance(m, nn.RNNBase)]
    if layers:
        return [hidden_state(layers[0])]
    width = hidden_width(model)
    return [tensor(width)] if width else []


def _edges(model: nn.Module) -> list[Family]:
    """Edges between the first two nodes: valid for any graph of two or more."""
    return [
        Family(
            lambda n, _: TensorForm(
                shape=(2, 16), dtype=torch.int64, fill="ids", high=2, batch_dims=()
            )
        )
    ]


def _adjacency(model: nn.Module) -> list[Family]:
    return [
        Family(lambda n, _: TensorForm(shape=(n, n), fill="uniform", batch_dims=(0, 1)))
    ]


_NAMES: tuple[tuple[str, Callable[[nn.Module], list[Family]]], ...] = (
    (r"t|time|times|timesteps?|sigmas?|noise_levels?", _times),
    (r"(\w+_)?(lengths?|lens?)", _lengths),
    (r"\w*(padding|pad|src|tgt|attn)_?mask|\w*causal_mask", _mask(0)),
    (r"\w*mask\w*", _mask(1)),
    (r"edge_index|edges", _edges),
    (r"adj|adjacency|adj_matrix", _adjacency),
    (r"h|hx|h0|h_0|hidden|hidden_state|state|init_state", _state),
)
"""First match wins."""
