"""A conversion with its proof: the same scan before and after, and the files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from vgaudit import data
from vgaudit.conversion import Conversion, ConvertOptions
from vgaudit.data.batch import Batch, Loss
from vgaudit.errors import CannotRewrite, CannotRun, VgauditError
from vgaudit.flow import Audit, DataFacts, Target
from vgaudit.job import ProbeOptions, ScanJob
from vgaudit.loading import LoadedModel
from vgaudit.probe import probe
from vgaudit.probe.environment import run_facts
from vgaudit.treatments import reading, running, writing
from vgaudit.treatments.convert import Treated, treat
from vgaudit.treatments.recipe import ZOOS

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertJob:
    """One conversion, whole.

    Attributes:
        scan: the model, its data, and how to measure.
        options: what to convert, and to what.
        output: where to write; None writes nothing.
        force: replace files that exist.
        command: what was typed, for the recipe.
    """

    scan: ScanJob
    options: ConvertOptions
    output: str | None = None
    force: bool = False
    command: str = ""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What both scans have in common.

    Attributes:
        batches: what the model runs on. facts: where they came from.
        loss: None for random cotangents. options: of the probe.
    """

    batches: Sequence[Batch]
    facts: DataFacts
    loss: Loss | None
    options: ProbeOptions = field(default_factory=ProbeOptions)

    def audit(self, model: nn.Module, target: Target) -> Audit:
        """Returns the measurement of a model, which stays bit-equal."""
        started = time.perf_counter()
        flow = probe(model, self.batches, loss=self.loss, options=self.options)
        run = run_facts(flow.device, self.options.seed, started=started)
        name = self.loss.name if self.loss else "jacobian"
        facts = replace(self.facts, loss=name)
        return Audit(target=target, data=facts, run=run, flow=flow)


def convert(job: ConvertJob, progress: Progress | None = None) -> Conversion:
    """Loads a model, converts it, measures it before and after, and writes it.

    Raises:
        VgauditError: loading, data, running, converting or writing fail; then
            nothing was written.
    """
    say = progress or (lambda _phase: None)
    if job.output is not None:
        writing.check_target(Path(job.output), force=job.force)
    say("loading the model")
    loaded = reading.open_model(job.scan.spec, job.scan.load)
    _check_finite(loaded)
    say("opening the data")
    opened = data.open_batches(loaded.module, job.scan.data, loaded.example)
    loss = data.resolve_loss(job.scan.data.loss, opened.labelled)
    batches = list(opened)
    measurement = Measurement(batches, opened.facts, loss, job.scan.probe)
    say("measuring before")
    before = measurement.audit(loaded.module, loaded.target)
    say(f"converting to {job.options.to}")
    model = loaded.module.to(job.scan.probe.device)
    treated = treat(model, batches, job.options)
    say("measuring after")
    after = measurement.audit(treated.model, _target_after(loaded.target, treated))
    done = summarise(job.options, treated, before=before, after=after)
    if job.output is None:
        return done
    say("writing")
    return replace(done, written=_write(job, loaded.target, treated, batches))


def _check_finite(loaded: LoadedModel) -> None:
    bad = loaded.target.nonfinite_weights
    if bad:
        raise CannotRun(
            f"{len(bad)} weights are NaN or infinite, {bad[0]} first",
            hint="`vgaudit scan` names them all; convert a checkpoint before they were",
        )


def _target_after(target: Target, treated: Treated) -> Target:
    parameters = list(treated.model.parameters())
    return replace(
        target,
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        sha256=None,
    )


def summarise(
    options: ConvertOptions,
    treated: Treated,
    *,
    before: Audit | None,
    after: Audit | None,
) -> Conversion:
    """Returns what was done, as plain values."""
    notes = list(treated.notes)
    calibrated = options.to in ("ar", "rescale") and not options.preserve
    if after is not None and after.data.kind == "synthetic" and calibrated:
        notes.append(
            "no data was given: made-up inputs were used, and layers calibrated on "
            "them fit no other; give --data"
        )
    return Conversion(
        options=options,
        edits=treated.edits,
        refusals=treated.refusals,
        max_abs_diff=treated.max_abs_diff,
        output_scale=treated.output_scale,
        preserved=treated.preserved,
        before=before,
        after=after,
        notes=tuple(notes),
    )


def _write(
    job: ConvertJob, target: Target, treated: Treated, batches: Sequence[Batch]
) -> tuple[str, ...]:
    assert job.output is not None
    origin = replace(
        origin_of(job.scan, target, command=job.command),
        edits=treated.edits,
        max_abs_diff=treated.max_abs_diff,
    )
    model = treated.model.cpu()

    def check(part: Path) -> None:
        _check_round_trip(part, origin, job, model, batches)

    files = writing.save(model, job.output, origin=origin, force=job.force, check=check)
    return tuple(str(file) for file in files)


def origin_of(scan: ScanJob, target: Target, *, command: str) -> writing.Origin:
    """Returns where a written model comes from, for its recipe.

    Args:
        scan: how the model was opened.
        target: what is known of it.
        command: what was typed.
    """
    return writing.Origin(
        spec=scan.spec,
        sha256=target.sha256,
        architecture=_architecture_of(scan, target),
        model_args=tuple(scan.load.model_args.items()),
        command=command,
    )


def _architecture_of(scan: ScanJob, target: Target) -> str:
    """Returns the spec that builds a model's architecture without its weights."""
    if scan.load.arch:
        return scan.load.arch
    if target.architecture.startswith(ZOOS):
        return target.architecture
    return scan.spec


def _check_round_trip(
    part: Path,
    origin: writing.Origin,
    job: ConvertJob,
    model: nn.Module,
    batches: Sequence[Batch],
) -> None:
    """Reads a file back, and compares it with what was written.

    Raises:
        CannotRewrite: it does not give the same model (VG702).
    """
    try:
        again = reading.load(part, origin.architecture, options=job.scan.load)
    except VgauditError as error:
        raise CannotRewrite(
            f"VG702 the written file cannot be read back: {error.message}",
            hint="give the architecture by --arch, or a name that ends in .pt",
        ) from error
    pair = [running.outputs(m, batches[:1], "eval") for m in (model, again)]
    diff = running.largest_difference(*pair)
    if diff > 0:
        raise CannotRewrite(
            f"VG702 the model read back differs by up to {diff:.3g}",
            hint="its forward may be random, or depend on more than its state_dict",
        )
