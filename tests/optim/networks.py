"""Small networks and batches for the optimizer tests."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


def mlp(*sizes: int, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Returns Linear and Tanh in turn; the last is a Linear."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).to(dtype)


def batches(
    count: int, inputs: int, classes: int, dtype: torch.dtype = torch.float64
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields inputs with a mean far from zero, and labels."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        x = torch.randn(16, inputs, generator=generator, dtype=torch.float64) + 2.0
        y = torch.randint(0, classes, (16,), generator=generator)
        yield x.to(dtype), y


def backward(model: nn.Module, x: Tensor, y: Tensor, *, scale: float = 1.0) -> Tensor:
    """Clears the gradients, goes backward, and returns the loss."""
    model.zero_grad()
    loss = cross_entropy(model(x), y) * scale
    loss.backward()
    return loss.detach()


def set_gradient(parameter: nn.Parameter, values: Tensor) -> None:
    """Gives a parameter a gradient without a loss."""
    parameter.grad = values.clone().to(parameter.dtype)


def values_of(model: nn.Module) -> list[Tensor]:
    """Returns copies of all parameters."""
    return [parameter.detach().clone() for parameter in model.parameters()]
