"""Which loss fits an output and labels, when the user names none."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vgaudit.data.losses.compare import matching_dim
from vgaudit.data.losses.made_up import RandomLabels
from vgaudit.data.losses.outputs import main_output, own_loss
from vgaudit.errors import CannotRun

_PASSED_BY = (
    "View",
    "UnsafeView",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Clone",
    "ToCopy",
    "Permute",
    "Transpose",
    "Slice",
    "Select",
    "Alias",
)
"""Autograd operations that only rearrange numbers."""


def choose(output: Any, labels: Any) -> tuple[str, str]:
    """Returns the name of the loss that fits, and why.

    Raises:
        CannotRun: none does.
    """
    if own_loss(output, whole=True) is not None and not _compares(output, labels):
        return "output", "the model computes its own loss"
    if isinstance(labels, (tuple, list)) and len(labels) == 3:
        return "ctc", "labels are targets with lengths"
    given, wanted = main_output(output), main_output(labels)
    if given is None or wanted is None or isinstance(labels, RandomLabels):
        raise _none_fits(given, wanted)
    last = _last_operation(given)
    if wanted.is_floating_point():
        return _for_floats(given, wanted, last)
    return _for_whole_numbers(given, wanted, last)


def _compares(output: Any, labels: Any) -> bool:
    """A single output of shape ``[1]`` or ``[1, 1]`` is no loss if labels fit it."""
    return (
        isinstance(output, Tensor)
        and output.dim() > 0
        and isinstance(labels, Tensor)
        and labels.numel() == output.numel()
    )


def _for_floats(given: Tensor, wanted: Tensor, last: str) -> tuple[str, str]:
    in_unit = bool((wanted >= 0).all() and (wanted <= 1).all())
    if _same_extents(given, wanted):
        if last == "Sigmoid" and in_unit:
            return "bce", "the output is a sigmoid, and labels lie in [0, 1]"
        sums = wanted.sum(1) if wanted.dim() > 1 and wanted.shape[1] > 1 else None
        if sums is not None and in_unit and bool(((sums - 1).abs() < 1e-3).all()):
            return "cross-entropy", "each label is a distribution over the classes"
        why = "labels are real numbers of the output's shape"
        if bool(((wanted == 0) | (wanted == 1)).all()):
            why += ", all 0 or 1; if they say no and yes, --loss bce-with-logits fits"
        return "mse", why
    if _classes(given, wanted) and bool((wanted == wanted.round()).all()):
        return _classification(last, "labels are whole numbers, one for each sample")
    raise _none_fits(given, wanted)


def _for_whole_numbers(given: Tensor, wanted: Tensor, last: str) -> tuple[str, str]:
    if _classes(given, wanted) and not _single_column(given, wanted):
        return _classification(last, "labels are class numbers")
    if not _same_extents(given, wanted):
        raise _none_fits(given, wanted)
    if bool(((wanted == 0) | (wanted == 1)).all()):
        if last == "Sigmoid":
            return "bce", "labels are 0 and 1, and the output is a sigmoid"
        return "bce-with-logits", "labels are 0 and 1, one for each output"
    return "mse", "labels are whole numbers of the output's shape"


def _classification(last: str, why: str) -> tuple[str, str]:
    if last == "LogSoftmax":
        return "nll", f"{why}, and the output is log-softmax"
    if last == "Softmax":
        return "cross-entropy", (
            f"{why}; the output is already softmax, and cross-entropy applies it "
            "again: the gradient shrinks by that"
        )
    return "cross-entropy", why


def _classes(given: Tensor, wanted: Tensor) -> bool:
    if wanted.dim() == given.dim() and wanted.dim() > 1 and wanted.shape[-1] == 1:
        wanted = wanted.squeeze(-1)
    elif wanted.dim() == given.dim() and wanted.dim() > 2 and wanted.shape[1] == 1:
        wanted = wanted.squeeze(1)
    return matching_dim(given, wanted) is not None


def _single_column(given: Tensor, wanted: Tensor) -> bool:
    return given.numel() == wanted.numel()


def _same_extents(given: Tensor, wanted: Tensor) -> bool:
    return [e for e in given.shape if e != 1] == [e for e in wanted.shape if e != 1]


def _last_operation(output: Tensor) -> str:
    """Returns the last autograd operation that computes, such as ``Softmax``."""
    node: Any = output.grad_fn
    while node is not None:
        name = str(node.name()).rstrip("0123456789").removesuffix("Backward")
        if not name.startswith(_PASSED_BY):
            return name
        node = node.next_functions[0][0] if node.next_functions else None
    return ""


def _none_fits(given: Tensor | None, wanted: Tensor | None) -> CannotRun:
    def told(tensor: Tensor | None) -> str:
        if tensor is None:
            return "nothing"
        kind = str(tensor.dtype).removeprefix("torch.")
        return f"{kind} {'x'.join(str(extent) for extent in tensor.shape)}"

    return CannotRun(
        f"no loss fits output {told(given)} and labels {told(wanted)}",
        hint="name one: --loss cross-entropy, mse …, or --loss file.py:function",
    )
