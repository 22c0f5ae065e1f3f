"""What vgaudit says about a model, and whether it says so under every disguise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.detection.build import Spec, build
from benchmarks.detection.tasks import loss_of, task
from vgaudit.data.batch import Batch, Loss
from vgaudit.findings import Finding, Optimizer
from vgaudit.flow import Audit, DataFacts, GradientFlow, RunFacts, Target
from vgaudit.judge import Policy, judge
from vgaudit.probe import probe
from vgaudit.rules.exploding_gradient import ExplodingGradient
from vgaudit.rules.rule import Training
from vgaudit.rules.through_time import readings
from vgaudit.rules.vanishing_gradient import VanishingGradient

SAMPLES, BATCH = 128, 32
TRANSPORT = ("VG101", "VG103", "VG107", "VG108", "VG201", "VG202", "VG204")
LOCATED = ("VG101", "VG103", "VG108", "VG302")
OTHERS = ("VG102", "VG104", "VG105", "VG106", "VG203", "VG301", "VG302")
KEPT = (*TRANSPORT, *OTHERS)
BRANCH_LAYERS = 4
UNITS = 8
OPTIMIZERS: tuple[Optimizer, ...] = ("sgd", "adam")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to ask the same question: a loss (or none) and the size of a batch."""

    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    batch: int = BATCH
    samples: int = SAMPLES


def _smoothed(output: Tensor, y: Tensor) -> Tensor:
    if y.is_floating_point():
        return loss_of(output, y)
    return F.cross_entropy(output.float(), y, label_smoothing=0.1)


def _summed(output: Tensor, y: Tensor) -> Tensor:
    return loss_of(output, y) * len(y)


PLAIN = Arm(loss=loss_of)
ARMS: dict[str, Arm] = {
    "loss × 1e-6": Arm(loss=lambda o, y: 1e-6 * loss_of(o, y)),
    "loss × 1e6": Arm(loss=lambda o, y: 1e6 * loss_of(o, y)),
    "sum over the batch": Arm(loss=_summed),
    "batch of 16": Arm(loss=loss_of, batch=16, samples=64),
    "batch of 64": Arm(loss=loss_of, batch=64, samples=256),
    "two batches of 64": Arm(loss=loss_of, batch=64),
    "accumulation of 4 × 8": Arm(loss=lambda o, y: loss_of(o, y) / 4, batch=8),
    "label smoothing 0.1": Arm(loss=_smoothed),
}


def audit(spec: Spec, arm: Arm | None = None) -> Audit:
    """Returns the audit of an untrained model: without labels, or with a loss."""
    data = task(spec.task)
    size = arm.batch if arm else BATCH
    x = data.x[: arm.samples if arm else SAMPLES].to(getattr(torch, spec.dtype))
    batches = [
        Batch(args=(part,), labels=data.y[i * size : (i + 1) * size], size=len(part))
        for i, part in enumerate(torch.split(x, size))
    ]
    model = build(spec)
    numbers = sum(p.numel() for p in model.parameters())
    loss = Loss("task", arm.loss) if arm and arm.loss else None
    flow = probe(model, batches, loss=loss)
    return Audit(
        target=Target(
            spec=spec.name,
            format="object",
            trust_tier="T0",
            architecture=spec.family,
            parameters=numbers,
            trainable=numbers,
        ),
        data=DataFacts(
            kind="real", spec=spec.task, loss="task" if loss else "jacobian"
        ),
        run=RunFacts(
            torch=torch.__version__, python="", device="cpu", seed=0, seconds=0.0
        ),
        flow=flow,
    )


def ours(spec: Spec) -> dict[str, object]:
    """Returns findings and features of the scan without labels, as plain data."""
    done = audit(spec)
    return {
        "findings": {k: _stated(findings(done, k)) for k in OPTIMIZERS},
        "features": features(done.flow),
    }


def findings(done: Audit, optimizer: Optimizer) -> tuple[Finding, ...]:
    """Returns the findings under the default thresholds."""
    return judge(done, Policy(optimizer=optimizer)).findings


def _stated(found: Iterable[Finding]) -> list[list[object]]:
    return [
        [f.code, f.level, list(f.layers) if f.code in LOCATED else []]
        for f in found
        if f.code in KEPT
    ]


def features(flow: GradientFlow) -> dict[str, object]:
    """Returns the numbers that the rules compare with their thresholds."""
    lost = flow.attenuation
    branches = [b for b in flow.branches if len(b.layers) >= BRANCH_LAYERS]
    units = [
        x.activation.dead_fraction
        for x in flow.layers
        if x.activation and not x.activation.bounded and x.activation.units >= UNITS
    ]
    shares = [x.activation.saturated for x in flow.layers if x.activation]
    return {
        "attenuation": None if lost is None else _finite(lost.value),
        "lo": None if lost is None else _finite(lost.lo),
        "hi": None if lost is None else _finite(lost.hi),
        "branch_hi": min((_finite(b.decay.hi) for b in branches), default=None),
        "dead": max(units, default=0.0),
        "saturated": max(shares, default=0.0),
        "per_layer": flow.decades_per_layer,
        "variation": flow.output_variation,
        "weight_layers": flow.weight_layers,
        "limits": {kind: limits(flow, Training(kind)) for kind in OPTIMIZERS},
        "through_time": [
            [x.best.kind, x.lag, _finite(x.carried.lo), _finite(x.carried.hi)]
            for x in readings(flow)
        ],
    }


def limits(flow: GradientFlow, training: Training) -> dict[str, str]:
    """Returns which threshold of a rule such a net is judged by, where it has several.

    A rule's kinds of nets are told apart by the names of their thresholds.
    """
    found = {}
    for rule in (VanishingGradient(), ExplodingGradient()):
        (_, error), *_ = rule.limits(flow, training)
        names = (f.name for f in dataclasses.fields(rule) if f.name.endswith("error"))
        found[rule.code] = next(n for n in names if getattr(rule, n) == error)
    return found


def _finite(value: float) -> float:
    """Returns a value that JSON can hold."""
    return value if math.isfinite(value) else math.copysign(1e9, value)


def disguised(spec: Spec) -> dict[str, object]:
    """Returns the verdict with the task's loss, and where a disguise changes it."""
    base = audit(spec, PLAIN)
    plain = {k: verdict(findings(base, k)) for k in OPTIMIZERS}
    changed = {}
    for name, arm in ARMS.items():
        done = audit(spec, arm)
        changed[name] = [
            k for k in OPTIMIZERS if verdict(findings(done, k)) != plain[k]
        ]
    stated = {k: sorted(map(list, found)) for k, found in plain.items()}
    return {"verdict": stated, "changed": changed}


def verdict(found: Sequence[Finding]) -> frozenset[tuple[str, str]]:
    """Returns what the transport rules state, at warning or above."""
    return frozenset(
        (f.code, f.level) for f in found if f.code in TRANSPORT and f.level != "info"
    )
