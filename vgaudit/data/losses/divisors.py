"""What the mean of a loss divides by, where that is not the number of samples.

Means over the parts of a batch add up to the mean over the whole only with these
weights: a part may hold any number of labels that the loss leaves out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from vgaudit.data.losses.compare import IGNORED

Divisor = Callable[[Tensor], float]

CLASSES = ("cross-entropy", "nll")
"""The names of the losses that leave labels out."""


def divisor_of(loss: Any) -> Divisor | None:
    """Returns what a loss divides by, from its labels; None for the samples.

    Known of cross-entropy and nll, by name, as torch's function, or as torch's module,
    whose class weights and ``ignore_index`` count.
    """
    by_name = isinstance(loss, str) and loss in CLASSES
    if by_name or loss is F.cross_entropy or loss is F.nll_loss:
        return partial(_labels, ignored=IGNORED)
    # A subclass may compute anything.
    if type(loss) in (nn.CrossEntropyLoss, nn.NLLLoss) and loss.reduction == "mean":
        if loss.weight is None:
            return partial(_labels, ignored=loss.ignore_index)
        return partial(_class_weights, loss=loss)
    return None


def _labels(labels: Tensor, ignored: int) -> float:
    """Returns how many labels count.

    Of probabilities all entries do, in place of the distributions: a factor that is
    the same for every part.
    """
    if not labels.is_floating_point():
        # Whole numbers without a sign cannot be compared with a negative one.
        labels = labels.long()
    return float((labels != ignored).sum())


def _class_weights(labels: Tensor, loss: nn.CrossEntropyLoss | nn.NLLLoss) -> float:
    """Returns the sum of the weights of the labels that count."""
    assert loss.weight is not None
    if labels.is_floating_point():
        return float(labels.numel())
    labels = labels.long()
    kept = labels[labels != loss.ignore_index]
    weight = loss.weight.detach().to(kept.device).double()
    # What is no class the loss itself refuses.
    return float(weight[kept.clamp(0, len(weight) - 1)].sum())
