"""A retraining, whole: open, measure, train, measure again, compare, write."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vgaudit.errors import BadConfig, CannotRun
from vgaudit.flow import Target
from vgaudit.job import DataOptions, ScanJob
from vgaudit.loading import LoadedModel
from vgaudit.plain import visible
from vgaudit.probe.state import unwrap
from vgaudit.retraining import Progress, Retraining, RetrainOptions, run_folder
from vgaudit.training.campaign import USUAL_EVERY, Surroundings
from vgaudit.training.checkpoint import RunFolder
from vgaudit.training.crew import ALONE, Crew
from vgaudit.training.opening import open_samples, samples_of
from vgaudit.training.options import check
from vgaudit.training.output import check_model, check_output, write
from vgaudit.training.signals import asked_to_stop
from vgaudit.training.task import Finished, Task, check_crew, train
from vgaudit.treatments import open_model
from vgaudit.treatments.copying import copied
from vgaudit.treatments.proof import origin_of


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainJob:
    """One retraining, whole.

    Attributes:
        scan: the model, its data, and how to measure.
        options: how to train.
        output: where to write; None writes nothing.
        force: replace files that exist.
        run_folder: folder of checkpoints; None for one beside ``output``.
        resume: continue from there.
        checkpoint_every: seconds between two checkpoints.
        command: what was typed, for the recipe and the way to resume.
    """

    scan: ScanJob
    options: RetrainOptions
    output: str | None = None
    force: bool = False
    run_folder: str | None = None
    resume: bool = False
    checkpoint_every: float = USUAL_EVERY
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Who is told how far a retraining is, and may end it.

    Attributes:
        say: told each phase, and what the user should know.
        report: told of every step.
        stop: tells whether to end after this step.
    """

    say: Callable[[str], None] = lambda _sentence: None
    report: Callable[[Progress], None] = lambda _progress: None
    stop: Callable[[], bool] = lambda: False


def retrain(job: RetrainJob, listener: Listener, crew: Crew = ALONE) -> Retraining:
    """Loads a model, trains it, measures it before and after, and writes it.

    Several ranks do so together; the first one alone measures and writes, and its
    answer is whole.

    Args:
        job: what to train.
        listener: told how far it is.
        crew: the processes that train together.

    Raises:
        VgauditError: anything fails; then nothing was written but checkpoints, which
            stay, whatever it is that failed after the training.
    """
    check(job.options)
    held = job.options.valid_data
    if held is not None and held == job.scan.data.data:
        raise BadConfig(
            "--valid-data names the data that is trained on",
            hint="leave it out: --valid-split holds some of it out",
        )
    check_crew(job.options, crew)
    folder = _place(job) if crew.first else None
    listener.say("loading the model")
    loaded = open_model(job.scan.spec, job.scan.load)
    _check_finite(loaded)
    if job.output is not None and crew.first:
        check_model(loaded.module, Path(job.output))
    task = _task(job, loaded, listener)
    around = Surroundings(
        folder=folder,
        every=job.checkpoint_every,
        resume=job.resume,
        stop=listener.stop,
        report=listener.report,
        say=listener.say,
    )
    if not crew.first:
        return train(task, around, crew).retraining
    if folder is None:
        return _written(job, loaded, train(task, around, crew), listener)
    with folder.held():
        done = _written(job, loaded, train(task, around, crew), listener)
        if not done.early:
            folder.clear()
        return done


def _task(job: RetrainJob, loaded: LoadedModel, listener: Listener) -> Task:
    """Returns the model with its samples, to train on and to validate on."""
    listener.say("reading the data")
    options = job.scan.data
    samples = open_samples(loaded.module, options, loaded.example, listener.say)
    valid = None
    if job.options.valid_data is not None:
        other = dataclasses.replace(options, data=job.options.valid_data)
        valid = open_samples(loaded.module, other, loaded.example, listener.say)
    return Task(
        model=loaded.module,
        target=loaded.target,
        samples=samples,
        valid=valid,
        loss=options.loss,
        data=options,
        probe=job.scan.probe,
        options=job.options,
    )


