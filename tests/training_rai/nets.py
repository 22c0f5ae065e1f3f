"""Nets, data and losses that the tests of RAI share."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vgaudit.data.batch import Batch, Loss


def bce(output: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(output.flatten(), labels.to(output.dtype))


def mse(output: Tensor, labels: Tensor) -> Tensor:
    return F.mse_loss(output, labels.to(output.dtype))


BCE, MSE = Loss("bce", bce), Loss("mse", mse)


def moons(samples: int, seed: int, dtype: torch.dtype = torch.float32) -> Batch:
    """Two half circles with noise 0.1."""
    generator = torch.Generator().manual_seed(seed)
    angle = torch.linspace(0, math.pi, samples // 2)
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    points = torch.cat([upper, torch.tensor([1.0, 0.5]) - upper])
    points += 0.1 * torch.randn(points.shape, generator=generator)
    labels = torch.arange(2).repeat_interleave(samples // 2).to(dtype)
    return Batch(args=(points.to(dtype),), labels=labels, size=samples)


def chain(
    hidden: int, width: int, activation: type[nn.Module] = nn.Sigmoid, seed: int = 0
) -> nn.Sequential:
    """2-(width × hidden)-1."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for number in range(hidden):
        layers += [nn.Linear(width if number else 2, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 1))


class Functional(nn.Module):
    """Parameters and functions alone: no layer modules."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        sizes = [2, *[width] * hidden, 1]
        pairs = list(pairwise(sizes))
        self.w = nn.ParameterList(torch.randn(b, a) / a**0.5 for a, b in pairs)
        self.b = nn.ParameterList(torch.zeros(b) for _, b in pairs)

    def forward(self, x: Tensor) -> Tensor:
        for weight, bias in zip(self.w[:-1], self.b[:-1], strict=True):
            x = torch.tanh(F.linear(x, weight, bias))
        return F.linear(x, self.w[-1], self.b[-1])


class Block(nn.Module):
    """Two convolutions with normalisation, beside a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm(self.first(x)))
        y = self.second(y)
        y += x
        return self.relu(y)


class Residual(nn.Module):
    """A small residual net on ``[N, 1, 6, 6]`` images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.Sequential(Block(4), Block(4))
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def images(samples: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((samples, 1, 6, 6), generator=generator)
    return Batch(args=(x,), labels=(x.mean((1, 2, 3)) > 0).float(), size=samples)
