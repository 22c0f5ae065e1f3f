"""The losses by name: from an output and labels to a scalar tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vgaudit.data.losses.made_up import RandomLabels
from vgaudit.data.losses.outputs import main_output, own_loss
from vgaudit.errors import CannotRun

IGNORED = -100
"""The label that torch's losses leave out."""


def cross_entropy(output: Any, labels: Any) -> Tensor:
    """Logits against classes, or against probabilities of the same shape."""
    logits, wanted = _pair(output, labels, "cross-entropy")
    if wanted.is_floating_point() and wanted.shape == logits.shape:
        return F.cross_entropy(logits, wanted.to(logits.dtype))
    logits, classes = classify(logits, wanted, "cross-entropy")
    return F.cross_entropy(logits, classes)


def nll(output: Any, labels: Any) -> Tensor:
    """Log-probabilities against classes."""
    logs, wanted = _pair(output, labels, "nll")
    logs, classes = classify(logs, wanted, "nll")
    return F.nll_loss(logs, classes)


def bce_with_logits(output: Any, labels: Any) -> Tensor:
    """Logits of single decisions against truth values or probabilities."""
    logits, wanted = _pair(output, labels, "bce-with-logits")
    return F.binary_cross_entropy_with_logits(
        logits, _probabilities(logits, wanted, "bce-with-logits")
    )


def bce(output: Any, labels: Any) -> Tensor:
    """Probabilities of single decisions, as a sigmoid gives, against truth values."""
    given, wanted = _pair(output, labels, "bce")
    low, high = given.detach().aminmax()
    if low < 0 or high > 1:
        raise CannotRun(
            f"bce needs outputs in [0, 1], and they reach {low:.4g} … {high:.4g}",
            hint="for logits use --loss bce-with-logits",
        )
    return F.binary_cross_entropy(given, _probabilities(given, wanted, "bce"))


def mse(output: Any, labels: Any) -> Tensor:
    """Mean squared difference."""
    given, wanted = _pair(output, labels, "mse")
    return F.mse_loss(given, _alike(given, wanted, "mse"))


def l1(output: Any, labels: Any) -> Tensor:
    """Mean absolute difference."""
    given, wanted = _pair(output, labels, "l1")
    return F.l1_loss(given, _alike(given, wanted, "l1"))


def ctc(output: Any, labels: Any) -> Tensor:
    """Frames against transcripts; the blank is symbol 0.

    The output is ``[T, N, C]``, or ``[N, T, C]`` where only that fits the
    labels; log-softmax is applied, which leaves log-probabilities as they are.
    Labels are ``(targets, input_lengths, target_lengths)`` as of
    ``torch.nn.CTCLoss``, or targets ``[N, S]`` padded with the blank.
    """
    frames = main_output(output)
    if frames is None or frames.dim() != 3:
        raise CannotRun(
            f"ctc needs an output of frames x samples x symbols, not {_told(frames)}"
        )
    if isinstance(labels, RandomLabels):
        labels = labels.fitting(frames, "ctc")
    if isinstance(labels, (tuple, list)) and len(labels) == 3:
        targets, input_lengths, target_lengths = labels
    elif isinstance(labels, Tensor) and labels.dim() == 2:
        if frames.shape[1] != len(labels) and frames.shape[0] == len(labels):
            frames = frames.transpose(0, 1)
        targets, target_lengths = labels, (labels > 0).sum(1)
        input_lengths = torch.full((frames.shape[1],), frames.shape[0])
    else:
        raise CannotRun(
            f"ctc needs transcripts as labels, not {_told(labels)}",
            hint="labels are (targets, input_lengths, target_lengths) or targets N x S",
        )
    check_range(targets, frames.shape[2])
    logs = frames.log_softmax(2)
    return F.ctc_loss(logs, targets.to(frames.device), input_lengths, target_lengths)


def output_loss(output: Any, labels: Any) -> Tensor:
    """The loss that the model computes itself."""
    loss = own_loss(output)
    if loss is None:
        raise CannotRun(
            f"the output holds no loss: it is {_told(output)}",
            hint="--loss output needs output.loss, a dict of losses or a scalar",
        )
    return loss


