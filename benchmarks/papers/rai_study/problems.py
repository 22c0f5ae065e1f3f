"""Data and nets. Every sample is drawn from a generator of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vgaudit.data.batch import Batch, Loss

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
}
# Training and test sets of one run never share a generator, nor do the runs that
# choose hyper-parameters and those that are reported.
TRAIN, TEST, TUNING = 10_000, 20_000, 5_000


def bce(output: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(output.flatten(), labels.to(output.dtype))


def mse(output: Tensor, labels: Tensor) -> Tensor:
    return F.mse_loss(output.flatten(), labels.to(output.dtype))


BCE, MSE = Loss("binary cross-entropy", bce), Loss("mean squared error", mse)


@dataclass(frozen=True)
class Problem:
    """Samples to learn from and fresh ones to be judged on."""

    train: Batch
    test: Batch
    loss: Loss


def moons(samples: int, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """Two interleaving half circles with Gaussian noise, as scikit-learn makes them."""
    generator = torch.Generator().manual_seed(seed)
    upper, lower = samples - samples // 2, samples // 2
    a, b = torch.linspace(0, math.pi, upper), torch.linspace(0, math.pi, lower)
    points = torch.cat(
        [
            torch.stack([a.cos(), a.sin()], 1),
            torch.stack([1 - b.cos(), 0.5 - b.sin()], 1),
        ]
    )
    labels = torch.cat([torch.zeros(upper), torch.ones(lower)])
    return points + noise * torch.randn(points.shape, generator=generator), labels


def wave(samples: int, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """y = sin 3x₁ + x₂²/2 with Gaussian noise, x uniform in [−1.5, 1.5]²."""
    generator = torch.Generator().manual_seed(seed)
    x = 3 * torch.rand((samples, 2), generator=generator) - 1.5
    y = (3 * x[:, 0]).sin() + 0.5 * x[:, 1].square()
    return x, y + noise * torch.randn(samples, generator=generator)


Draw = Callable[[int, float, int], tuple[Tensor, Tensor]]


def problem(
    seed: int, *, noise: float = 0.1, samples: int = 100, task: str = "moons"
) -> Problem:
    """The training set of a seed and its 1000 fresh test samples.

    In regression the test labels are those without noise.
    """
    draw: Draw = {"moons": moons, "wave": wave}[task]
    clean = noise if task == "moons" else 0.0
    parts = (
        draw(samples, noise, TRAIN + seed),
        draw(1000, clean, TEST + seed),
    )
    batches = [Batch(args=(x,), labels=y, size=len(x)) for x, y in parts]
    return Problem(*batches, BCE if task == "moons" else MSE)


def net(
    seed: int, activation: str, *, depth: int, width: int, start: str = "default"
) -> nn.Sequential:
    """2-(width)…-1 with ``depth`` linear layers, initialised from the seed."""
    return shaped(seed, activation, [width] * (depth - 1), start=start)


def shaped(
    seed: int, activation: str, widths: list[int], *, start: str = "default"
) -> nn.Sequential:
    """2-widths-1, initialised from the seed."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    before = 2
    for width in widths:
        layers += [nn.Linear(before, width), ACTIVATIONS[activation]()]
        before = width
    model = nn.Sequential(*layers, nn.Linear(before, 1))
    initialise(model, start)
    return model


@torch.no_grad()
def initialise(model: nn.Module, start: str) -> None:
    """Draws the weights again: default, xavier, gain4, orthogonal, normal, tiny."""
    if start == "default":
        return
    for layer in model.modules():
        if not isinstance(layer, nn.Linear):
            continue
        match start:
            case "xavier":
                nn.init.xavier_uniform_(layer.weight)
            case "gain4":
                # Slope ¼ of the sigmoid undone, and its mean ½ taken off.
                nn.init.xavier_normal_(layer.weight, gain=4.0)
            case "orthogonal":
                nn.init.orthogonal_(layer.weight)
            case "normal":
                nn.init.normal_(layer.weight)
            case "tiny":
                nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
        if start == "gain4":
            layer.bias.copy_(-0.5 * layer.weight.sum(1))


@torch.no_grad()
def score(model: nn.Module, batch: Batch, loss: Loss) -> float:
    """Accuracy in %, or R² in %, of the ordinary forward pass."""
    output = model(*batch.args).flatten()
    if loss is BCE:
        return 100 * float(((output > 0) == (batch.labels > 0.5)).double().mean())
    rest = (output - batch.labels).square().mean()
    if not bool(rest.isfinite()):
        return -math.inf
    return 100 * (1 - float(rest / batch.labels.var(correction=0)))
