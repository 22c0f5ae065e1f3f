"""Resilient propagation: steps that know the sign of a gradient, not its size.

RAI hands the label signal down one layer per step. Each hop makes it smaller, so an
optimizer whose steps shrink with the gradient loses it within a few layers in
float32. Targets therefore move by signs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

RISE, FALL = 1.2, 0.5
SMALLEST, LARGEST = 1e-6, 50.0


@torch.no_grad()
def rprop_(value: Tensor, gradient: Tensor, previous: Tensor, size: Tensor) -> None:
    """Moves ``value`` by one step of Rprop, in place.

    The rule is that of ``torch.optim.Rprop``: where the gradient turned round, the
    step shrinks and is left out once.

    Args:
        value: what moves.
        gradient: is overwritten.
        previous: sign of the last gradient that moved ``value``; is updated.
        size: of the next step, element by element; is updated.
    """
    sign = gradient.sign_()
    turn = sign * previous
    # 1 + 0.35·t − 0.15·t² is 1.2, 1 and 0.5 for t = 1, 0 and −1.
    factor = turn.mul(0.5 * (RISE + FALL) - 1).mul_(turn)
    factor.add_(turn, alpha=0.5 * (RISE - FALL)).add_(1)
    size.mul_(factor).clamp_(SMALLEST, LARGEST)
    sign.mul_(turn.add_(1).clamp_(max=1))
    value.addcmul_(sign, size, value=-1)
    previous.copy_(sign)


class Rprop:
    """Rprop over tensors of which some may rest.

    A variable that rests keeps its value and its state, as if it had no gradient.

    Args:
        variables: moved in place.
        rate: the first step of every element.
    """

    def __init__(self, variables: Sequence[Tensor], *, rate: float) -> None:
        self.variables = list(variables)
        self.previous = [torch.zeros_like(v, requires_grad=False) for v in variables]
        self.sizes = [torch.full_like(v, rate, requires_grad=False) for v in variables]

    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """Moves every variable that has a gradient."""
        for number, gradient in enumerate(gradients):
            if gradient is not None:
                rprop_(
                    self.variables[number].detach(),
                    gradient.clone(),
                    self.previous[number],
                    self.sizes[number],
                )

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Returns what a later ``load_state_dict`` needs."""
        return {"previous": self.previous, "sizes": self.sizes}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Takes what ``state_dict`` gave."""
        for own, given in zip(self.previous, state["previous"], strict=True):
            own.copy_(given)
        for own, given in zip(self.sizes, state["sizes"], strict=True):
            own.copy_(given)
