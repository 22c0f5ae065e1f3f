"""Small learning tasks, generated from fixed seeds: nothing is downloaded.

Each has one *chance* loss, that of the best constant prediction, so that one
figure says how much a run has learned whatever the loss is:
``explained = 1 - loss / chance`` (share of the entropy, or of the variance).
Classes are unevenly frequent on purpose: a net whose last bias alone learns
reaches chance and no more, and the frozen-control test can tell its last layer,
which learns, from the others, which do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

SAMPLES = 1024
SEED = 20_240_501
PRIORS = (0.4, 0.3, 0.2, 0.1)
SIDE = 8
LETTERS = 4


@dataclass(frozen=True)
class Task:
    """Inputs ``[N, …]``, targets, and the loss of the best constant output."""

    name: str
    x: Tensor
    y: Tensor
    chance: float
    outputs: int

    @property
    def classifies(self) -> bool:
        """Whether an accuracy can be stated."""
        return not self.y.is_floating_point()


def loss_of(output: Tensor, y: Tensor) -> Tensor:
    """Returns cross-entropy for labels, mean squared error for numbers."""
    if y.is_floating_point():
        return F.mse_loss(output.float(), y)
    return F.cross_entropy(output.float(), y)


@cache
def task(name: str) -> Task:
    """Returns the task called ``blobs``, ``segment``, ``recall:20`` …

    Raises:
        KeyError: there is no such task.
    """
    kind, _, argument = name.partition(":")
    generator = torch.Generator().manual_seed(SEED)
    if kind == "recall":
        return _recall(name, int(argument), generator)
    return {
        "blobs": _blobs,
        "images": _images,
        "tokens": _tokens,
        "reconstruct": _reconstruct,
        "segment": _segment,
        "real-or-noise": _real_or_noise,
    }[kind](name, generator)


def _labels(priors: tuple[float, ...], generator: torch.Generator) -> Tensor:
    counts = [round(share * SAMPLES) for share in priors]
    counts[0] += SAMPLES - sum(counts)
    labels = torch.repeat_interleave(torch.arange(len(priors)), torch.tensor(counts))
    return labels[torch.randperm(SAMPLES, generator=generator)]


def _pictures(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Returns smooth 8×8 patterns with noise; each class has two of them."""
    coarse = torch.randn(2 * len(PRIORS), 1, 4, 4, generator=generator)
    patterns = F.interpolate(coarse, SIDE, mode="bilinear").flatten(1)
    patterns = patterns / patterns.std(1, keepdim=True)
    half = torch.randint(0, 2, labels.shape, generator=generator)
    noise = torch.randn(len(labels), SIDE * SIDE, generator=generator)
    x = patterns[2 * labels + half] + 0.5 * noise
    return (x - x.mean()) / x.std()


def _entropy(y: Tensor) -> float:
    shares = torch.bincount(y.flatten()).double() / y.numel()
    return float(-(shares * shares.clamp_min(1e-12).log()).sum())


def _classify(name: str, x: Tensor, y: Tensor) -> Task:
    return Task(name, x, y, _entropy(y), int(y.max()) + 1)


def _blobs(name: str, generator: torch.Generator) -> Task:
    y = _labels(PRIORS, generator)
    return _classify(name, _pictures(y, generator), y)


def _images(name: str, generator: torch.Generator) -> Task:
    flat = _blobs(name, generator)
    return _classify(name, flat.x.view(-1, 1, SIDE, SIDE), flat.y)


def _tokens(name: str, generator: torch.Generator) -> Task:
    flat = _blobs(name, generator)
    return _classify(name, flat.x.view(-1, SIDE, SIDE), flat.y)


def _reconstruct(name: str, generator: torch.Generator) -> Task:
    x = _pictures(_labels(PRIORS, generator), generator)
    return Task(name, x, x.clone(), float(x.var(0, unbiased=False).mean()), x.shape[1])


def _segment(name: str, generator: torch.Generator) -> Task:
    x = _pictures(_labels(PRIORS, generator), generator).view(-1, 1, SIDE, SIDE)
    smooth = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    return _classify(name, x, (smooth > 0.4).long().squeeze(1))


def _real_or_noise(name: str, generator: torch.Generator) -> Task:
    y = _labels((0.6, 0.4), generator)
    real = _pictures(_labels(PRIORS, generator), generator)
    noise = torch.randn(real.shape, generator=generator)
    x = torch.where(y[:, None] == 0, real, noise).view(-1, 1, SIDE, SIDE)
    return _classify(name, x, y)


def _recall(name: str, lag: int, generator: torch.Generator) -> Task:
    """The first of ``lag + 1`` letters, asked for after all of them."""
    y = _labels(PRIORS, generator)
    letters = torch.randint(0, LETTERS, (SAMPLES, lag + 1), generator=generator)
    letters[:, 0] = y
    return _classify(name, math.sqrt(LETTERS) * F.one_hot(letters).float(), y)
