"""What the peers look at: numbers of one training step, taken with plain hooks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.detection.build import Exp
from benchmarks.detection.tasks import Task, loss_of

WATCHED = 128
RECTIFIERS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, Exp)
RAILED = (nn.Sigmoid, nn.Tanh)


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """Of one parameter, in the order of the model.

    Attributes:
        name: its qualified name.
        matrix: it has two dimensions or more.
        norm: L2 norm. mean_abs: mean of the absolute values. mean: plain mean.
        zeros: elements that are exactly 0. numel: all elements.
    """

    name: str
    matrix: bool
    norm: float
    mean_abs: float
    mean: float
    zeros: int
    numel: int


@dataclass(frozen=True, kw_only=True)
class Output:
    """Of one leaf module's call.

    Attributes:
        name: of the module.
        kind: its class.
        weighted: it has parameters.
        mean: of its output.
        gradient: L2 norm of the loss gradient at its output; NaN where none came.
        idle: share of output elements at or below 0.
        flat: share of output elements below 1e-6 in size.
        inactive: share of units that are above 0 in less than 1 % of samples.
        quiet: share of units whose 95th percentile of size is below 1e-5.
        beyond: share of input elements at or beyond ±5.
    """

    name: str
    kind: str
    weighted: bool
    mean: float
    gradient: float
    idle: float
    flat: float
    inactive: float
    quiet: float
    beyond: float


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One training step: the loss, the accuracy, all gradients and outputs."""

    step: int
    loss: float
    accuracy: float | None
    gradients: tuple[Gradient, ...]
    outputs: tuple[Output, ...]

    @property
    def finite(self) -> bool:
        """No gradient, output or loss is NaN or infinite."""
        values = [self.loss, *(g.norm for g in self.gradients)]
        return all(map(math.isfinite, [*values, *(o.mean for o in self.outputs)]))


class Observer:
    """Collects snapshots; pass ``look`` to the training loop."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []

    def look(self, model: nn.Module, data: Task, step: int) -> None:
        """Adds a snapshot of the model on the first samples of the task."""
        seen: list[tuple[str, nn.Module, Tensor, Tensor]] = []
        leaves = [m for m in model.named_modules() if not list(m[1].children())]
        hooks = [m.register_forward_hook(partial(_keep, seen, n)) for n, m in leaves]
        x, y = data.x[:WATCHED], data.y[:WATCHED]
        model.zero_grad()
        output = model(x)
        loss = loss_of(output, y)
        loss.backward()  # type: ignore[no-untyped-call]
        for hook in hooks:
            hook.remove()
        hits = (output.argmax(1) == y).float().mean() if data.classifies else None
        self.snapshots.append(
            Snapshot(
                step=step,
                loss=float(loss.detach()),
                accuracy=None if hits is None else float(hits),
                gradients=tuple(_gradients(model)),
                outputs=tuple(_output(*each) for each in seen),
            )
        )
        model.zero_grad()


def _keep(
    seen: list[tuple[str, nn.Module, Tensor, Tensor]],
    name: str,
    module: nn.Module,
    inputs: tuple[object, ...],
    output: object,
) -> None:
    first = output[0] if isinstance(output, tuple) else output
    if not isinstance(first, Tensor) or not isinstance(inputs[0], Tensor):
        return
    if first.requires_grad:
        first.retain_grad()
    seen.append((name, module, inputs[0], first))


def _gradients(model: nn.Module) -> list[Gradient]:
    found = []
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        g = parameter.grad.double()
        found.append(
            Gradient(
                name=name,
                matrix=g.dim() >= 2,
                norm=float(g.norm()),
                mean_abs=float(g.abs().mean()),
                mean=float(g.mean()),
                zeros=int((g == 0).sum()),
                numel=g.numel(),
            )
        )
    return found


def _output(name: str, module: nn.Module, given: Tensor, output: Tensor) -> Output:
    value = output.detach().double()
    units = value.transpose(1, -1).reshape(-1, value.shape[1])
    if value.dim() == 3:
        units = value.reshape(-1, value.shape[-1])
    size = units.abs()
    gradient = output.grad
    return Output(
        name=name,
        kind=type(module).__name__,
        weighted=any(True for _ in module.parameters(recurse=False)),
        mean=float(value.mean()),
        gradient=math.nan if gradient is None else float(gradient.double().norm()),
        idle=_share(value <= 0),
        flat=_share(value.abs() < 1e-6),
        inactive=_share((units > 0).double().mean(0) < 0.01),
        quiet=_share(torch.quantile(size[:4096], 0.95, dim=0) < 1e-5),
        beyond=_share(given.detach().abs() >= 5),
    )


def _share(mask: Tensor) -> float:
    return float(mask.double().mean())
