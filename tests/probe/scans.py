"""What every test of the probe needs: a scan in one line, and its rows by name."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch, Loss
from vgaudit.flow import (
    ActivationFlow,
    Audit,
    DataFacts,
    GradientFlow,
    LayerFlow,
    ParameterFlow,
    RunFacts,
    Target,
)
from vgaudit.job import ProbeOptions
from vgaudit.probe import probe


def batch(*args: Any, labels: Any = None, size: int | None = None) -> Batch:
    """Returns one call of a model; the size is that of the first tensor."""
    first = next((arg for arg in args if isinstance(arg, Tensor)), None)
    known = size if size is not None else 1 if first is None else first.shape[0]
    return Batch(args=args, labels=labels, size=known)


def scan(
    model: nn.Module, *args: Any, loss: Loss | None = None, **options: Any
) -> GradientFlow:
    """Returns the flow of one batch ``model(*args)``."""
    labels = options.pop("labels", None)
    return scan_all(model, [batch(*args, labels=labels)], loss=loss, **options)


def scan_all(
    model: nn.Module, given: list[Batch], *, loss: Loss | None = None, **options: Any
) -> GradientFlow:
    """Returns the flow of several batches."""
    return probe(model, given, loss=loss, options=ProbeOptions(**options))


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Returns standard normal values in float32."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layer(flow: GradientFlow, path: str, call: int = 0) -> LayerFlow:
    """Returns the one row of a path and call."""
    found = [r for r in flow.layers if r.path == path and r.call == call]
    assert len(found) == 1, [(r.path, r.call) for r in flow.layers]
    return found[0]


def activation(flow: GradientFlow, path: str, call: int = 0) -> ActivationFlow:
    """Returns the activation statistics of a path."""
    found = [r.activation for r in flow.layers if r.path == path and r.call == call]
    found = [a for a in found if a is not None]
    assert len(found) == 1, [(r.path, r.call, r.type) for r in flow.layers]
    return found[0]


def parameters(flow: GradientFlow) -> dict[str, ParameterFlow]:
    """Returns the parameters by name, and checks that each is listed once."""
    names = [p.name for p in flow.parameters]
    assert len(names) == len(set(names)), names
    return {p.name: p for p in flow.parameters}


def decades(values: Tensor | float, reference: float) -> float:
    """Returns log10(‖values‖ / reference), in float64."""
    norm = values if isinstance(values, float) else l2(values)
    return -math.inf if norm == 0 else math.log10(norm) - math.log10(reference)


def l2(values: Tensor) -> float:
    """Returns the L2 norm in float64."""
    return float(torch.linalg.vector_norm(values.detach().to(torch.float64)))


def audit(flow: GradientFlow) -> Audit:
    """Returns a flow with indifferent circumstances, for judging."""
    return Audit(
        target=Target(
            spec="model",
            format="object",
            trust_tier="T0",
            architecture="Net",
            parameters=1,
            trainable=1,
        ),
        data=DataFacts(kind="real", spec="given", loss="given"),
        run=RunFacts(torch="2", python="3", device="cpu", seed=0, seconds=0.0),
        flow=flow,
    )
