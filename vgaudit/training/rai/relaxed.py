"""The relaxed problem: a model whose stages meet in targets, not in values.

For every cut t there is a target z_t, of the shape of the value ẑ_t that the stage
before it computes. The stage behind it gets z_t in place of ẑ_t, and a hidden loss
pulls the two together::

    Loss = L_y(y, output) + Σ_t L_h(z_t, ẑ_t)

so no gradient crosses more than one stage. This is the quadratic-penalty method of
auxiliary coordinates (Carreira-Perpiñán and Wang, arXiv 1212.5921).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase

from vgaudit.data.batch import Batch, Loss
from vgaudit.data.losses import mean_of
from vgaudit.errors import CannotRewrite
from vgaudit.probe.state import eager, prepare_mode
from vgaudit.training.rai.cuts import Cuts
from vgaudit.training.rai.splice import Call, Splice, Visitor

HiddenKind = Literal["mse", "l1", "huber"]
Reduction = Literal["mean", "sum"]


_DISTANCES: dict[HiddenKind, Callable[..., Tensor]] = {
    "mse": functional.mse_loss,
    "l1": functional.l1_loss,
    "huber": functional.huber_loss,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden:
    """The hidden loss.

    Attributes:
        kind: of the distance between target and value.
        reduction: ``mean`` over samples and units (the author's code), or ``sum``
            over both, as equation 4 is written; then the output loss is summed over
            samples too. The sum weighs the hidden losses higher by the width.
        weight: factor on all hidden losses.
    """

    kind: HiddenKind = "mse"
    reduction: Reduction = "mean"
    weight: float = 1.0

    def __call__(self, value: Tensor, target: Tensor) -> Tensor:
        """Returns the loss of one cut."""
        wide = torch.promote_types(value.dtype, torch.float32)
        distance = _DISTANCES[self.kind]
        loss = distance(value.to(wide), target.to(wide), reduction=self.reduction)
        return self.weight * loss


@dataclass(slots=True)
class Losses:
    """One relaxed forward pass.

    Attributes:
        output: loss of the output, a scalar.
        hidden: loss of each cut.
        values: ẑ_t at each cut.
    """

    output: Tensor
    hidden: list[Tensor]
    values: list[Tensor]

    @property
    def total(self) -> Tensor:
        """The loss that RAI minimises."""
        return torch.stack([self.output, *self.hidden]).sum()


class Relaxation:
    """Runs a model with targets in place of the values at its cuts.

    Args:
        model: stays as it is, apart from what its passes change.
        cuts: of the model.
        loss: mean over the samples of a batch.
        hidden: pulls targets and values together.
    """

    def __init__(
        self, model: nn.Module, cuts: Cuts, loss: Loss, *, hidden: Hidden | None = None
    ) -> None:
        self.model, self.cuts, self.loss = model, cuts, loss
        self.hidden = hidden or Hidden()
        self._emphasis = 1.0

    @contextmanager
    def emphasising(self, factor: float) -> Iterator[None]:
        """Multiplies the output loss alone by a factor.

        In a part of a batch, by how many more of its labels count than of the batch's:
        hidden losses are means over samples, and every sample counts.
        """
        before, self._emphasis = self._emphasis, factor
        try:
            yield
        finally:
            self._emphasis = before

    def output_loss(self, output: Any, batch: Batch) -> Tensor:
        """Returns the loss of an output, emphasised; 0 where no label counts."""
        loss = mean_of(self.loss, output, batch)
        return loss if self._emphasis == 1.0 else loss * self._emphasis

    def values(self, batch: Batch) -> list[Tensor]:
        """Returns ẑ_t of the ordinary forward pass, detached."""
        found: list[Tensor] = []

        def keep(_number: int, call: Call) -> Tensor:
            value: Tensor = call.value
            found.append(value.detach().clone())
            return value

        with torch.no_grad(), self._splicing(keep):
            self.model(*batch.args, **batch.kwargs)
        return found

    def losses(self, batch: Batch, targets: Sequence[Tensor]) -> Losses:
        """Returns all losses with ``targets`` in place of the values."""
        hidden: list[Tensor] = []
        values: list[Tensor] = []

        def relax(number: int, call: Call) -> Tensor:
            target = targets[number]
            values.append(call.value)
            hidden.append(self.hidden(call.value, target))
            # A fresh tensor: the model may work on it in place.
            return target.clone()

        with self._splicing(relax):
            output = self.model(*batch.args, **batch.kwargs)
        loss = self.output_loss(output, batch)
        if self.hidden.reduction == "sum":
            loss = loss * batch.size
        return Losses(loss, hidden, values)

    def _splicing(self, visit: Visitor) -> Splice:
        return Splice(self.cuts.spots, visit, dropout=False)

    def stages(self, batch: Batch) -> list[tuple[Tensor, ...]]:
        """Returns the parameters of each stage, the output stage last.

        Raises:
            CannotRewrite: a stage reaches past its own targets, or does not use
                them; then a step on it would be none of RAI.
        """
        targets = [z.requires_grad_() for z in self.values(batch)]
        with torch.enable_grad():
            losses = self.losses(batch, targets)
        found: list[tuple[Tensor, ...]] = []
        for number, end in enumerate([*losses.values, losses.output]):
            leaves = list(leaves_of(end))
            allowed = targets[number - 1 : number] if number else []
            strange = {id(z) for z in targets} - {id(z) for z in allowed}
            met = {id(leaf) for leaf in leaves}
            if met & strange or not {id(z) for z in allowed} <= met:
                raise self._bent(number)
            own = (leaf for leaf in leaves if isinstance(leaf, nn.Parameter))
            found.append(tuple(own))
        return found

    def _bent(self, number: int) -> CannotRewrite:
        spots = self.cuts.spots
        name = spots[min(number, len(spots) - 1)].name
        return CannotRewrite(
            f"the stage that ends at '{name}' does not get its input from the cut "
            "before it alone",
            hint="use --setting mode=sweep, which needs no targets",
        )


def leaves_of(value: Tensor) -> Iterator[Tensor]:
    """Yields the leaf tensors on which ``value`` depends, each once."""
    stack = [value.grad_fn] if value.grad_fn is not None else []
    seen = set(stack)
    while stack:
        node = stack.pop()
        assert node is not None
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor):
            yield variable
        for child, _ in node.next_functions:
            if child is not None and child not in seen:
                seen.add(child)
                stack.append(child)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Holds what would move the values of a sample from pass to pass.

    Dropout is off, and normalisation uses its running statistics: those of the
    batch would tie the samples to each other, past their targets.
    """
    modes = [(module, module.training) for module in model.modules()]
    dropouts = [
        (module, module.dropout)
        for module in model.modules()
        if isinstance(module, nn.RNNBase)
    ]
    prepare_mode(model, "train")
    for module in model.modules():
        if isinstance(module, _NormBase) and module.track_running_stats:
            module.training = False
    try:
        with eager(model):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for module, rate in dropouts:
            module.dropout = rate


@torch.no_grad()
def calibrate(model: nn.Module, batch: Batch) -> int:
    """Gives normalisation layers that saw no data yet the statistics of a batch.

    Returns:
        how many there were.
    """
    fresh = [
        module
        for module in model.modules()
        if isinstance(module, _NormBase)
        and module.num_batches_tracked is not None
        and int(module.num_batches_tracked) == 0
    ]
    if not fresh:
        return 0
    moments = [module.momentum for module in fresh]
    with frozen(model):
        for module in fresh:
            module.training, module.momentum = True, 1.0
        model(*batch.args, **batch.kwargs)
    for module, momentum in zip(fresh, moments, strict=True):
        module.momentum = momentum
    return len(fresh)