def _place(job: RetrainJob) -> RunFolder | None:
    """Returns where checkpoints go, once it is sure that the result can be written."""
    if job.output is not None:
        check_output(Path(job.output), force=job.force)
    return folder_for(job.output, job.run_folder, resume=job.resume, force=job.force)


def folder_for(
    output: str | None, given: str | None, *, resume: bool, force: bool
) -> RunFolder | None:
    """Returns the folder of checkpoints: as given, or ``OUT.run`` beside the output.

    Raises:
        BadConfig: there is none to resume from, or it holds another training.
    """
    place = run_folder(output, given)
    if place is None:
        if resume:
            raise BadConfig(
                "--resume needs the folder of the checkpoints",
                hint="give -o OUT as before, or --run-folder DIR",
            )
        return None
    folder = RunFolder(place)
    if folder.holds_checkpoint() and not resume:
        if not force:
            raise BadConfig(
                f"{visible(str(place))} holds an unfinished training",
                hint="--resume continues it, --force begins anew",
            )
        folder.clear()
    return folder


def _check_finite(loaded: LoadedModel) -> None:
    bad = loaded.target.nonfinite_weights
    if bad:
        raise CannotRun(
            f"{len(bad)} weights are NaN or infinite, {visible(bad[0])} first",
            hint="`vgaudit scan` names them all; train a checkpoint before they were",
        )


def _written(
    job: RetrainJob, loaded: LoadedModel, done: Finished, listener: Listener
) -> Retraining:
    if job.output is None or done.retraining.early:
        return done.retraining
    listener.say("writing")
    origin = origin_of(job.scan, loaded.target, command=job.command)
    path = Path(job.output)
    files = write(done.model.cpu(), path, origin=origin, force=job.force)
    return dataclasses.replace(done.retraining, written=files)


def opened(
    model: nn.Module,
    target: Target,
    data: Any,
    *,
    valid: Any = None,
    options: RetrainOptions,
) -> Task:
    """Returns the training of a copy of a model on Python objects.

    Args:
        model: stays as it is.
        target: what is known of it.
        data: as in ``samples_of``.
        valid: samples to validate on; None for those of ``options.valid_data``.
        options: how to train.

    Raises:
        UnknownSource: ``options.valid_data`` is no data spec.
        CannotLoad: an object is no data, or fails.
        BadConfig: an option is wrong.
    """
    _check_valid(valid, options.valid_data)
    check(options, validated=valid is not None)
    own, _shared = copied(unwrap(model))
    seeded = DataOptions(seed=options.seed, data=options.valid_data)
    samples = samples_of(data, own, seeded, _silent)
    held = None
    if valid is not None:
        held = samples_of(valid, own, seeded, _silent)
    elif options.valid_data is not None:
        held = open_samples(own, seeded, None, _silent)
    return Task(model=own, target=target, samples=samples, valid=held, options=options)


def _check_valid(valid: Any, spec: object) -> None:
    """Refuses validation samples that are given where the others belong, or twice."""
    if spec is not None and not isinstance(spec, str):
        raise BadConfig(
            f"valid_data is of type {type(spec).__name__}, and holds a data spec",
            hint="give samples as valid=(x, y); valid_data='valid.npz' opens a file",
        )
    if isinstance(valid, str):
        raise BadConfig(
            f"valid is '{visible(valid)}', and holds samples",
            hint="give valid=(x, y), or a data spec as valid_data of the options",
        )
    if valid is not None and spec is not None:
        raise BadConfig(
            f"both valid and valid_data ('{visible(spec)}') are given",
            hint="leave one of them out",
        )


def train_here(task: Task, place: str | Path | None, *, resume: bool) -> Finished:
    """Trains in this process; with a folder for checkpoints, Ctrl-C saves first.

    Raises:
        KeyboardInterrupt: after the checkpoint was written.
        VgauditError: anything fails.
    """
    given = None if place is None else str(place)
    folder = folder_for(None, given, resume=resume, force=False)
    if folder is None:
        return train(task, Surroundings())
    with folder.held(), asked_to_stop() as asked:
        done = train(task, Surroundings(folder=folder, resume=resume, stop=asked))
        if done.retraining.early:
            raise KeyboardInterrupt(f"saved in {place}: resume=True continues")
        folder.clear()
    return done


def _silent(_sentence: str) -> None:
    """Tells nobody."""
