"""The Python API: the only module that knows every part.

It runs in the caller's process and raises; the command line does the same work
in a process of its own.
"""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit import data as sources
from vgaudit import loading
from vgaudit.errors import NothingMeasured
from vgaudit.findings import Report
from vgaudit.flow import Audit, RunFacts, Target
from vgaudit.job import DataOptions, LoadOptions, ProbeOptions, ScanJob
from vgaudit.judge import DEFAULT, Policy, judge
from vgaudit.measure import measure
from vgaudit.probe import probe
from vgaudit.probe.watch import Watch

LossFunction = Callable[[Any, Any], Tensor]


def load(spec: str | Path, options: LoadOptions | None = None) -> nn.Module:
    """Returns the model behind a model spec; nothing in the file is executed.

    Args:
        spec: a file, directory, ``torchvision:NAME``, ``file.py:factory`` …
        options: architecture, entry of a checkpoint, trust.

    Raises:
        UnknownSource: no loader understands ``spec``.
        CannotLoad: the file is refused, damaged or does not fit.
    """
    return loading.load(str(spec), options or LoadOptions()).module


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
        loaded = loading.load(str(model), load_options or LoadOptions())
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
    if batches is None:
        opened = sources.open_batches(model, wanted)
    else:
        opened = sources.from_object(batches, wanted)
    if callable(loss):
        name = getattr(loss, "__name__", type(loss).__name__)
        resolved: sources.Loss | None = sources.Loss(name, loss)
    else:
        resolved = sources.resolve_loss(loss or wanted.loss, opened.labelled)
    flow = probe(model, opened, loss=resolved, options=chosen)
    return Audit(
        target=target,
        data=opened.facts,
        run=RunFacts(
            torch=torch.__version__,
            python=platform.python_version(),
            device=chosen.device,
            seed=chosen.seed,
            seconds=time.perf_counter() - started,
        ),
        flow=flow,
    )


def describe(model: nn.Module) -> Target:
    """Returns what is known of a model that was given as an object."""
    parameters = list(model.parameters())
    bad = tuple(
        name
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        if (tensor.is_floating_point() or tensor.is_complex())
        and not bool(torch.isfinite(tensor).all())
    )
    return Target(
        spec=type(model).__name__,
        format="object",
        trust_tier="T0",
        architecture=type(model).__qualname__,
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        nonfinite_weights=bad,
    )


def watch(model: nn.Module, *, every: int = 1) -> Watch:
    """Returns a context manager that measures the user's own training loop.

    ::

        with vgaudit.watch(model) as probe:
            criterion(model(x), y).backward()
        print(probe.report().status)

    Args:
        model: the module that the loop calls, wrapped or not.
        every: measure every n-th forward pass; the others cost nothing.
    """
    return Watch(model, every=every, describe=describe)


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
