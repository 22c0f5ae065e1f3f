"""What a repair begins with: the model on its device, its data split, and its scan."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from vgaudit.data.seeding import generator_for
from vgaudit.errors import BadConfig
from vgaudit.fixing import FEWEST_SEEDS, FixOptions
from vgaudit.flow import Audit, GradientFlow
from vgaudit.probe import probe
from vgaudit.probe.placing import parse_device
from vgaudit.repair.bench import Bench
from vgaudit.repair.starts import Starts
from vgaudit.training.split import Feed, feed
from vgaudit.training.task import Task, chosen_loss
from vgaudit.treatments import Measurement

_LOOK = 64
LEAST_JUDGED = 20
"""Samples for judging below which nothing could be told apart."""

MOST_CHOOSING, MOST_JUDGING = 1000, 5000
"""Samples beyond which validation would only take time from training."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """The model on its device, its data split, and its scan."""

    model: nn.Module
    fed: Feed
    measurement: Measurement
    before: Audit

    def bench(self, seed: int) -> Bench:
        """Returns what all trainings have in common."""
        choosing, judging = _halves(self.fed.valid_rows, seed)
        measurement = self.measurement
        loss, options = measurement.loss, measurement.options
        assert loss is not None

        def scan(trained: nn.Module) -> GradientFlow:
            return probe(trained, measurement.batches, loss=loss, options=options)

        return Bench(
            model=self.model,
            starts=Starts(self.model, self.before.flow, measurement.batches),
            look=measurement.batches,
            fed=self.fed,
            loss=loss,
            device=parse_device(options.device),
            choosing=choosing,
            judging=judging,
            scan=scan,
        )


def scanned(task: Task, options: FixOptions) -> Scanned:
    """Returns a model's scan, and its data split as the options say.

    Raises:
        VgauditError: the options do not fit, or the model or its data fail.
    """
    _check(options)
    model = task.model.to(parse_device(task.probe.device))
    fed = feed(
        task.samples,
        None,
        share=options.valid_split,
        size=options.batch_size,
        seed=options.seed,
    )
    measurement = _measurement(task, fed)
    return Scanned(model, fed, measurement, measurement.audit(model, task.target))


def _measurement(task: Task, fed: Feed) -> Measurement:
    """Returns how the model is scanned, on a few training batches."""
    look = fed.look(task.data.batches, _LOOK)
    loss = chosen_loss(task, task.model, look[0], parse_device(task.probe.device))
    return Measurement(look, fed.facts(), loss, task.probe)


def _check(options: FixOptions) -> None:
    if options.seeds < FEWEST_SEEDS:
        raise BadConfig(
            f"--seeds is {options.seeds}",
            hint=f"give {FEWEST_SEEDS} or more: fewer tell nothing of the spread",
        )
    if not 0.0 < options.valid_split < 1.0:
        raise BadConfig(
            f"--valid-split is {options.valid_split:g}",
            hint="a repair needs samples to judge on: give a share such as 0.2",
        )
    if not options.budget > 0:
        raise BadConfig("the budget is not positive", hint="for example --budget 10m")
    if options.trials < 1:
        raise BadConfig(
            f"--trials is {options.trials}", hint="give 1 or more; 8 without it"
        )


def _halves(rows: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the rows that choose epochs, and those that judge.

    Raises:
        BadConfig: there are too few.
    """
    half = len(rows) // 2
    if half < LEAST_JUDGED:
        raise BadConfig(
            f"{len(rows)} samples are held out, and half of them judge",
            hint=f"give more data, or a larger --valid-split: {2 * LEAST_JUDGED} "
            "samples at least",
        )
    order = torch.randperm(len(rows), generator=generator_for(seed, "judging"))
    choosing, judging = order[:half][:MOST_CHOOSING], order[half:][:MOST_JUDGING]
    return rows[choosing].sort().values, rows[judging].sort().values
