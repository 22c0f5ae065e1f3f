"""Treatments: conversion, training and repair of a copy, with their proof."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from vgaudit import data as sources
from vgaudit import treatments
from vgaudit.api.arguments import (
    check_folder,
    check_loss,
    check_module,
    check_options,
    check_samples,
    texts,
)
from vgaudit.api.modules import describe
from vgaudit.compare import compare as compared
from vgaudit.conversion import TREATMENTS, ConvertOptions, Treatment
from vgaudit.data.losses import Function
from vgaudit.declared import check_fields, check_kind
from vgaudit.errors import BadConfig
from vgaudit.fixing import FixOptions
from vgaudit.job import DataOptions, ProbeOptions
from vgaudit.judge import DEFAULT, Policy, judge
from vgaudit.loading.dispatched import gathered
from vgaudit.outcome import Converted, Fixed, Retrained
from vgaudit.plain import visible
from vgaudit.repair import job as repair
from vgaudit.retraining import Method, RetrainOptions
from vgaudit.training import retrain as training

_GLOBS = ("layers", "skip")


def convert(
    model: nn.Module,
    *,
    to: Treatment | None = None,
    data: Any = None,
    loss: str | Function | None = None,
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
        to: ``ar``, ``adact``, ``rescale`` or ``plain``; ``options`` may say it.
        data: batches as in ``scan``, to calibrate on and to compare with; without
            them inputs are made up, which calibrates layers on noise.
        loss: as in ``scan``.
        layers: globs on the paths of layers or activations to convert; none is all.
        skip: globs on those to leave.
        preserve: keep the function to the last bit, or fail.
        limit: L; by default that of the activation.
        options: all options; replaces ``to`` to ``limit``, which may not contradict.
        data_options: number of batches, batch size, seed, input shapes.
        probe_options: how to measure.
        compare: scan before and after.
        policy: of the comparison.

    Raises:
        BadConfig: no treatment is given, or two.
        CannotRewrite: nothing could be converted (VG701), or the function was to be
            kept and is not (VG702).
        VgauditError: data or running fail.
    """
    alone = {
        "to": to,
        "layers": texts("layers", layers),
        "skip": texts("skip", skip),
        "preserve": preserve,
        "limit": limit,
    }
    chosen = _conversion(alone, options)
    check_kind("policy", policy, Policy).check()
    model = gathered(check_module(model))
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


def _conversion(
    alone: Mapping[str, Any], options: ConvertOptions | None
) -> ConvertOptions:
    """Returns the options of a conversion, given by themselves or as a whole.

    Raises:
        BadConfig: nothing names a treatment, both places name one each, or a field
            does not fit.
    """
    if options is None:
        if alone["to"] is None:
            raise BadConfig(
                "no treatment: neither to nor options is given",
                hint=f"give to, one of {', '.join(TREATMENTS)}",
            )
        return check_fields("options", ConvertOptions(**alone), ConvertOptions)
    check_fields("options", options, ConvertOptions)
    default = ConvertOptions(to=options.to)
    for name, value in alone.items():
        unsaid = value is None or (name != "to" and value == getattr(default, name))
        inside = getattr(options, name)
        if not unsaid and value != (tuple(inside) if name in _GLOBS else inside):
            raise BadConfig(
                f"{name} is {visible(repr(value))}, and {visible(repr(inside))} in "
                "options",
                hint=f"give {name} in one place",
            )
    return options


def _measurement(
    model: nn.Module,
    data: Any,
    loss: str | Function | None,
    data_options: DataOptions | None,
    probe_options: ProbeOptions | None,
) -> treatments.Measurement:
    check_samples("data", data)
    check_loss(loss)
    wanted = check_options("data_options", data_options, DataOptions)
    probing = check_options("probe_options", probe_options, ProbeOptions)
    if data is None:
        opened = sources.open_batches(model, wanted)
    else:
        opened = sources.from_object(data, wanted, model=model)
    resolved = sources.resolve_loss(loss or wanted.loss, opened.labelled)
    return treatments.Measurement(list(opened), opened.facts, resolved, probing)


def retrain(
    model: nn.Module,
    data: Any,
    *,
    method: Method = "sdagd",
    epochs: int | None = None,
    valid: Any = None,
    loss: str | Function | None = None,
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
        valid: samples to validate on; None takes ``valid_data`` of the options, a
            data spec, or holds a tenth of ``data`` out.
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
    beside = texts("controls", controls)
    asked = options
    if asked is None:
        asked = RetrainOptions(method=method, epochs=epochs, controls=beside)
    check_fields("options", asked, RetrainOptions, later=("method", "valid_data"))
    check_kind("policy", policy, Policy).check()
    measured = check_options("probe_options", probe_options, ProbeOptions)
    check_samples("data", data)
    check_loss(loss)
    check_folder("run_folder", run_folder)
    target = describe(check_module(model))
    task = training.opened(model, target, data, valid=valid, options=asked)
    task = dataclasses.replace(task, loss=loss, probe=measured)
    done = training.train_here(task, run_folder, resume=resume)
    both = None
    if done.audits is not None:
        both = compared(*(judge(audit, policy) for audit in done.audits))
    return Retrained(done.model, done.retraining, both)


def fix(
    model: nn.Module,
    data: Any,
    *,
    budget: float = 600.0,
    seeds: int = 3,
    loss: str | Function | None = None,
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
    check_kind("policy", policy, Policy).check()
    asked = FixOptions(budget=budget, seeds=seeds) if options is None else options
    check_samples("data", data)
    check_loss(loss)
    check_folder("run_folder", run_folder)
    means = repair.Means(
        options=check_fields("options", asked, FixOptions),
        policy=policy,
        probe=check_options("probe_options", probe_options, ProbeOptions),
        loss=loss,
        folder=None if run_folder is None else str(run_folder),
        resume=resume,
    )
    target = describe(check_module(model))
    done = repair.fix_here(model, target, data, means)
    return Fixed(done.model, done.fixing)
