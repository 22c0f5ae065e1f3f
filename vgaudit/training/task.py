"""Training one opened model: measure, train with controls, measure again, compare."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from vgaudit import data
from vgaudit.data.batch import Batch, Loss
from vgaudit.data.losses import check_labels
from vgaudit.data.losses.outputs import own_loss
from vgaudit.data.normed import has_batch_norm
from vgaudit.errors import BadConfig, CannotRun, VgauditError
from vgaudit.flow import Audit, GradientFlow, Target
from vgaudit.job import DataOptions, ProbeOptions
from vgaudit.plain import visible
from vgaudit.probe import probe
from vgaudit.probe.placing import parse_device
from vgaudit.retraining import Progress, Retraining, RetrainOptions
from vgaudit.training import methods
from vgaudit.training.campaign import Campaign, Surroundings, Trained
from vgaudit.training.course import Course
from vgaudit.training.crew import ALONE, Crew
from vgaudit.training.door import check_validation, first_pass, naming
from vgaudit.training.metrics import metric_of, without_metric
from vgaudit.training.samples import Samples
from vgaudit.training.split import Feed, feed
from vgaudit.training.unused import unused
from vgaudit.training.verdict import against
from vgaudit.treatments import Measurement

FEW = 100
"""Validation samples below which the figures are called coarse."""

_LOOK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A model with its data, both opened.

    Attributes:
        model: trained in place. target: what is known of it.
        samples: to train on. valid: to validate on, None for a share of ``samples``.
        loss: a loss spec or function; None chooses by output and labels.
        data: how many batches to measure on. probe: how to measure.
        options: how to train.
    """

    model: nn.Module
    target: Target
    samples: Samples
    options: RetrainOptions
    valid: Samples | None = None
    loss: Any = None
    data: DataOptions = field(default_factory=DataOptions)
    probe: ProbeOptions = field(default_factory=ProbeOptions)


@dataclass(frozen=True, slots=True)
class Finished:
    """A trained model, and the record of its training."""

    model: nn.Module
    retraining: Retraining

    @property
    def audits(self) -> tuple[Audit, Audit] | None:
        """The scans before and after; None where one is missing."""
        before, after = self.retraining.before, self.retraining.after
        return None if before is None or after is None else (before, after)


def train(task: Task, around: Surroundings, crew: Crew = ALONE) -> Finished:
    """Measures, trains with controls, measures again, and compares.

    Of several ranks the first measures, and its record alone is whole.

    Args:
        task: alike on all ranks.
        around: the world outside; checkpoints are the first rank's.
        crew: the processes that train together.

    Raises:
        VgauditError: the options do not fit, or the model or a method fails.
    """
    options, device = task.options, parse_device(task.probe.device)
    _check_device(options, device)
    check_crew(options, crew)
    # What is spread over processes may be too large for the device of one.
    home = torch.device("cpu") if options.parallel == "fsdp" else device
    model = _trainable(task.model).to(home)
    fed = feed(
        task.samples,
        task.valid,
        share=0.0 if task.valid is not None else options.valid_split,
        size=options.batch_size,
        seed=options.seed,
    )
    _check_parts(fed, options, crew)
    look = fed.look(task.data.batches, _LOOK)
    loss = chosen_loss(task, model, look[0], home)
    check_validation(fed, model, loss, home)
    measurement = Measurement(look, fed.facts(), loss, task.probe)
    around.say("measuring before")
    before = measurement.audit(model, task.target) if crew.first else None
    prepared = methods.entry(options).prepare(model, look, options)
    prepared.model.to(home)
    course = Course(
        feed=fed,
        loss=loss,
        device=device,
        scan=_scanning(task, model, look, loss),
        crew=crew,
        loose=crew.any(before is not None and _is_loose(before.flow)),
        output=task.probe.output,
    )
    around.say(f"training with {options.method}")
    trained = Campaign(course, prepared, options, around).run()
    record = _record(options, fed, loss, trained)
    notes = (*prepared.notes, *record.notes, *_shared(crew, options, prepared.model))
    record = dataclasses.replace(record, before=before, notes=notes)
    if trained.interrupted:
        place = str(around.folder.path) if around.folder is not None else ""
        early = dataclasses.replace(record, early=_early(trained.at), checkpoint=place)
        return Finished(trained.model, early)
    if not crew.first:
        return Finished(trained.model, record)
    around.say("measuring after")
    proved = _proved(record, measurement, trained.model, task.target)
    return Finished(trained.model, proved)


def _scanning(
    task: Task, model: nn.Module, look: Sequence[Batch], loss: Loss
) -> Callable[[nn.Module], GradientFlow]:
    """Returns what measures a trained model on a few batches."""
    # What a method freezes of a model that trained whole is still transport.
    unfreeze = task.probe.unfreeze or all(p.requires_grad for p in model.parameters())
    measured = dataclasses.replace(task.probe, unfreeze=unfreeze)
    return lambda trained: probe(trained, look, loss=loss, options=measured)


