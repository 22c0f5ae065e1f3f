"""Small models and tasks for repairs, and a stop after some trainings."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from vgaudit.api import describe
from vgaudit.fixing import FixOptions
from vgaudit.job import DataOptions, ProbeOptions
from vgaudit.judge import DEFAULT, Policy
from vgaudit.repair.fix import Asked, Repaired, fix
from vgaudit.repair.ledger import Ledger
from vgaudit.repair.sharing import ONE, Sharing
from vgaudit.retraining import Progress, RetrainOptions
from vgaudit.training.campaign import Surroundings
from vgaudit.training.opening import samples_of
from vgaudit.training.task import Task
from vgaudit.treatments.copying import copied


def task(count: int = 1500, *, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Returns inputs ``[N, 16]`` and which of 4 linear maps is the largest.

    The maps are always the same; the seed draws the inputs.
    """
    maps = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    x = torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))
    return x, (x @ maps).argmax(1)


def sick_and_short() -> nn.Sequential:
    """Returns few sigmoid layers with small weights, where rotation helps at once."""
    model = sick(6)
    with torch.no_grad():
        for layer in model[:-1]:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(0.5)
    return model


def sick(depth: int = 10) -> nn.Sequential:
    """Returns sigmoid layers as torch draws them: nothing comes through."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(32 if i else 16, 32), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(32, 4))


def healthy() -> nn.Sequential:
    """Returns a shallow net with ReLU and its usual weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    return model


class Stop:
    """Asks for the end after some steps of the trainings that count."""

    def __init__(self, steps: int | None = None) -> None:
        self._left = steps
        self.taken: dict[str, int] = {}

    def __call__(self) -> bool:
        if self._left is None:
            return False
        self._left -= 1
        return self._left < 0

    def report(self, progress: Progress) -> None:
        self.taken[progress.run] = max(self.taken.get(progress.run, 0), progress.step)


def fixed(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    options: FixOptions,
    *,
    folder: Path | None = None,
    resume: bool = False,
    stop: Stop | None = None,
    policy: Policy = DEFAULT,
    sharing: Sharing = ONE,
) -> Repaired:
    """Repairs a copy of a model."""
    own, _ = copied(model)
    opened = Task(
        model=own,
        target=describe(model),
        samples=samples_of(data, own, DataOptions(), lambda _sentence: None),
        data=DataOptions(),
        probe=ProbeOptions(),
        options=RetrainOptions(method="adam"),
    )
    asked = Asked(task=opened, options=options, policy=policy)
    stop = stop or Stop()
    around = Surroundings(resume=resume, stop=stop, report=stop.report)
    if folder is not None:
        folder.mkdir(exist_ok=True)
    return fix(asked, Ledger(folder), around, sharing)
