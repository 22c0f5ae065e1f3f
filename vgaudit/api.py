"""The Python API: the only module that knows every part.

It runs in the caller's process and raises; the command line does the same work
in a process of its own.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vgaudit import data as sources
from vgaudit import loading, treatments
from vgaudit.compare import compare as compared
from vgaudit.conversion import ConvertOptions, Treatment
from vgaudit.errors import BadConfig, NothingMeasured
from vgaudit.findings import Report
from vgaudit.fixing import FixOptions
from vgaudit.flow import Audit, Target
from vgaudit.job import DataOptions, LoadOptions, ProbeOptions, ScanJob
from vgaudit.judge import DEFAULT, Policy, judge
from vgaudit.loading.dispatched import gathered
from vgaudit.loading.loaded import Origin, finish
from vgaudit.measure import measure
from vgaudit.outcome import Converted, Fixed, Retrained, Watched
from vgaudit.probe import probe
from vgaudit.probe.environment import run_facts
from vgaudit.probe.lazy import spare
from vgaudit.probe.watch import Scaler
from vgaudit.repair import job as repair
from vgaudit.retraining import Method, RetrainOptions
from vgaudit.training import retrain as training

LossFunction = Callable[[Any, Any], Tensor]


def load(
    spec: str | Path,
    options: LoadOptions | None = None,
    *,
    arch: str | nn.Module | Callable[[], nn.Module] | None = None,
) -> nn.Module:
    """Returns the model behind a model spec; nothing in the file is executed.

    Args:
        spec: a file, directory, ``torchvision:NAME``, ``file.py:factory`` …; a
            converted model, if its recipe lies beside its weights.
        options: architecture, entry of a checkpoint, trust.
        arch: what builds the module for bare or converted weights: a model spec, or
            for converted ones also a fresh module or a function that returns one.

    Raises:
        UnknownSource: no loader understands ``spec``.
        CannotLoad: the file is refused, damaged or does not fit.
        BadConfig: ``arch`` is no spec, and ``spec`` no converted model.
    """
    text, wanted = str(spec), options or LoadOptions()
    if treatments.has_recipe(text):
        return treatments.load(text, arch, options=wanted)
    if arch is not None and not isinstance(arch, str):
        raise BadConfig(
            f"{text} has no recipe beside it, and arch is no model spec",
            hint="build the module yourself and call its load_state_dict",
        )
    if arch is not None:
        wanted = dataclasses.replace(wanted, arch=arch)
    return loading.load(text, wanted).module


def convert(
    model: nn.Module,
    *,
    to: Treatment,
    data: Any = None,
    loss: str | LossFunction | None = None,
    layers: Sequence[str] = (),
    skip: Sequence[str] = (),
    preserve: bool = False,
    limit: float | None = None,
    options: ConvertOptions | None = None,
    data_options: DataOptions | None = None,
    probe_options: ProbeOptions | None = None,
    compare: bool = True,
    policy: Policy = DEFAULT,
) -> Converted:
    """Treats a model against vanishing gradients and proves what that changed.

    Args:
        model: stays as it is; a converted copy is returned.
        to: ``ar``, ``adact``, ``rescale`` or ``plain``.
        data: batches as in ``scan``, to calibrate on and to compare with; without
            them inputs are made up, which calibrates layers on noise.
        loss: as in ``scan``.
        layers: globs on the paths of layers or activations to convert; none is all.
        skip: globs on those to leave.
        preserve: keep the function to the last bit, or fail.
        limit: L; by default that of the activation.
        options: all options of a conversion; replaces ``to`` to ``limit``.
        data_options: number of batches, batch size, seed, input shapes.
        probe_options: how to measure.
        compare: scan before and after.
        policy: of the comparison.

    Raises:
        CannotRewrite: nothing could be converted (VG701), or the function was to be
            kept and is not (VG702).
        VgauditError: data or running fail.
    """
    chosen = options or ConvertOptions(
        to=to, layers=tuple(layers), skip=tuple(skip), preserve=preserve, limit=limit
    )
    model = gathered(model)
    measurement = _measurement(model, data, loss, data_options, probe_options)
    before = measurement.audit(model, describe(model)) if compare else None
    treated = treatments.treat(model, measurement.batches, chosen)
    target = describe(treated.model)
    after = measurement.audit(treated.model, target) if compare else None
    done = treatments.summarise(chosen, treated, before=before, after=after)
    both = None
    if before is not None and after is not None:
        both = compared(judge(before, policy), judge(after, policy))
    return Converted(treated.model, done, both)


def retrain(
    model: nn.Module,
    data: Any,
    *,
    method: Method = "sdagd",
    epochs: int | None = None,
    valid: Any = None,
    loss: str | LossFunction | None = None,
    controls: Sequence[str] = (),
    options: RetrainOptions | None = None,
    run_folder: str | Path | None = None,
    resume: bool = False,
    probe_options: ProbeOptions | None = None,
    policy: Policy = DEFAULT,
) -> Retrained:
    """Trains a copy of a model and proves what that changed.

    Args:
        model: stays as it is.
        data: ``(x, y)``, a ``Dataset``, a ``DataLoader``, or a list of batches.
        method: ``sdagd``, ``rai``, ``adact``, ``adam``, ``adamw`` or ``sgd``.
        epochs: passes over the data; None takes the method's own number.
        valid: what to validate on; None holds a tenth of ``data`` out.
        loss: a loss spec, or a function of output and labels; None chooses.
        controls: methods that train beside it, such as ``adam`` or ``adam:lr=0.003``.
        options: all options; replaces ``method``, ``epochs`` and ``controls``.
        run_folder: for checkpoints; then Ctrl-C finishes the step and saves.
        resume: continue from there.
        probe_options: device, and how to measure.
        policy: of the comparison.

    Raises:
        VgauditError: data, model or method fail.
    """
    asked = RetrainOptions(method=method, epochs=epochs, controls=tuple(controls))
    target, measured = describe(model), probe_options or ProbeOptions()
    task = training.opened(model, target, data, valid=valid, options=options or asked)
    task = dataclasses.replace(task, loss=loss, probe=measured)
    done = training.train_here(task, run_folder, resume=resume)
    both = compared(*(judge(audit, policy) for audit in done.audits))
    return Retrained(done.model, done.retraining, both)


def _measurement(
    model: nn.Module,
    data: Any,
    loss: str | LossFunction | None,
    data_options: DataOptions | None,
    probe_options: ProbeOptions | None,
) -> treatments.Measurement:
    wanted = data_options or DataOptions()
    if data is None:
        opened = sources.open_batches(model, wanted)
    else:
        opened = sources.from_object(data, wanted, model=model)
    resolved = sources.resolve_loss(loss or wanted.loss, opened.labelled)
    probe_wanted = probe_options or ProbeOptions()
    return treatments.Measurement(list(opened), opened.facts, resolved, probe_wanted)


def save(
    model: nn.Module,
    path: str | Path,
    *,
    arch: str = "",
    force: bool = False,
) -> tuple[Path, ...]:
    """Writes a model as weights with a recipe beside them, whole or not at all.

    Args:
        model: converted or not.
        path: ``OUT.safetensors``; or ``OUT.pt``, the whole module by pickle.
        arch: how to build the original architecture, ``torchvision:vgg11``; without
            it, whoever loads the model must name it.
        force: replace files that exist.

    Raises:
        CannotWrite: the place is taken, missing or full.
    """
    origin = treatments.Origin(architecture=arch)
    return treatments.save(model, path, origin=origin, force=force)


def scan(
    model: nn.Module | str | Path,
    batches: Any = None,
    *,
    loss: str | LossFunction | None = None,
    load_options: LoadOptions | None = None,
    data_options: DataOptions | None = None,
    probe_options: ProbeOptions | None = None,
    policy: Policy = DEFAULT,
) -> Report:
    """Returns the verdict on a model; the model stays bit-equal.

    Args:
        model: a module, or a model spec.
        batches: a batch ``(x, y)``, a tensor, a dict, a list of batches, a
            ``DataLoader``, or None for synthetic inputs of an inferred shape.
        loss: a loss spec such as ``"cross-entropy"``, or a function of output
            and labels; None measures transport with random cotangents unless
            the data has labels.
        load_options: for a model spec.
        data_options: number of batches, batch size, seed, input shapes.
        probe_options: mode, device, precision, output, seed.
        policy: optimizer, selected rules, thresholds.

    Raises:
        VgauditError: loading, data, running or the policy fail; see ``errors``.
    """
    policy.check()
    wanted = data_options or DataOptions()
    chosen = probe_options or ProbeOptions()
    if not isinstance(model, nn.Module) and batches is None and not callable(loss):
        job = ScanJob(
            spec=str(model),
            load=load_options or LoadOptions(),
            data=_with_loss(wanted, loss),
            probe=chosen,
        )
        return judge(measure(job), policy)
    if not isinstance(model, nn.Module):
        loaded = treatments.open_model(str(model), load_options or LoadOptions())
        return judge(
            _measured(loaded.module, loaded.target, batches, loss, (wanted, chosen)),
            policy,
        )
    audit = _measured(model, describe(model), batches, loss, (wanted, chosen))
    return judge(audit, policy)


def _with_loss(options: DataOptions, loss: str | LossFunction | None) -> DataOptions:
    return dataclasses.replace(options, loss=loss) if isinstance(loss, str) else options


def _measured(
    model: nn.Module,
    target: Target,
    batches: Any,
    loss: str | LossFunction | None,
    options: tuple[DataOptions, ProbeOptions],
) -> Audit:
    wanted, chosen = options
    started = time.perf_counter()
    model = gathered(spare(model))
    if batches is None:
        opened = sources.open_batches(model, wanted, mode=chosen.mode)
    else:
        opened = sources.from_object(batches, wanted, model=model, mode=chosen.mode)
    resolved = sources.resolve_loss(loss or wanted.loss, opened.labelled)
    flow = probe(model, opened, loss=resolved, options=chosen)
    flow, facts = sources.settle(flow, opened.facts, resolved)
    return Audit(
        target=target,
        data=facts,
        run=run_facts(chosen.device, chosen.seed, started=started),
        flow=flow,
    )


def describe(model: nn.Module) -> Target:
    """Returns what is known of a model that was given as an object."""
    origin = Origin(spec=type(model).__name__, format="object", tier="T0")
    return finish(model, origin, architecture=type(model).__qualname__).target


def watch(
    model: nn.Module,
    *,
    every: int = 1,
    scaler: Scaler | None = None,
    alone: bool = False,
) -> Watched:
    """Returns a context manager that measures the user's own training loop.

    ::

        with vgaudit.watch(model) as probe:
            criterion(model(x), y).backward()
        print(probe.report().status)

    Args:
        model: the module that the loop calls, wrapped or not.
        every: measure every n-th forward pass; the others cost nothing.
        scaler: the ``GradScaler`` of the loop, so that gradients are stated
            without its scale.
        alone: each of several processes (DDP, FSDP2) reports on its own batches;
            otherwise on those of all, for which all must ask.
    """
    return Watched(model, every=every, describe=describe, scaler=scaler, alone=alone)


def assert_gradient_healthy(
    model: nn.Module,
    batches: Any = None,
    *,
    loss: str | LossFunction | None = None,
    policy: Policy = DEFAULT,
) -> None:
    """Raises ``AssertionError`` with the findings when a scan fails.

    Args:
        model: the module.
        batches: as in ``scan``.
        loss: as in ``scan``.
        policy: what fails; by default every finding of level ``error``.

    Raises:
        AssertionError: a finding fails the policy.
        NothingMeasured: there was too little to judge; that is no pass.
    """
    report = scan(model, batches, loss=loss, policy=policy)
    if report.status == "inconclusive":
        raise NothingMeasured(
            "; ".join(report.warnings) or "nothing was measured",
            hint="give data and a model with at least two weight layers",
        )
    if report.status == "fail":
        lines = [
            f"{finding.code} {finding.name} at {finding.layer or 'the model'}: "
            f"{finding.message}"
            for finding in report.findings
            if finding.level != "info"
        ]
        raise AssertionError("gradient flow is not healthy\n" + "\n".join(lines))


def fix(
    model: nn.Module,
    data: Any,
    *,
    budget: float = 600.0,
    seeds: int = 3,
    loss: str | LossFunction | None = None,
    options: FixOptions | None = None,
    run_folder: str | Path | None = None,
    resume: bool = False,
    probe_options: ProbeOptions | None = None,
    policy: Policy = DEFAULT,
) -> Fixed:
    """Diagnoses a model, tries what may help beside controls, and keeps what does.

    What no finding fails and what learns in a short training comes back as it is. A
    treatment is a repair only where its interval clears those of both controls.

    Args:
        model: stays as it is.
        data: ``(x, y)``, a ``Dataset``, a ``DataLoader``, or a list of batches.
        budget: seconds for all trainings together.
        seeds: fresh trainings of the best of each kind, three or more.
        loss: a loss spec, or a function of output and labels; None chooses.
        options: all options; replaces ``budget`` and ``seeds``.
        run_folder: for finished trainings; then Ctrl-C keeps them.
        resume: continue from there.
        probe_options: device, and how to measure.
        policy: what counts as sick.

    Raises:
        VgauditError: data or model fail, or there is too little to judge.
    """
    policy.check()
    means = repair.Means(
        options=options or FixOptions(budget=budget, seeds=seeds),
        policy=policy,
        probe=probe_options or ProbeOptions(),
        loss=loss,
        folder=None if run_folder is None else str(run_folder),
        resume=resume,
    )
    done = repair.fix_here(model, describe(model), data, means)
    return Fixed(done.model, done.fixing)