LOSSES: dict[str, Callable[[Any, Any], Tensor]] = {
    "cross-entropy": cross_entropy,
    "bce-with-logits": bce_with_logits,
    "bce": bce,
    "mse": mse,
    "l1": l1,
    "nll": nll,
    "ctc": ctc,
    "output": output_loss,
}
"""By the names of the option."""


def classify(logits: Tensor, labels: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Returns logits with classes in the second dimension, and whole labels.

    Raises:
        CannotRun: the shapes do not belong together, or a label is no class.
    """
    if labels.dim() == logits.dim() and labels.dim() > 1 and labels.shape[-1] == 1:
        labels = labels.squeeze(-1)
    elif labels.dim() == logits.dim() and labels.dim() > 2 and labels.shape[1] == 1:
        labels = labels.squeeze(1)
    dim = matching_dim(logits, labels)
    if dim is None:
        raise CannotRun(
            f"{name} compares classes, and output {_shape(logits)} does not fit labels "
            f"{_shape(labels)}",
            hint="the output has one dimension more than the labels: the classes",
        )
    if labels.is_floating_point():
        labels = _whole(labels, name)
    check_range(labels, logits.shape[dim])
    return logits.movedim(dim, min(1, logits.dim() - 1)), labels.long()


def matching_dim(output: Tensor, labels: Tensor) -> int | None:
    """Returns the dimension of the output that the labels do not have."""
    if output.dim() != labels.dim() + 1:
        return None
    for dim in dict.fromkeys((min(1, output.dim() - 1), output.dim() - 1)):
        if output.shape[:dim] + output.shape[dim + 1 :] == labels.shape:
            return dim
    return None


def check_range(labels: Tensor, outputs: int) -> None:
    """Raises unless every label that counts is a class.

    Raises:
        CannotRun: names the first label that is none.
    """
    counted = labels[labels != IGNORED]
    bad = counted[(counted < 0) | (counted >= outputs)]
    if bad.numel():
        raise CannotRun(
            f"label {int(bad[0])} but {outputs} outputs",
            hint=f"classes run from 0 to {outputs - 1}; {IGNORED} leaves a label out",
        )


def _pair(output: Any, labels: Any, name: str) -> tuple[Tensor, Tensor]:
    """Returns the tensors to compare, on the device of the output."""
    given = main_output(output)
    if given is None:
        raise CannotRun(f"{name} needs a tensor, and the output is {_told(output)}")
    if isinstance(labels, RandomLabels):
        labels = labels.fitting(given, name)
    wanted = main_output(labels)
    if wanted is None:
        what = "none" if labels is None else _told(labels)
        raise CannotRun(
            f"{name} needs labels, and the batch has {what}",
            hint="give data with labels, or use --loss output",
        )
    return given, wanted.to(given.device)


def _alike(given: Tensor, wanted: Tensor, name: str) -> Tensor:
    """Returns the labels in the output's shape; only extents of 1 may differ."""
    if wanted.shape != given.shape:
        squeezed = [extent for extent in given.shape if extent != 1]
        if squeezed != [extent for extent in wanted.shape if extent != 1]:
            raise CannotRun(
                f"{name} compares output {_shape(given)} with labels {_shape(wanted)}",
                hint="they need the same shape; for classes use --loss cross-entropy",
            )
        wanted = wanted.reshape(given.shape)
    return wanted.to(given.dtype)


def _probabilities(given: Tensor, wanted: Tensor, name: str) -> Tensor:
    wanted = _alike(given, wanted, name)
    low, high = wanted.aminmax()
    if low < 0 or high > 1:
        worst = float(low if low < 0 else high)
        raise CannotRun(
            f"{name} needs labels in [0, 1], and one is {worst:g}",
            hint="for several classes use --loss cross-entropy",
        )
    return wanted


def _whole(labels: Tensor, name: str) -> Tensor:
    if bool((labels != labels.round()).any()):
        raise CannotRun(
            f"{name} needs whole numbers as labels, and they have fractions",
            hint="for regression use --loss mse",
        )
    return labels.long()


def _shape(tensor: Tensor) -> str:
    return "x".join(str(extent) for extent in tensor.shape) or "of one number"


def _told(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {_shape(value)}"
    return f"of type {type(value).__name__}"
