"""What the runs of one training have in common, and what each is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from vgaudit.data.batch import Loss
from vgaudit.flow import GradientFlow
from vgaudit.retraining import Progress, RetrainOptions
from vgaudit.training.crew import ALONE, Crew
from vgaudit.training.split import Feed

if TYPE_CHECKING:
    from vgaudit.training.method import Entry


class Diverged(Exception):
    """Too many steps in a row could not be taken; its text says so."""


WAY_OUT = "look at the data, lower --lr, or give --clip 1"


class Watcher(Protocol):
    """Who is told of every step; may end the training by raising."""

    def step(self, progress: Progress) -> None:
        """A step is done, and the training stands between two steps."""

    def say(self, sentence: str) -> None:
        """There is something that the user should know."""


class Deaf:
    """Stands for the watcher until another takes its place."""

    def step(self, progress: Progress) -> None:
        """Does nothing."""

    def say(self, sentence: str) -> None:
        """Does nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What is the same for every run of one training.

    Attributes:
        feed: the data. loss: settled, not ``auto``.
        device: where to train.
        scan: measures a model on a few training batches; None measures nothing.
        watcher: told of every step.
        crew: the processes that train together.
        loose: some parameters may get no gradient in some step.
        output: index or key of the output that is looked at; None for all of it.
    """

    feed: Feed
    loss: Loss
    device: torch.device
    scan: Callable[[nn.Module], GradientFlow] | None
    watcher: Watcher = field(default_factory=Deaf)
    crew: Crew = ALONE
    loose: bool = False
    output: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one run is.

    Attributes:
        name: of the run. entry: of its method. options: its own.
    """

    name: str
    entry: Entry
    options: RetrainOptions
