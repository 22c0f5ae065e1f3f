"""Mini-batch RAI: backpropagation with the gradient renormalised at every cut.

One scale-free update of every target from its forward value, ``z* = ẑ − η·N(g)``,
followed by a step on the local losses ``½‖ẑ − z*‖²``, moves the weights along
``Jᵀ(η·N(g))``: that is the gradient of backpropagation with another length at each
cut. So nothing is stored, any batch order and any optimizer will do, and with one
factor per cut each layer keeps the exact direction that backpropagation gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from vgaudit.errors import BadConfig, CannotRun
from vgaudit.training.rai.cuts import Cuts
from vgaudit.training.rai.splice import Call, Splice

Per = Literal["tensor", "sample"]
Joint = Callable[[Tensor, int], Tensor]
"""Root mean square over all ranks, from that of this rank's values and their number."""


def _own(size: Tensor, _count: int) -> Tensor:
    """Returns the root mean square of one process."""
    return size


class Sweep:
    """Renormalises the gradient at the cuts of every pass made inside ``cutting``.

    The forward pass is untouched, bit for bit. ``with sweep.cutting(): loss =
    f(model(x))`` and then ``loss.backward()`` as always.

    Args:
        cuts: of the model.
        scale: root mean square of the gradient behind each cut; None takes that of
            the gradient that arrives at the last cut, so that the loss still sets
            the size of the step, and so do the loss scales of mixed precision.
        per: one factor for the whole tensor, or for each sample (which changes the
            direction of the weights' gradients).
        joint: joins the root mean squares of several ranks, each of which has a part
            of the batch and a gradient that counts once for every rank.
        ranks: how many those are.

    Raises:
        BadConfig: a scale that is not positive.
    """

    def __init__(
        self,
        cuts: Cuts,
        *,
        scale: float | None = None,
        per: Per = "tensor",
        joint: Joint = _own,
        ranks: int = 1,
    ) -> None:
        if scale is not None and not scale > 0:
            raise BadConfig(
                f"scale is {scale}, and a gradient of that size teaches nothing",
                hint="give a positive number, or none",
            )
        self._cuts, self._per, self._joint = cuts, per, joint
        self._scale = None if scale is None else scale * ranks

    @contextmanager
    def cutting(self) -> Iterator[None]:
        """Marks one forward pass; the backward pass may come later.

        Raises:
            CannotRun: the pass does not come to the cuts in order, or a cut behind
                trained layers has no gradient.
        """
        marked = _Pass(len(self._cuts), self._scale, self._per, self._joint)
        with Splice(self._cuts.spots, marked.visit):
            yield


class _Pass:
    """The cuts of one forward pass, and what its backward pass does at them."""

    def __init__(self, count: int, scale: float | None, per: Per, joint: Joint) -> None:
        self._last = count - 1
        self._scale, self._per, self._joint = scale, per, joint
        self._handed: Tensor | None = None
        self._reached = False

    def visit(self, number: int, call: Call) -> Tensor:
        value: Tensor = call.value
        node = value.grad_fn
        if node is None:
            if not (torch.is_grad_enabled() and self._reached):
                # What lies before is frozen: there is no gradient to renormalise.
                return value
            raise CannotRun(
                f"no gradient passes the cut {number + 1}: its value was made without, "
                "and there are trained layers before it",
                hint="remove the detach() or no_grad() before it, or train without RAI",
            )
        self._reached = True
        place = value.output_nr

        def renormalise(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
            found = gradients[place]
            changed: list[Tensor | None] = list(gradients)
            if found is not None:
                changed[place] = self._renormalised(number, found)
            return tuple(changed)  # type: ignore[arg-type]

        # A hook on the node sees the whole gradient at its value, summed over all
        # uses, also where the value is changed in place afterwards.
        node.register_prehook(renormalise)
        return value

    def _renormalised(self, number: int, gradient: Tensor) -> Tensor:
        wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        if not wide.numel():
            return gradient
        size = self._joint(rms(wide), wide.numel())
        if number == self._last and self._scale is None:
            self._handed = size
            if self._per == "tensor":
                return gradient
        wanted = self._handed if self._scale is None else self._scale
        assert wanted is not None
        length = rms(wide, per="sample") if self._per == "sample" else size
        return (over(wide, length) * wanted).to(gradient.dtype)


def rms(values: Tensor, *, per: Per = "tensor") -> Tensor:
    """Returns the root mean square of all values, or ``[N, 1, …]`` of each sample.

    The values are measured in units of the largest, so that no square underflows.
    """
    rows = values.reshape(1 if per == "tensor" else values.shape[0], -1)
    peak = rows.abs().amax(1)
    safe = torch.where(peak > 0, peak, torch.ones_like(peak))
    size = (rows / safe[:, None]).square().mean(1).sqrt() * peak
    return size.reshape(() if per == "tensor" else (-1, *[1] * (values.dim() - 1)))


def unit(values: Tensor, per: Per = "tensor") -> Tensor:
    """Returns values over their root mean square; zero stays zero."""
    return over(values, rms(values, per=per)) if values.numel() else values


def over(values: Tensor, size: Tensor) -> Tensor:
    """Returns values over a size that may be zero; zero stays zero."""
    return values / torch.where(size > 0, size, torch.ones_like(size))
