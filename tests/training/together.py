"""Trainings by several ranks, and by one: what each rank does, at top level."""

from __future__ import annotations

import dataclasses
import itertools
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.training.courses import net, samples
from vgaudit.api import describe
from vgaudit.distributed import joined
from vgaudit.ranks import Ranks
from vgaudit.retraining import RetrainOptions
from vgaudit.training.campaign import Surroundings
from vgaudit.training.checkpoint import RunFolder
from vgaudit.training.crew import ALONE, Crew
from vgaudit.training.retrain import opened
from vgaudit.training.task import train


class Words(nn.Module):
    """A small transformer, whose blocks FSDP2 gathers one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(self.embed(ids)).mean(1))
        return out


def model_of(name: str) -> nn.Module:
    torch.manual_seed(4)
    if name == "words":
        return Words()
    if name == "resnet18":
        import torchvision

        made = torchvision.models.resnet18(num_classes=3)
        # Statistics of a rank's own samples are others than those of the whole batch.
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
                module.train = lambda mode=True, own=module: own  # type: ignore
        return made
    return net(norm=name == "norm", dropout=0.3 if name == "dropout" else 0.0)


def data_of(name: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    if name == "words":
        ids = torch.randint(0, 11, (60, 7), generator=generator)
        return ids, ids.sum(1) % 3
    if name == "resnet18":
        x = torch.randn(18, 3, 64, 64, generator=generator)
        return x, torch.arange(18) % 3
    if name == "poisoned":
        x, y = samples()
        return torch.where(torch.arange(len(x))[:, None] == 17, torch.nan, x), y
    return samples()


def answer(
    name: str,
    asked: RetrainOptions,
    crew: Crew = ALONE,
    around: Surroundings | None = None,
) -> dict[str, Any]:
    """Returns weights, losses and scores as plain values."""
    model = model_of(name)
    task = opened(model, describe(model), data_of(name), options=asked)
    task = dataclasses.replace(task, loss="cross-entropy")
    done = train(task, around or Surroundings(), crew)
    run = done.retraining.run
    return {
        "weights": {n: t.detach().clone() for n, t in done.model.state_dict().items()},
        "losses": [epoch.train_loss for epoch in run.epochs],
        "scores": [(epoch.valid_loss, epoch.metric) for epoch in run.epochs],
        "layers": [[(g.layer, g.rms) for g in epoch.layers] for epoch in run.epochs],
        "attenuation": [epoch.attenuation for epoch in run.epochs],
        "converted": run.converted and run.converted.valid_loss,
        "steps": run.epochs[-1].steps,
        "skipped": sum(epoch.skipped for epoch in run.epochs),
        "best": run.best,
        "early": done.retraining.early,
        "notes": done.retraining.notes,
        "controls": [c.epochs[-1].valid_loss for c in done.retraining.controls],
    }


def share(ranks: Ranks, name: str, asked: RetrainOptions) -> dict[str, Any]:
    with joined(ranks) as group:
        return answer(name, asked, Crew(group))


def interrupted(
    ranks: Ranks | None, name: str, asked: RetrainOptions, *, folder: str, steps: int
) -> dict[str, Any]:
    """Trains so many steps, then the last rank is asked to stop."""
    count = itertools.count(1)
    last = ranks is None or ranks.rank == ranks.size - 1

    def stop() -> bool:
        return last and next(count) >= steps

    return _kept(ranks, name, asked, folder=folder, stop=stop)


def resumed(
    ranks: Ranks | None, name: str, asked: RetrainOptions, *, folder: str
) -> dict[str, Any]:
    return _kept(ranks, name, asked, folder=folder, resume=True)


def _kept(
    ranks: Ranks | None, name: str, asked: RetrainOptions, *, folder: str, **given: Any
) -> dict[str, Any]:
    if ranks is None:
        Path(folder).mkdir(exist_ok=True)
        around = Surroundings(folder=RunFolder(Path(folder)), **given)
        return answer(name, asked, ALONE, around)
    with joined(ranks) as group:
        place = RunFolder(Path(folder)) if group.first else None
        if group.first:
            Path(folder).mkdir(exist_ok=True)
        return answer(name, asked, Crew(group), Surroundings(folder=place, **given))


def step_then_stop(ranks: Ranks, asked: RetrainOptions, folder: str) -> dict[str, Any]:
    return interrupted(ranks, "mlp", asked, folder=folder, steps=11)


def go_on(ranks: Ranks, asked: RetrainOptions, folder: str) -> dict[str, Any]:
    return resumed(ranks, "mlp", asked, folder=folder)


def failing(ranks: Ranks, asked: RetrainOptions, bad: int, told: str) -> Any:
    """Trains a model that fails on one rank, in the middle of a step."""

    def lost(error: Exception) -> None:
        # As a worker does, whose main thread waits for the rank that has failed.
        Path(told).write_text(str(error))
        os._exit(3)

    with joined(ranks, lost=lost) as group:
        model = Failing(group.rank == bad)
        task = opened(model, describe(model), samples(), options=asked)
        task = dataclasses.replace(task, loss="cross-entropy")
        return train(task, Surroundings(), Crew(group)).retraining.early


class Failing(nn.Module):
    def __init__(self, bad: bool) -> None:
        super().__init__()
        self.inner, self.bad, self.calls = net(), bad, 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            self.calls += 1
            if self.bad and self.calls > 12:
                raise RuntimeError("a wire came off")
        out: Tensor = F.relu(self.inner(x))
        return out
