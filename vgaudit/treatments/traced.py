"""A model as a ``torch.fx.GraphModule``, where tracing gives the same function.

Symbolic tracing runs ``forward`` once on stand-ins for tensors. What depends on
their values, shapes or types it cannot follow; a module in which it fails is taken
whole, as a leaf. It drops autocast and ``no_grad`` regions and checkpointing, and
keeps the training flag as it was: so outputs are compared in both modes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRewrite
from vgaudit.probe.state import untouched, unwrap
from vgaudit.treatments import running

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
        tracer = _Tracer(leaves)
        try:
            module = _graph_module(model, tracer)
            break
        except Exception as error:
            stuck = tracer.stuck
            if not stuck or stuck in leaves or len(leaves) >= _MOST_LEAVES:
                raise CannotRewrite(
                    f"torch.fx cannot trace {stuck or type(model).__name__}: "
                    f"{type(error).__name__}: {_first_line(error)}",
                    hint="convert the model's own modules: leave out --as graph-module",
                ) from error
            leaves.append(stuck)
    return Traced(module, tuple(leaves), _compared(model, module, batches))


def retrace(model: nn.Module, leaves: Sequence[str]) -> fx.GraphModule:
    """Returns the graph of a model with modules taken whole as before.

    Raises:
        CannotRewrite: tracing fails.
    """
    try:
        return _graph_module(model, _Tracer(leaves))
    except Exception as error:
        raise CannotRewrite(
            f"torch.fx cannot trace {type(model).__name__}: {_first_line(error)}",
            hint="use the versions of torch and of the code that it was made with",
        ) from error


def _graph_module(model: nn.Module, tracer: _Tracer) -> fx.GraphModule:
    with untouched(model):
        graph = tracer.trace(model)
    return fx.GraphModule(model, graph, type(model).__name__)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else ""


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
                f"the traced model fails in {mode} mode: {_first_line(error)}",
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


class _Tracer(fx.Tracer):
    """Takes library layers and some modules whole, and knows where it failed."""

    def __init__(self, leaves: Sequence[str]) -> None:
        super().__init__()
        self._wholes = frozenset(leaves)
        self.stuck = ""
        """Path of the innermost module in which tracing failed."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Tells whether a module is one operation of the graph."""
        own = type(m).__module__.startswith("vgaudit.nn")
        if own or module_qualified_name in self._wholes:
            return True
        return super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Traces a call of a module."""
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.stuck = self.stuck or self.path_of_module(m)
            raise
