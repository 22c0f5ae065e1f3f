"""Counts which hinges of a model's piecewise linear activations are ever used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.nn.piecewise_linear import PiecewiseLinear


@contextmanager
def watch_hinges(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Counts, while it lasts, how many inputs fall beside each hinge.

    A hinge without any is dead: its value gets no gradient. Counting costs about
    as much as the activation itself, which therefore never counts by itself.

    Yields:
        The counts ``[C, H]`` of every ``PiecewiseLinear``, by qualified name; they
        grow with every forward pass.
    """
    hits: dict[str, Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, PiecewiseLinear):
            hits[name] = torch.zeros_like(module.values, dtype=torch.int64)
            handles.append(module.register_forward_pre_hook(_counter(hits[name])))
    try:
        yield hits
    finally:
        for handle in handles:
            handle.remove()


def _counter(total: Tensor) -> Any:
    def count(module: PiecewiseLinear, args: tuple[Any, ...]) -> None:
        total.add_(module.hinge_hits(args[0]))

    return count
