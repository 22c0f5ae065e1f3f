"""A repair for the command line and for Python: open, fix, write."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vgaudit.errors import BadConfig, CannotRun
from vgaudit.fixing import Fixing, FixOptions
from vgaudit.flow import Target
from vgaudit.job import DataOptions, ProbeOptions, ScanJob
from vgaudit.judge import Policy
from vgaudit.loading import LoadedModel
from vgaudit.plain import visible
from vgaudit.probe.state import unwrap
from vgaudit.repair.fix import Asked, Repaired, fix
from vgaudit.repair.ledger import Ledger
from vgaudit.repair.sharing import Sharing
from vgaudit.retraining import RetrainOptions, run_folder
from vgaudit.training.campaign import Surroundings
from vgaudit.training.checkpoint import RunFolder
from vgaudit.training.crew import ALONE, Crew
from vgaudit.training.opening import open_samples, samples_of
from vgaudit.training.output import check_output, write
from vgaudit.training.retrain import Listener
from vgaudit.training.signals import asked_to_stop
from vgaudit.training.task import Task
from vgaudit.treatments import open_model
from vgaudit.treatments.copying import copied
from vgaudit.treatments.proof import origin_of


@dataclass(frozen=True, slots=True, kw_only=True)
class FixJob:
    """One repair, whole.

    Attributes:
        scan: the model, its data, and how to measure.
        options: budget, seeds, split.
        policy: what counts as sick.
        output: where to write; None writes nothing.
        force: replace files that exist, and begin anew.
        run_folder: of finished trainings; None for one beside ``output``.
        resume: continue from there.
        command: what was typed.
    """

    scan: ScanJob
    options: FixOptions
    policy: Policy
    output: str | None = None
    force: bool = False
    run_folder: str | None = None
    resume: bool = False
    command: str = ""


def run(job: FixJob, listener: Listener, crew: Crew = ALONE) -> Fixing:
    """Loads a model, repairs it, and writes what was kept.

    Several ranks share the trainings; the first one alone writes, and its answer is
    whole.

    Args:
        job: what to repair.
        listener: told how far it is.
        crew: the processes that share the trainings.

    Raises:
        VgauditError: anything fails; then nothing was written but finished trainings.
    """
    if job.output is not None and crew.first:
        check_output(Path(job.output), force=job.force)
    listener.say("loading the model")
    loaded = open_model(job.scan.spec, job.scan.load)
    if loaded.target.nonfinite_weights:
        raise CannotRun(
            f"{len(loaded.target.nonfinite_weights)} weights are NaN or infinite",
            hint="`vgaudit scan` names them; repair a checkpoint before they were",
        )
    listener.say("reading the data")
    options = job.scan.data
    samples = open_samples(loaded.module, options, loaded.example, listener.say)
    task = Task(
        model=loaded.module,
        target=loaded.target,
        samples=samples,
        loss=options.loss,
        data=options,
        probe=job.scan.probe,
        options=RetrainOptions(method="adam", seed=job.options.seed),
    )
    asked = Asked(task=task, options=job.options, policy=job.policy)
    around = Surroundings(
        resume=job.resume, stop=listener.stop, report=listener.report, say=listener.say
    )
    sharing = Sharing(crew)
    if not crew.first:
        around = dataclasses.replace(around, resume=False)
        return fix(asked, Ledger(None), around, sharing).fixing
    place = run_folder(job.output or None, job.run_folder or None)
    with _ledger(place, resume=job.resume, force=job.force) as ledger:
        done = fix(asked, ledger, around, sharing)
        found = _written(job, loaded, done, listener)
        if not found.early:
            ledger.clear()
        return found


@contextmanager
def _ledger(place: Path | None, *, resume: bool, force: bool) -> Iterator[Ledger]:
    """Gives the ledger of a folder, which nobody else can use meanwhile.

    Raises:
        BadConfig: there is no folder to resume from, or it holds another repair.
    """
    if place is None:
        if resume:
            raise BadConfig(
                "--resume needs the folder of the repair",
                hint="give -o OUT as before, or --run-folder DIR",
            )
        yield Ledger(None)
        return
    folder = RunFolder(place)
    with folder.held():
        ledger = Ledger(folder.path)
        if ledger.holds() and not resume:
            if not force:
                raise BadConfig(
                    f"{visible(str(place))} holds an unfinished repair",
                    hint="--resume continues it, --force begins anew",
                )
            ledger.clear()
        yield ledger


def _written(
    job: FixJob, loaded: LoadedModel, done: Repaired, listener: Listener
) -> Fixing:
    if job.output is None or not done.fixing.kept:
        return done.fixing
    listener.say("writing")
    origin = dataclasses.replace(
        origin_of(job.scan, loaded.target, command=job.command), edits=done.edits
    )
    path = Path(job.output)
    files = write(done.model.cpu(), path, origin=origin, force=job.force)
    return dataclasses.replace(done.fixing, written=files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """How a repair of Python objects is done.

    Attributes:
        options: budget, seeds, split. policy: what counts as sick.
        probe: device, and how to measure. loss: a loss spec or function, or None.
        folder: of finished trainings; then Ctrl-C keeps them. resume: continue.
    """

    options: FixOptions
    policy: Policy
    probe: ProbeOptions
    loss: Any = None
    folder: str | None = None
    resume: bool = False


def fix_here(model: nn.Module, target: Target, data: Any, means: Means) -> Repaired:
    """Repairs a copy of a model on Python objects, in this process.

    Raises:
        KeyboardInterrupt: after what was finished had been kept.
        VgauditError: anything fails.
    """
    own, _shared = copied(unwrap(model))
    seeded = DataOptions(seed=means.options.seed)
    task = Task(
        model=own,
        target=target,
        samples=samples_of(data, own, seeded, lambda _sentence: None),
        loss=means.loss,
        data=seeded,
        probe=means.probe,
        options=RetrainOptions(method="adam", seed=means.options.seed),
    )
    asked = Asked(task=task, options=means.options, policy=means.policy)
    place = run_folder(None, means.folder)
    with _ledger(place, resume=means.resume, force=False) as ledger:
        if means.folder is None:
            return fix(asked, ledger, Surroundings())
        with asked_to_stop() as stop:
            done = fix(asked, ledger, Surroundings(resume=means.resume, stop=stop))
        if done.fixing.early:
            raise KeyboardInterrupt(f"kept in {means.folder}: resume=True continues")
        ledger.clear()
        return done
