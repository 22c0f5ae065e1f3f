"""Hooks on autograd nodes that measure the gradient as it passes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch._C import DisableTorchFunction
from torch.autograd.graph import Node

from vgaudit.probe import norms

Figure = Tensor | float


class Gauges:
    """Norms of gradients at nodes, collected during one backward pass.

    A node's pre-hook sees the whole gradient that has arrived at its output,
    summed over all its users, whatever was done in place afterwards.

    Attributes:
        at: name → norms at the node's output.
        through: name → norms of the gradient that the node passes on.
    """

    def __init__(self) -> None:
        self.at: dict[str, Figure] = {}
        self.through: dict[str, Figure] = {}
        # Gradients change little from one operation to the next.
        self._last: Figure = 1.0

    def watch(self, name: str, node: Node) -> None:
        """Measures the gradient at the output of ``node``."""
        node.register_prehook(self._arrived(name))

    def watch_through(self, name: str, node: Node, positions: Sequence[int]) -> None:
        """Measures what ``node`` passes on along some of its edges."""
        node.register_hook(self._passed(name, tuple(positions)))

    def watch_tensor(self, name: str, tensor: Tensor) -> None:
        """Measures the gradient of ``tensor``."""

        def hook(gradient: Tensor) -> None:
            with DisableTorchFunction():
                self.at[name] = norms.norm(gradient)

        tensor.register_hook(hook)  # type: ignore[no-untyped-call]

    def _arrived(self, name: str) -> Callable[[Sequence[Any]], None]:
        at = self.at

        def hook(gradients: Sequence[Any]) -> None:
            with DisableTorchFunction():
                near = self._last
                parts = [norms.norm(g, near=near) for g in gradients if g is not None]
                at[name] = self._last = norms.total(parts) if parts else 0.0

        return hook

    def _passed(
        self, name: str, positions: tuple[int, ...]
    ) -> Callable[[Sequence[Any], Sequence[Any]], None]:
        through = self.through

        def hook(passed: Sequence[Any], _: Sequence[Any]) -> None:
            with DisableTorchFunction():
                near = self._last
                parts = [
                    norms.norm(passed[i], near=near)
                    for i in positions
                    if i < len(passed) and passed[i] is not None
                ]
                through[name] = self._last = norms.total(parts) if parts else 0.0

        return hook

    def read(self) -> tuple[dict[str, float], dict[str, float]]:
        """Returns both tables as floats, with one wait for the device."""
        figures = norms.read([*self.at.values(), *self.through.values()])
        split = len(self.at)
        at = dict(zip(self.at, figures[:split], strict=True))
        through = dict(zip(self.through, figures[split:], strict=True))
        return at, through


def root_sum_square(values: Sequence[float]) -> float:
    """Returns the norm of parts, without overflow or underflow."""
    return math.hypot(*values) if values else 0.0
