"""A scan and its verdict in one call, for tests."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from vgaudit.data.batch import Batch, Loss
from vgaudit.findings import Optimizer, Report
from vgaudit.flow import Audit, DataFacts, GradientFlow, RunFacts, Target
from vgaudit.job import ProbeOptions
from vgaudit.judge import Policy, judge
from vgaudit.probe import probe


def audit_of(flow: GradientFlow, *, synthetic: bool = True) -> Audit:
    target = Target(
        spec="test",
        format="object",
        trust_tier="T0",
        architecture="test",
        parameters=1,
        trainable=1,
    )
    kind = "synthetic" if synthetic else "real"
    data = DataFacts(kind=kind, spec="test", loss="jacobian")
    run = RunFacts(torch="", python="", device="cpu", seed=0, seconds=0.0)
    return Audit(target=target, data=data, run=run, flow=flow)


def verdict(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    loss: Loss | None = None,
    seed: int = 0,
    optimizer: Optimizer = "sgd",
) -> Report:
    flow = probe(model, batches, loss=loss, options=ProbeOptions(seed=seed))
    return judge(audit_of(flow), Policy(optimizer=optimizer))
