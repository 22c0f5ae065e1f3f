"""The recorded flow: gradient statistics of every weight, epoch by epoch."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vgaudit.flow import GradientFlow
from vgaudit.nn import PiecewiseLinear
from vgaudit.optim.norms import norms
from vgaudit.optim.sharding import is_sharded, local
from vgaudit.retraining import LayerGradient

PER_EPOCH = 32
"""Steps of an epoch that are measured, spread evenly; all if there are fewer."""


class Recorder:
    """Collects root mean squares of gradients; costs nothing on most steps.

    Args:
        weights: parameters by the path of their layer, nearest the input first.
        steps: optimizer steps of one epoch.
    """

    def __init__(self, weights: Mapping[str, Tensor], steps: int) -> None:
        self._weights = dict(weights)
        self._every = max(1, steps // PER_EPOCH)
        self._begin()

    def _begin(self) -> None:
        self._seen = 0
        self._measured = 0
        self._rms = dict.fromkeys(self._weights, 0.0)
        self._ratio = dict.fromkeys(self._weights, 0.0)
        self._ratios = dict.fromkeys(self._weights, 0)

    def observe(self) -> None:
        """Measures the gradients of this step, if it is one to measure."""
        due = self._seen % self._every == 0
        self._seen += 1
        if not due:
            return
        layers = list(self._weights)
        params = [self._weights[layer] for layer in layers]
        sizes = [param.numel() ** 0.5 for param in params]
        spread = params if any(map(is_sharded, params)) else ()
        measured = norms([_gradient(param) for param in params], spread)
        weights = norms([local(param.detach()) for param in params], spread)
        for layer, norm, weight, size in zip(
            layers, measured, weights, sizes, strict=True
        ):
            self._rms[layer] += norm / size
            if weight > 0 or norm > 0:
                self._ratio[layer] += norm / weight if weight > 0 else math.inf
                self._ratios[layer] += 1
        self._measured += 1

    def finish_epoch(self) -> tuple[LayerGradient, ...]:
        """Returns the means over the epoch, and begins the next."""
        count = self._measured
        rms = {layer: total / max(count, 1) for layer, total in self._rms.items()}
        ratios = {
            layer: self._ratio[layer] / n if n else None
            for layer, n in self._ratios.items()
        }
        self._begin()
        return layer_gradients(rms, ratios) if count else ()

    def state_dict(self) -> dict[str, Any]:
        """Returns what was collected in this epoch so far."""
        return {
            "seen": self._seen,
            "measured": self._measured,
            "rms": dict(self._rms),
            "ratio": dict(self._ratio),
            "ratios": dict(self._ratios),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes what ``state_dict`` gave."""
        self._seen, self._measured = state["seen"], state["measured"]
        self._rms, self._ratio = dict(state["rms"]), dict(state["ratio"])
        self._ratios = dict(state["ratios"])


def weights_of(model: nn.Module, flow: GradientFlow | None) -> dict[str, Tensor]:
    """Returns the trainable weights by layer, in forward order where it is known.

    A weight is a parameter of two dimensions or more; limits of auto-rotation and
    values of activations are none. Its layer is the module it belongs to, or its own
    name where a module has several (recurrent layers).
    """
    activations = (m for m in model.modules() if isinstance(m, PiecewiseLinear))
    other = {id(p) for m in activations for p in m.parameters(recurse=False)}
    found = {
        name: p
        for name, p in model.named_parameters()
        if p.requires_grad
        and p.dim() > 1
        and id(p) not in other
        and not name.rpartition(".")[2].startswith("ar_")
    }
    order = {p.name: i for i, p in enumerate(flow.parameters)} if flow else {}
    names = sorted(found, key=lambda name: order.get(name, len(order)))
    modules = [name.rpartition(".")[0] for name in names]
    counts = Counter(modules)
    return {
        module if module and counts[module] == 1 else name: found[name]
        for name, module in zip(names, modules, strict=True)
    }


def layer_gradients(
    rms: Mapping[str, float], ratios: Mapping[str, float | None]
) -> tuple[LayerGradient, ...]:
    """Returns the statistics of one epoch, relative to the median of its layers."""
    positive = [value for value in rms.values() if 0 < value < math.inf]
    middle = statistics.median(positive) if positive else 0.0
    return tuple(
        LayerGradient(
            layer=layer,
            rms=value,
            relative=_decades(value, middle),
            to_weight=ratios.get(layer),
        )
        for layer, value in rms.items()
    )


def from_flow(
    flow: GradientFlow, weights: Mapping[str, Tensor], names: Mapping[int, str]
) -> tuple[LayerGradient, ...]:
    """Returns the same statistics out of a scan, for the model before training.

    Args:
        flow: of the scan.
        weights: as from ``weights_of``.
        names: qualified name of each parameter by its ``id``.
    """
    measured = {p.name: p for p in flow.parameters}
    measured.update({name: p for p in flow.parameters for name in p.tied})
    rms: dict[str, float] = {}
    ratios: dict[str, float | None] = {}
    for layer, weight in weights.items():
        parameter = measured.get(names.get(id(weight), ""))
        if parameter is not None and math.isfinite(parameter.grad_rms):
            rms[layer] = parameter.grad_rms
            ratios[layer] = parameter.grad_to_weight
    return layer_gradients(rms, ratios)


def _gradient(weight: Tensor) -> Tensor:
    grad = weight.grad
    if grad is None:
        return local(weight.detach()).new_zeros(1)
    return grad.coalesce().values() if grad.is_sparse else local(grad.detach())


def _decades(value: float, middle: float) -> float | None:
    if value == 0.0 or middle == 0.0 or not math.isfinite(value):
        return None
    return math.log10(value / middle)
