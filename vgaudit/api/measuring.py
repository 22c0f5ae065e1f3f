"""Scans, assertions and watched loops: what is measured and judged."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from torch import nn

from vgaudit import data as sources
from vgaudit import treatments
from vgaudit.api.arguments import (
    check_interval,
    check_loss,
    check_module,
    check_options,
)
from vgaudit.api.modules import describe
from vgaudit.data.losses import Function
from vgaudit.declared import check_kind
from vgaudit.errors import NothingMeasured
from vgaudit.findings import Report
from vgaudit.flow import Audit, Target
from vgaudit.job import DataOptions, LoadOptions, ProbeOptions, ScanJob
from vgaudit.judge import DEFAULT, Policy, judge
from vgaudit.loading.dispatched import gathered
from vgaudit.measure import measure
from vgaudit.outcome import Watched
from vgaudit.probe import probe
from vgaudit.probe.environment import run_facts
from vgaudit.probe.lazy import spare
from vgaudit.probe.watch import Scaler


def scan(
    model: nn.Module | str | Path,
    batches: Any = None,
    *,
    loss: str | Function | None = None,
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
    check_kind("policy", policy, Policy).check()
    check_loss(loss)
    if not isinstance(model, (str, Path)):
        check_module(model)
    loading = check_options("load_options", load_options, LoadOptions)
    wanted = check_options("data_options", data_options, DataOptions)
    chosen = check_options("probe_options", probe_options, ProbeOptions)
    if not isinstance(model, nn.Module) and batches is None and not callable(loss):
        job = ScanJob(
            spec=str(model),
            load=loading,
            data=_with_loss(wanted, loss),
            probe=chosen,
        )
        return judge(measure(job), policy)
    if not isinstance(model, nn.Module):
        loaded = treatments.open_model(str(model), loading)
        return judge(
            _measured(loaded.module, loaded.target, batches, loss, (wanted, chosen)),
            policy,
        )
    audit = _measured(model, describe(model), batches, loss, (wanted, chosen))
    return judge(audit, policy)


def _with_loss(options: DataOptions, loss: str | Function | None) -> DataOptions:
    return dataclasses.replace(options, loss=loss) if isinstance(loss, str) else options


def _measured(
    model: nn.Module,
    target: Target,
    batches: Any,
    loss: str | Function | None,
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

    Raises:
        BadConfig: the model is no module, or ``every`` no whole number from 1.
    """
    check_module(model)
    check_interval(every)
    return Watched(model, every=every, describe=describe, scaler=scaler, alone=alone)


def assert_gradient_healthy(
    model: nn.Module,
    batches: Any = None,
    *,
    loss: str | Function | None = None,
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
