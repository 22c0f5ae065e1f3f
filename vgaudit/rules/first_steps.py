"""The first steps of an optimizer on the weights of a model, for the rules."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from vgaudit.flow import Audit, UpdateFlow


@dataclass(frozen=True, slots=True)
class FirstStep:
    """The step on one weight: its name, its layer, its elements, its figures."""

    name: str
    elements: int
    update: UpdateFlow

    @property
    def layer(self) -> str:
        """The path of the module that holds the weight."""
        return self.name.rpartition(".")[0] or self.name


def first_steps(audit: Audit, optimizer: str) -> Iterator[FirstStep]:
    """Yields the steps on weights of two dimensions or more.

    Nothing without a loss: the size of a step means nothing for random cotangents.
    """
    flow = audit.flow
    if flow.deep is None or flow.probe != "loss":
        return
    shapes = {p.name: p.shape for p in flow.parameters if p.trainable}
    for figures in flow.deep.precision:
        shape, update = shapes.get(figures.name, ()), figures.update(optimizer)
        if len(shape) >= 2 and update is not None:
            yield FirstStep(figures.name, math.prod(shape), update)


def share(steps: list[FirstStep], of: str) -> float:
    """Returns the share of all elements that have a property: a field of the update."""
    total = sum(step.elements for step in steps)
    found = math.fsum(step.elements * getattr(step.update, of) for step in steps)
    return found / total if total else 0.0
