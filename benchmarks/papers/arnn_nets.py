"""Networks, rotations and the training loop that the ARNN studies share.

Keras defaults, as the authors used them: Glorot-uniform weights, zero biases, batch
normalization with momentum 0.99 and ε 1e-3, behind the activation. The weights depend
on the seed alone, so that all arms of a seed start from the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import vgaudit
from vgaudit.nn import Limit, auto_rotate

Range = tuple[float, float]


class Arctan(nn.Module):
    """The arctangent as an activation."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.atan(x)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "arctan": Arctan,
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.01),
}

# What reaches the layer behind: the range of the activation; for ReLU the paper takes
# that of the data, [0, 1], though hidden outputs may exceed it.
RANGES: dict[str, Range] = {
    "sigmoid": (0.0, 1.0),
    "arctan": (-math.pi / 2, math.pi / 2),
    "relu": (0.0, 1.0),
}

# Convolutions as (channels, kernel, padding), then the sizes of the dense layers.
SHAPES = {
    "A": ([(16, 5, 0), (8, 3, 0)], [288, 15]),
    "B": ([(8, 5, 2), (8, 3, 1), (4, 3, 1)], [64, 10, 10, 10, 10]),
}


def mlp(sizes: list[int], activation: str, seed: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(sizes[:-1]):
        layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
    return _started(nn.Sequential(*layers, nn.Linear(*sizes[-2:])), seed)


def architecture(name: str, activation: str, seed: int, *, bn: bool) -> nn.Sequential:
    """Returns architecture A or B of the paper, for 32 × 32 colour images."""
    convs, dense = SHAPES[name]
    layers: list[nn.Module] = []
    channels = 3
    for width, kernel, padding in convs:
        layers.append(nn.Conv2d(channels, width, kernel, padding=padding))
        layers.append(ACTIVATIONS[activation]())
        layers += [nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)] * bn
        layers.append(nn.MaxPool2d(2))
        channels = width
    layers.append(nn.Flatten())
    for before, after in pairwise(dense):
        layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
    return _started(nn.Sequential(*layers, nn.Linear(dense[-1], 10)), seed)


def weighted(model: nn.Module) -> Iterator[nn.Linear | nn.Conv2d]:
    """Yields the layers with weights, nearest the input first."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            yield module


def _started(model: nn.Sequential, seed: int) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    for layer in weighted(model):
        nn.init.xavier_uniform_(layer.weight, generator=generator)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return model


def rotate_(
    model: nn.Module,
    limit: Callable[[int], Limit],
    *,
    data: Range,
    hidden: Range,
    output: bool = False,
) -> nn.Module:
    """Rotates the layers as published: x_Q = 2·min − max, L given, not folded.

    Args:
        model: changed in place.
        limit: L by the number of units.
        data: range of what reaches the first layer.
        hidden: range of what reaches the others.
        output: rotate the last layer too, which the paper forbids for regression.
    """
    layers = list(weighted(model))
    for index, layer in enumerate(layers if output else layers[:-1]):
        auto_rotate(
            layer,
            limit=limit(layer.weight.shape[0]),
            denominator="xq-min",
            inputs=hidden if index else data,
        )
    return model


def converted(
    model: nn.Module, batch: tuple[Tensor, Tensor], *, limit: float | None = None
) -> nn.Module:
    """Returns what ``vgaudit convert --to ar`` makes of it, calibrated and folded."""
    parts = list(zip(batch[0].split(128), batch[1].split(128), strict=True))
    return vgaudit.convert(model, to="ar", data=parts, limit=limit, compare=False).model


@dataclass
class Curve:
    """One training: score after every epoch, gradients by epoch and layer.

    ``gradients`` are root mean squares of the gradient of each weight, means over the
    steps of the epoch; the first entry is the first batch before any step.
    """

    scores: list[float] = field(default_factory=list)
    gradients: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class Task:
    """What is trained on, how, and what is scored."""

    x: Tensor
    y: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[nn.Module], float]
    batch: int
    epochs: int


def train(model: nn.Module, task: Task, optimizer: Optimizer, seed: int) -> Curve:
    curve = Curve()
    layers = list(weighted(model))
    order = torch.Generator().manual_seed(seed)
    for _ in range(task.epochs):
        model.train()
        total = torch.zeros(len(layers), dtype=torch.float64)
        parts = torch.randperm(len(task.x), generator=order).split(task.batch)
        for rows in parts:
            optimizer.zero_grad()
            task.loss(model(task.x[rows]), task.y[rows]).backward()
            found = torch.stack([_rms(layer) for layer in layers])
            if not curve.gradients:
                curve.gradients.append(_rounded(found))
            total += found
            optimizer.step()
        curve.gradients.append(_rounded(total / len(parts)))
        model.eval()
        with torch.no_grad():
            curve.scores.append(round(task.score(model), 5))
    return curve


def accuracy(x: Tensor, y: Tensor) -> Callable[[nn.Module], float]:
    """Returns the score of a classifier: its accuracy in percent."""

    def score(model: nn.Module) -> float:
        found = torch.cat([model(part).argmax(1) for part in x.split(500)])
        return 100 * (found == y).double().mean().item()

    return score


def _rms(layer: nn.Linear | nn.Conv2d) -> Tensor:
    grad = layer.weight.grad
    assert grad is not None
    # In float64: squares of a vanished gradient are zero in float32.
    return grad.double().square().mean().sqrt().cpu()


def _rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.3e}") for value in values.tolist()]
