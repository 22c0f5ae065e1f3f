"""How far the relaxed problem is from the network that is delivered.

The loss that RAI minimises is that of the relaxed problem. It can be 0.0003 where
the network itself is at chance, so no report shows it without the relaxation gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vgaudit.data.batch import Batch
from vgaudit.training.rai.least_squares import explained
from vgaudit.training.rai.relaxed import Relaxation, frozen
from vgaudit.training.rai.sweep import rms


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Relaxed against ordinary forward pass.

    Attributes:
        relaxed: loss of the relaxed problem, output and hidden.
        output: loss of its output alone.
        forward: loss of the ordinary forward pass.
        residuals: for each cut, root mean square of ẑ − z over that of z around its
            mean; infinite where z is constant and ẑ is not.
        label_shares: for each cut, the share of the variance of z that the labels
            explain; None without labels or without variance.
    """

    relaxed: float
    output: float
    forward: float
    residuals: tuple[float, ...]
    label_shares: tuple[float | None, ...]

    @property
    def gap(self) -> float:
        """Forward loss minus relaxed output loss."""
        return self.forward - self.output

    @property
    def residual(self) -> float:
        """The largest relative residual."""
        return max(self.residuals)

    @property
    def label_share(self) -> float:
        """The least label share of any cut; 0 where one holds nothing at all."""
        return min(share or 0.0 for share in self.label_shares)

    @property
    def figures(self) -> dict[str, float]:
        """What a report shows of it."""
        return {
            "relaxed loss": self.output,
            "forward loss": self.forward,
            "relaxation gap": self.gap,
            "largest residual": self.residual,
            "least label share": self.label_share,
        }


@torch.no_grad()
def measure_gap(relaxation: Relaxation, batch: Batch, targets: Sequence[Tensor]) -> Gap:
    """Returns the gap of a model and its targets; the model stays as it is."""
    with frozen(relaxation.model):
        losses = relaxation.losses(batch, targets)
    scale = batch.size if relaxation.hidden.reduction == "sum" else 1
    return Gap(
        relaxed=float(losses.total) / scale,
        output=float(losses.output) / scale,
        forward=forward_loss(relaxation, batch),
        residuals=tuple(map(_residual, losses.values, targets)),
        label_shares=tuple(_share(z, batch) for z in targets),
    )


@torch.no_grad()
def forward_loss(relaxation: Relaxation, batch: Batch) -> float:
    """Returns the loss of the ordinary forward pass, with nothing relaxed."""
    model = relaxation.model
    with frozen(model):
        output = model(*batch.args, **batch.kwargs)
    return float(relaxation.output_loss(output, batch))


def _residual(value: Tensor, target: Tensor) -> float:
    rest = float(rms((value - target).float()))
    spread = float(rms((target - target.mean(0)).float()))
    if rest == 0:
        return 0.0
    return rest / spread if spread > 0 else float("inf")


def _share(target: Tensor, batch: Batch) -> float | None:
    labels = batch.labels
    if not isinstance(labels, Tensor) or labels.shape[:1] != target.shape[:1]:
        return None
    return explained(target, labels)
