"""Trains the nets of this repository on two spheres; not run by the gate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn


def spheres(samples: int, features: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Returns points on two spheres of different size, and which each is on."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(samples, features, generator=generator)
    points /= points.norm(dim=1, keepdim=True)
    labels = torch.arange(samples) % 2
    return points * (1.0 + 0.5 * labels[:, None]), labels


def batches(
    points: Tensor, labels: Tensor, size: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the samples in an order that the seed decides."""
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
    for start in range(0, len(points), size):
        chosen = order[start : start + size]
        yield points[chosen], labels[chosen]


def train(model: nn.Module, *, epochs: int, rate: float, size: int = 64) -> float:
    """Trains a net, and returns the share of new points that it tells apart."""
    points, labels = spheres(2048)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    for epoch in range(epochs):
        for x, y in batches(points, labels, size, seed=epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    with torch.no_grad():
        new, truth = spheres(512, seed=1)
        return float((model(new).argmax(1) == truth).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rate", type=float, default=0.1)
    given = parser.parse_args()
    from models import classifier

    model = classifier(depth=6, activation="Tanh", skips=True)
    share = train(model, epochs=given.epochs, rate=given.rate)
    sys.stdout.write(f"{share:.1%} of new points are told apart\n")


if __name__ == "__main__":
    main()
