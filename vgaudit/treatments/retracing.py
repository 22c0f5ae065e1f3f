"""A model's graph by ``torch.fx``, with some modules taken whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx, nn

from vgaudit.errors import CannotRewrite
from vgaudit.probe.state import untouched

ROOT = "vgaudit_root"
"""Under which a graph keeps the class that it was traced from."""


def retrace(model: nn.Module, leaves: Sequence[str]) -> fx.GraphModule:
    """Returns the graph of a model with modules taken whole as before.

    Raises:
        CannotRewrite: tracing fails.
    """
    try:
        return graph_module(model, Tracer(leaves))
    except Exception as error:
        raise CannotRewrite(
            f"torch.fx cannot trace {type(model).__name__}: {first_line(error)}",
            hint="use the versions of torch and of the code that it was made with",
        ) from error


def graph_module(model: nn.Module, tracer: Tracer) -> fx.GraphModule:
    """Returns the graph that a tracer finds, as a module that shares all parts."""
    # Tensors made in forward become attributes of the model, which the graph takes
    # over before they are removed again.
    with untouched(model):
        graph = tracer.trace(model)
        made = fx.GraphModule(model, graph, type(model).__name__)
    made.meta[ROOT] = type(model)
    return made


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, cut to a readable length."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else ""


class Tracer(fx.Tracer):
    """Takes library layers and some modules whole, and knows where it failed."""

    def __init__(self, leaves: Sequence[str]) -> None:
        super().__init__()
        self._wholes = frozenset(leaves)
        self.stuck = ""
        """Path of the innermost module in which tracing failed."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Tells whether a module is one operation of the graph."""
        own = type(m).__module__.startswith("vgaudit.nn")
        if own or module_qualified_name in self._wholes or reads_mode(m):
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


def reads_mode(module: nn.Module) -> bool:
    """Tells whether a module's forward depends on train or eval mode.

    Traced through, it would keep the mode in which it was traced.
    """
    code = getattr(type(module).forward, "__code__", None)
    return code is not None and "training" in code.co_names
