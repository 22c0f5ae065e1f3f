"""One scan, whole: load, open the data, resolve the loss, probe."""

from __future__ import annotations

import contextlib
import re
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from vgaudit import data
from vgaudit.errors import NothingMeasured
from vgaudit.flow import (
    Audit,
    DataFacts,
    GradientFlow,
    NotMeasured,
    Precision,
    RunFacts,
    Structure,
)
from vgaudit.job import ScanJob
from vgaudit.plain import visible
from vgaudit.probe import probe, structure
from vgaudit.probe.environment import run_facts
from vgaudit.probe.spread import Sharing
from vgaudit.spreading import Spreading
from vgaudit.treatments import open_model

if TYPE_CHECKING:
    from vgaudit.distributed.group import Group

Progress = Callable[[str], object]
Then = Callable[[nn.Module, data.Batches, data.Loss | None], object]

_ALERT = re.compile(r"^(\S+) does not have a deterministic implementation")


def measure(
    job: ScanJob,
    progress: Progress | None = None,
    group: Group | None = None,
    *,
    then: Then | None = None,
) -> Audit:
    """Returns the measurement that a job asks for.

    A model with NaN or infinite weights is not run unless the job allows it: the
    audit names them and holds no figures.

    Args:
        job: what to scan, on what, and how.
        progress: told the name of each phase as it begins; where it answers True,
            the scan ends with the batches that it has measured.
        group: the ranks that share the scan; each returns the whole.
        then: is given the model, its batches and the loss once they are measured;
            nothing that it does enters the audit.

    Raises:
        VgauditError: the model or its data cannot be loaded or run, or nothing
            could be measured; the message says why.
    """
    say = progress or (lambda _phase: None)
    started = time.perf_counter()
    with _agreeing(group):
        _begin(say, "loading the model")
        spread = Spreading(job, group) if job.probe.parallel == "fsdp" else None
        loaded = spread.loaded if spread else open_model(job.spec, job.load)
    target = loaded.target
    if spread is not None:
        target = replace(target, nonfinite_weights=spread.nonfinite())
    alerts: list[str] = []
    if target.nonfinite_weights and not job.probe.allow_nonfinite:
        facts, flow = _no_data(job), _no_figures(job)
    else:
        with _agreeing(group):
            _begin(say, "opening the data")
            batches = data.open_batches(
                loaded.module, job.data, loaded.example, mode=job.probe.mode
            )
            loss = data.resolve_loss(job.data.loss, batches.labelled)
        with data.guesses_told(batches.facts.notes), _alerts() as alerts:
            flow = probe(
                loaded.module,
                batches,
                loss=loss,
                options=job.probe,
                progress=progress,
                sharing=spread.sharing() if spread else _sharing(group),
            )
        flow, facts = data.settle(flow, batches.facts, loss)
    run = _circumstances(flow, alerts, started=started, group=group)
    if then is not None and flow.batches:
        then(loaded.module, batches, loss)
    return Audit(target=target, data=facts, run=run, flow=flow)


def _circumstances(
    flow: GradientFlow, alerts: list[str], *, started: float, group: Group | None
) -> RunFacts:
    run = run_facts(
        flow.device,
        flow.seed,
        started=started,
        nondeterministic=tuple(sorted(set(alerts))),
    )
    return replace(run, world_size=1 if group is None else group.size)


def _sharing(group: Group | None) -> Sharing | None:
    return None if group is None else Sharing(group)


def _agreeing(group: Group | None) -> contextlib.AbstractContextManager[None]:
    """Returns a block at whose end all ranks go on, or none."""
    return contextlib.nullcontext() if group is None else group.agreeing()


def outline(job: ScanJob, progress: Progress | None = None) -> Structure:
    """Returns the dataflow of a job's model on one of its batches, without computing.

    Raises:
        VgauditError: the model or its data cannot be loaded, or the way through the
            model depends on the values of tensors.
    """
    say = progress or (lambda _phase: None)
    say("loading the model")
    loaded = open_model(job.spec, job.load)
    say("following the graph")
    batches = data.open_batches(
        loaded.module, job.data, loaded.example, mode=job.probe.mode
    )
    batch = next(iter(batches))
    return structure(loaded.module, batch, mode=job.probe.mode)


def _begin(say: Progress, phase: str) -> None:
    """Begins a phase before the first batch.

    Raises:
        NothingMeasured: the end was asked for.
    """
    if say(phase) is True:
        raise NothingMeasured(
            "the scan was ended before its first batch",
            hint="run it again, or lower --batch-size to have batches sooner",
        )


def _no_data(job: ScanJob) -> DataFacts:
    kind: Literal["synthetic", "real"] = "real" if job.data.data else "synthetic"
    return DataFacts(kind=kind, spec=job.data.data or "not opened", loss="none")


def _no_figures(job: ScanJob) -> GradientFlow:
    """Returns the flow of a model that was not run because of its weights."""
    reason = "weights are NaN or infinite; --allow-nonfinite measures all the same"
    return GradientFlow(
        probe="jacobian",
        mode=job.probe.mode,
        device=job.probe.device,
        batches=0,
        skipped=0,
        batch_size=0,
        samples=0,
        seed=job.probe.seed,
        precision=Precision(dtype=job.probe.dtype, measured="none"),
        attenuation=None,
        weight_layers=0,
        layers=(),
        trunk=(),
        not_measured=(NotMeasured(path="the model", reason=reason),),
    )


@contextlib.contextmanager
def _alerts() -> Iterator[list[str]]:
    """Collects the operations that say of themselves that they are not deterministic.

    PyTorch warns of them in its deterministic mode, which is left as it was found.
    """
    found: list[str] = []
    # Not use_deterministic_algorithms, which loads the whole compiler.
    before = torch.get_deterministic_debug_mode()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.set_deterministic_debug_mode("warn")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            yield found
        finally:
            torch.set_deterministic_debug_mode(before)
            torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
    for warning in said:
        if alert := _ALERT.match(str(warning.message)):
            found.append(visible(alert[1]))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
