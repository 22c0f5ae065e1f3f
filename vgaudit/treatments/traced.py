"""A model as a ``torch.fx.GraphModule``, where tracing gives the same function.

Symbolic tracing runs ``forward`` once on stand-ins for tensors. What depends on
their values, shapes or types it cannot follow; a module in which it fails is taken
whole, as a leaf. It drops autocast and ``no_grad`` regions and checkpointing, and
keeps the training flag as it was: so outputs are compared in both modes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx, nn

from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRewrite
from vgaudit.probe.state import unwrap
from vgaudit.treatments import running
from vgaudit.treatments.retracing import Tracer, first_line, graph_module

_MOST_LEAVES = 32
_CLOSE = 1e-5
"""Of the largest output, or of 1: a fused and a plain kernel may differ so far."""


@dataclass(frozen=True, slots=True)
class Traced:
    """A traced model.

    Attributes:
        module: shares all submodules and parameters with the model.
        leaves: modules that were taken whole because tracing fails in them.
        difference: the largest |Δ| of any output.
    """

    module: fx.GraphModule
    leaves: tuple[str, ...]
    difference: float


def trace(model: nn.Module, batches: Sequence[Batch]) -> Traced:
    """Returns a model as a graph that computes the same.

    Raises:
        CannotRewrite: tracing fails, or gives another function.
    """
    model = unwrap(model)
    leaves: list[str] = []
    while True:
        tracer = Tracer(leaves)
        try:
            module = graph_module(model, tracer)
            break
        except Exception as error:
            stuck = tracer.stuck
            if not stuck or stuck in leaves or len(leaves) >= _MOST_LEAVES:
                raise CannotRewrite(
                    f"torch.fx cannot trace {stuck or type(model).__name__}: "
                    f"{type(error).__name__}: {first_line(error)}",
                    hint="convert the model's own modules: leave out --as graph-module",
                ) from error
            leaves.append(stuck)
    return Traced(module, tuple(leaves), _compared(model, module, batches))


def _compared(
    model: nn.Module, module: fx.GraphModule, batches: Sequence[Batch]
) -> float:
    worst = 0.0
    for mode in running.MODES:
        before = running.outputs(model, batches, mode)
        try:
            after = running.outputs(module, batches, mode)
        except Exception as error:
            raise CannotRewrite(
                f"the traced model fails in {mode} mode: {first_line(error)}",
                hint="convert the model's own modules: leave out --as graph-module",
            ) from error
        diff = running.largest_difference(before, after)
        if not diff <= _CLOSE * max(1.0, running.largest(before)):
            raise CannotRewrite(
                f"the traced model's outputs differ by up to {diff:.3g} in {mode} mode",
                hint="its forward depends on the mode, on autocast or on no_grad; "
                "leave out --as graph-module",
            )
        worst = max(worst, diff)
    return worst
