"""Adam on centred gradients: what centring alone is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from vgaudit.errors import BadConfig
from vgaudit.optim.averages import move, zeros
from vgaudit.optim.gradients import Gradients, centre_and_measure
from vgaudit.optim.layers import layout_of, named_groups
from vgaudit.optim.options import check_options
from vgaudit.optim.sharding import local
from vgaudit.optim.state import check_saved, keep_types

# Of the averages behind the centring, as in SDAGD.
_CENTRING_DECAY = 0.9


class CenteredAdam(Optimizer):
    """Adam with decoupled weight decay, on gradients centred as SDAGD centres them.

    The control beside SDAGD: what it gains over Adam is the centring's, not that of
    SDAGD's steps. With ``centring=False`` it is AdamW. Layers whose gradient is not
    finite, and weights whose centred gradient is nothing but rounding, stand still.

    ``lr``, ``betas``, ``eps``, ``centring``, ``weight_decay`` and ``maximize`` may
    differ between parameter groups.

    Args:
        params: ``model.named_parameters()``, or groups of such; names are needed.
        lr: learning rate.
        betas: decay of the averages of g and g².
        eps: added to √v̂.
        centring: train (weight, bias) pairs as if inputs had mean zero.
        weight_decay: decoupled: w shrinks by ``lr · weight_decay`` of itself.
        maximize: climb.

    Raises:
        BadConfig: a value out of range, unnamed or complex parameters.
    """

    def __init__(  # noqa: PLR0913 - hyper-parameters are the signature, as in torch.optim
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        centring: bool = True,
        weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "centring": centring,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(named_groups(params, owner="CenteredAdam"), defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of named parameters, as ``torch.optim`` does.

        Raises:
            BadConfig: a value out of range, unnamed or complex parameters.
        """
        (group,) = named_groups(param_group, owner="CenteredAdam")
        options = {**self.defaults, **group}
        check_options(options)
        if not all(0.0 <= beta < 1.0 for beta in options["betas"]):
            raise BadConfig(
                f"betas is {options['betas']}", hint="give two numbers in [0, 1)"
            )
        super().add_param_group(group)
        self._layout = layout_of(self.param_groups, self.state, "tensor")

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._layout = layout_of(self.param_groups, self.state, "tensor")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what ``state_dict()`` gave; averages keep their types.

        Raises:
            BadConfig: it is another optimizer's.
        """
        check_saved(state_dict, self.defaults)
        super().load_state_dict(state_dict)
        keep_types(state_dict, self.param_groups, self.state)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Moves every layer whose gradient is finite.

        Args:
            closure: clears the gradients, computes the loss, goes backward, and
                returns the loss.

        Raises:
            CannotRun: a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        layout = self._layout
        gradients = centre_and_measure(layout, decay=_CENTRING_DECAY)
        moves = {index: self._update(index, gradients) for index in gradients.members}
        move(layout, gradients, moves)
        return loss

    def _update(self, index: int, gradients: Gradients) -> tuple[Tensor, float]:
        """Averages one gradient; returns the step as (d, c), the step being −c·d."""
        kept, param = self._layout.kept(index), self._layout.param(index)
        first, second = self._layout.option(index, "betas")
        rate = float(self._layout.option(index, "lr"))
        if "exp_avg" not in kept:
            kept.update(steps=0, exp_avg=zeros(param), exp_avg_sq=zeros(param))
        kept["steps"] += 1
        grad = gradients.values[index]
        mean, square = local(kept["exp_avg"]), local(kept["exp_avg_sq"])
        mean.lerp_(grad, 1.0 - first)
        square.mul_(second).addcmul_(grad, grad, value=1.0 - second)
        below = square.sqrt().div_(math.sqrt(1.0 - second ** kept["steps"]))
        below.add_(self._layout.option(index, "eps"))
        local(param).mul_(1.0 - rate * self._layout.option(index, "weight_decay"))
        return mean / below, rate / (1.0 - first ** kept["steps"])
