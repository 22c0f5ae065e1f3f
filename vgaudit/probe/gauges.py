"""Hooks on autograd nodes that measure the gradient as it passes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
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
        self._held: Tensor | None = None
        self._place = self._version = 0

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
                self.at[name] = self._norm(gradient)

        tensor.register_hook(hook)  # type: ignore[no-untyped-call]

    def _arrived(self, name: str) -> Callable[[Sequence[Any]], None]:
        at = self.at

        def hook(gradients: Sequence[Any]) -> None:
            with DisableTorchFunction():
                if len(gradients) == 1 and gradients[0] is not None:
                    at[name] = self._norm(gradients[0])
                else:
                    at[name] = self._total([g for g in gradients if g is not None])

        return hook

    def _passed(
        self, name: str, positions: tuple[int, ...]
    ) -> Callable[[Sequence[Any], Sequence[Any]], None]:
        through = self.through

        def hook(passed: Sequence[Any], _: Sequence[Any]) -> None:
            with DisableTorchFunction():
                given = [passed[i] for i in positions if i < len(passed)]
                through[name] = self._total([g for g in given if g is not None])

        return hook

    def _total(self, gradients: list[Tensor]) -> Figure:
        if len(gradients) == 1:
            return self._norm(gradients[0])
        return norms.total([self._norm(g) for g in gradients]) if gradients else 0.0

    def _norm(self, gradient: Tensor) -> Figure:
        """Returns the norm; the last one again where the values are the same.

        Additions and reshapes pass on the memory of the gradient that they get.
        """
        if gradient.layout is not torch.strided:
            self._last, self._held = norms.norm(gradient, near=self._last), None
            return self._last
        place, version = gradient.data_ptr(), gradient._version
        if place != self._place or not self._again(gradient):
            # Held, so that nothing else can come to lie in its place.
            self._held, self._place = gradient.detach(), place
            self._last = norms.norm_of_values(self._held, self._last)
        elif version != self._version:
            self._last = norms.norm(gradient)
        self._version = version
        return self._last

    def _again(self, gradient: Tensor) -> bool:
        """Tells whether a gradient in the place of the last has all its values."""
        held = self._held
        return (
            held is not None
            and held.numel() == gradient.numel()
            and held.dtype is gradient.dtype
            and norms.is_dense(held)
            and norms.is_dense(gradient)
        )

    def read(self) -> tuple[dict[str, float], dict[str, float]]:
        """Returns both tables as floats, with one wait for the device."""
        self._held = None
        figures = norms.read([*self.at.values(), *self.through.values()])
        split = len(self.at)
        at = dict(zip(self.at, figures[:split], strict=True))
        through = dict(zip(self.through, figures[split:], strict=True))
        return at, through


def root_sum_square(values: Sequence[float]) -> float:
    """Returns the norm of parts, without overflow or underflow."""
    return math.hypot(*values) if values else 0.0
