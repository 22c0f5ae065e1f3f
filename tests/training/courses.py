"""Small trainings for the tests: nets, samples, and a plain loop beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vgaudit.api import describe
from vgaudit.data.seeding import generator_for
from vgaudit.retraining import Retraining, RetrainOptions
from vgaudit.training.campaign import Surroundings
from vgaudit.training.retrain import opened
from vgaudit.training.task import Finished, train

ROWS, FEATURES, CLASSES = 120, 6, 3


def samples(rows: int = ROWS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Returns points and the class of each, which two directions decide."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, FEATURES, generator=generator)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def furnished(folder: Path, nets: str) -> Path:
    """Returns a folder with model factories in nets.py and the samples in data.npz."""
    (folder / "nets.py").write_text(nets)
    x, y = samples()
    np.savez(folder / "data.npz", x=x.numpy(), y=y.numpy())
    return folder


def net(*, dropout: float = 0.0, norm: bool = False, depth: int = 2) -> nn.Module:
    """Returns a seeded sigmoid net."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        width = FEATURES
        for _ in range(depth):
            layers.append(nn.Linear(width, 8))
            layers += [nn.BatchNorm1d(8)] if norm else []
            layers.append(nn.Sigmoid())
            layers += [nn.Dropout(dropout)] if dropout else []
            width = 8
        return nn.Sequential(*layers, nn.Linear(width, CLASSES))


class Cliff(nn.Module):
    """Gives NaN where the first feature is large, out of finite data."""

    def __init__(self, *, norm: bool = True) -> None:
        super().__init__()
        self.inner = net(norm=norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bad = (x[:, :1] > 2.2).any()
        return self.inner(torch.where(bad, x * float("nan"), x))


def options(method: str = "adam", **given: object) -> RetrainOptions:
    """Returns quick options: 3 epochs in steps of 16."""
    quick = RetrainOptions(method=method, epochs=3, batch_size=16)  # type: ignore[arg-type]
    return replace(quick, **given)  # type: ignore[arg-type]


def trained(
    model: nn.Module,
    asked: RetrainOptions,
    around: Surroundings | None = None,
    data: object = None,
    loss: object = "cross-entropy",
) -> Finished:
    """Trains a copy of a model on the samples above."""
    given = samples() if data is None else data
    task = opened(model, describe(model), given, options=asked)
    return train(replace(task, loss=loss), around or Surroundings())


def record(*args: object, **kwargs: object) -> Retraining:
    """Returns what ``trained`` recorded."""
    return trained(*args, **kwargs).retraining  # type: ignore[arg-type]


def split_rows(rows: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Returns the rows to train on and those held out, as documented."""
    order = torch.randperm(rows, generator=generator_for(seed, "split"))
    held = round(rows * share)
    return order[held:].sort().values, order[:held].sort().values


def plain_loop(
    model: nn.Module,
    make: Callable[[list[Tensor]], torch.optim.Optimizer],
    *,
    factor: Callable[[int, int], float],
    epochs: int = 3,
    size: int = 16,
    seed: int = 0,
) -> list[dict[str, Tensor]]:
    """Trains a model in place as anybody would write it; returns weights by epoch."""
    x, y = samples()
    rows, _ = split_rows(len(x), 0.1, seed)
    x, y = x[rows], y[rows]
    torch.manual_seed(seed)
    optimizer = make(list(model.parameters()))
    rate = optimizer.param_groups[0]["lr"]
    steps = -(-len(x) // size)
    found, step = [], 0
    for epoch in range(1, epochs + 1):
        model.train()
        order = torch.randperm(len(x), generator=generator_for(seed, "order", epoch))
        for start in range(0, len(x), size):
            chosen = order[start : start + size]
            optimizer.param_groups[0]["lr"] = rate * factor(step, epochs * steps)
            optimizer.zero_grad()
            F.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
            step += 1
        found.append({k: v.clone() for k, v in model.state_dict().items()})
    return found


def warmup_linear(step: int, total: int) -> float:
    """Returns the factor of the default schedule."""
    warm = round(0.05 * total)
    if step < warm:
        return (step + 1) / warm
    return (total - step) / (total - warm)


def same(a: nn.Module, b: dict[str, Tensor]) -> bool:
    """Tells whether a model holds exactly these tensors."""
    state = a.state_dict()
    return state.keys() == b.keys() and all(torch.equal(state[k], b[k]) for k in b)


class Late(nn.Module):
    """Gives NaN after so many steps of training, out of finite data and weights."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.inner, self.steps = net(), steps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and torch.is_grad_enabled():
            self.steps -= 1
        output: Tensor = self.inner(x)
        return output if self.steps >= 0 else output * float("nan")