def _proved(
    record: Retraining, measurement: Measurement, model: nn.Module, target: Target
) -> Retraining:
    """Returns the record with the scan after, or with why there is none.

    What was trained is worth more than its proof: a scan that fails ends nothing.
    """
    try:
        after = measurement.audit(model, target_after(target, model))
    except VgauditError as error:
        note = f"the scan after the training failed: {error.message}"
        return dataclasses.replace(record, notes=(*record.notes, note))
    return dataclasses.replace(record, after=after)


def _trainable(model: nn.Module) -> nn.Module:
    """Returns the model.

    Raises:
        CannotRun: it is frozen as a whole.
    """
    frozen = [parameter.requires_grad for parameter in model.parameters()]
    if frozen and not any(frozen):
        raise CannotRun(
            f"0 of {len(frozen)} parameters are trainable",
            hint="unfreeze what is to learn where the model is built: "
            "module.requires_grad_(True)",
        )
    return model


def _check_device(options: RetrainOptions, device: torch.device) -> None:
    if options.amp != "off" and device.type != "cuda":
        raise BadConfig(
            f"--amp {options.amp} is for CUDA, and the device is {device}",
            hint="leave it out, or give --device cuda",
        )


def _check_parts(fed: Feed, options: RetrainOptions, crew: Crew) -> None:
    """Refuses to cut the batches of a model that takes one size only."""
    if fed.exact and options.accumulate > 1:
        cut = f"--accumulate {options.accumulate} cuts them in parts"
    elif fed.exact and crew.size > 1:
        cut = f"{crew.size} processes share each"
    elif fed.exact and methods.entry(options).whole(options):
        cut = f"this way of {options.method} takes all samples at once"
    else:
        return
    raise BadConfig(
        f"the model takes batches of {fed.size} only, and {cut}",
        hint="leave that out, or export the model with a dynamic batch dimension",
    )


def check_crew(options: RetrainOptions, crew: Crew) -> None:
    """Refuses what several processes cannot train together.

    Raises:
        BadConfig: with the way out.
    """
    if crew.size == 1:
        return
    why, _, out = methods.entry(options).alone(options).partition("; ")
    if why:
        raise BadConfig(f"{crew.size} processes cannot train so: {why}", hint=out)


def _is_loose(flow: GradientFlow) -> bool:
    """Tells whether a step may leave a parameter without a gradient."""
    branches = any("control flow depends on the data" in note for note in flow.notes)
    return branches or not all(p.connected for p in flow.parameters if p.trainable)


def _shared(crew: Crew, options: RetrainOptions, model: nn.Module) -> list[str]:
    """Returns what to say about the training of several processes."""
    if crew.size == 1:
        return []
    how = "a copy of the model each" if options.parallel == "ddp" else "sharded"
    notes = [f"trained by {crew.size} processes ({options.parallel}: {how})"]
    if has_batch_norm(model):
        notes.append(
            "batch normalization used the statistics of each process's own samples; "
            "the running ones are those of rank 0"
        )
    return notes


def chosen_loss(
    task: Task, model: nn.Module, batch: Batch, device: torch.device
) -> Loss:
    """Returns the loss to train on, chosen by a first look at the outputs.

    Raises:
        CannotRun: there are no labels, or nothing fits.
    """
    if task.loss == "jacobian":
        raise BadConfig("training needs a loss", hint="leave out --loss jacobian")
    told, spec = data.guesses_told(task.samples.notes), visible(task.samples.spec)
    with told:
        with naming(spec):
            output, labels = first_pass(model, batch, device)
        labelled = labels is not None or own_loss(output) is not None
        loss = data.resolve_loss(task.loss, labelled, first=(output, labels))
        if loss is None:
            raise CannotRun(
                f"{spec} has no labels, and training needs them",
                hint="give (inputs, labels), or --loss output for a model with its own",
            )
        with naming(spec):
            check_labels(output, labels, loss)
    return data.settled(loss)


def _record(
    options: RetrainOptions, fed: Feed, loss: Loss, trained: Trained
) -> Retraining:
    metric = metric_of(loss) if len(fed.valid_rows) else ""
    notes = [*unused(options), *fed.train.notes, *trained.notes]
    if loss.note:
        notes.append(loss.note)
    notes += [f"skipped: {sentence}" for sentence in fed.train.skips.sentences()]
    if len(fed.valid_rows) and (reason := without_metric(loss)):
        notes.append(reason)
    if 0 < len(fed.valid_rows) < FEW:
        notes.append(
            f"only {len(fed.valid_rows)} validation samples: figures are coarse"
        )
    finished = () if trained.interrupted else trained.controls
    judged = [against(trained.run, control, metric=metric) for control in finished]
    return Retraining(
        options=options,
        metric=metric,
        loss=loss.name,
        split=fed.split,
        run=trained.run,
        controls=trained.controls,
        against=tuple(judged),
        notes=tuple(notes),
    )


def _early(at: Progress | None) -> str:
    if at is None:
        return "interrupted before the first step"
    return (
        f"{at.run} was interrupted in epoch {at.epoch} of {at.epochs}, "
        f"after {at.step:,} of {at.steps:,} steps"
    )


def target_after(target: Target, model: nn.Module) -> Target:
    """Returns what is known of a model after training, from what was before."""
    parameters = list(model.parameters())
    return dataclasses.replace(
        target,
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        sha256=None,
    )
