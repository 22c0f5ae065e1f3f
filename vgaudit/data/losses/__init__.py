"""The loss of the loss probe: named, chosen, or the user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch, Loss
from vgaudit.data.losses.choose import choose
from vgaudit.data.losses.compare import LOSSES, check_range, matching_dim
from vgaudit.data.losses.divisors import CLASSES, divisor_of
from vgaudit.data.losses.made_up import RandomLabels
from vgaudit.data.losses.outputs import main_output, own_loss
from vgaudit.data.sources.factory import load_object, matches
from vgaudit.errors import BadConfig, CannotRun
from vgaudit.flow import DataFacts, GradientFlow
from vgaudit.plain import nearest, visible

Function = Callable[[Any, Any], Tensor]


def resolve_loss(
    spec: str | Function | None,
    labelled: bool,
    first: tuple[Any, Any] | None = None,
) -> Loss | None:
    """Returns the loss to measure with, or None for the Jacobian probe.

    Args:
        spec: ``auto``, a name, ``module:function``, ``file.py:function``, or
            ``jacobian``; or a function of output and labels. None is ``auto``
            with labels and ``jacobian`` without.
        labelled: the data has labels, or the model computes its own loss.
        first: an output and its labels, from which ``auto`` chooses; without
            them ``auto`` chooses at its first call.

    Raises:
        BadConfig: there is no such loss.
        CannotRun: ``auto`` finds none that fits ``first``.
        CannotLoad: the user's file or module fails.
    """
    if callable(spec):
        name = getattr(spec, "__name__", type(spec).__name__)
        own = _checked(name, _guarded(name, spec))
        return Loss(name, own, divisor=divisor_of(spec))
    if spec == "jacobian" or (spec in (None, "auto") and not labelled):
        return None
    if spec in (None, "auto"):
        if first is None:
            return Loss("auto", _Auto())
        return _chosen(*first)
    assert spec is not None
    if spec in LOSSES:
        return Loss(spec, _checked(spec, LOSSES[spec]), divisor=divisor_of(spec))
    if matches(spec):
        found, told = _own_function(spec), visible(spec)
        own = _checked(told, _guarded(told, found))
        return Loss(spec, own, divisor=divisor_of(found))
    guess = nearest(spec, ["auto", "jacobian", *LOSSES])
    raise BadConfig(
        f"unknown loss '{visible(spec)}'",
        hint=f"{guess}known: auto, jacobian, {', '.join(LOSSES)}, file.py:function",
    )


def check_labels(output: Any, labels: Any, loss: Loss | None) -> None:
    """Raises when a class label has no output; other losses pass.

    The losses check each batch by themselves; this is for a first look on the
    CPU, before a device sees labels that stop it for good.

    Raises:
        CannotRun: "label 10 but 10 outputs".
    """
    given = main_output(output)
    if loss is None or given is None or not isinstance(labels, Tensor):
        return
    if labels.is_floating_point() or loss.name not in (*CLASSES, "auto"):
        return
    dim = matching_dim(given, labels)
    if dim is not None and given.shape[dim] > 1:
        check_range(labels, given.shape[dim])


def settled(loss: Loss) -> Loss:
    """Returns what ``auto`` chose at its first call; another loss as it is."""
    function = loss.function
    return function.chosen or loss if isinstance(function, _Auto) else loss


def counted(loss: Loss, batch: Batch) -> float:
    """Returns what the mean of a loss over a batch divides by; 0 where nothing counts.

    The weight of its mean among those of other batches.
    """
    divisor, labels = settled(loss).divisor, main_output(batch.labels)
    if divisor is None or labels is None:
        return float(batch.size)
    return divisor(labels)


def mean_of(loss: Loss, output: Any, batch: Batch) -> Tensor:
    """Returns a loss; 0, with a gradient of 0, where no label of the batch counts.

    There the mean itself is 0 / 0.
    """
    value = loss.function(output, batch.labels)
    given = main_output(output)
    if given is None or counted(loss, batch):
        return value
    everywhere = torch.ones((), dtype=torch.bool, device=given.device)
    return given.masked_fill(everywhere, 0).sum()


def settle(
    flow: GradientFlow, facts: DataFacts, loss: Loss | None
) -> tuple[GradientFlow, DataFacts]:
    """Returns a measurement and its data with the loss under its own name.

    To be called after the measurement: ``auto`` chooses when it sees an output.
    """
    if loss is None:
        return flow, replace(facts, loss="jacobian")
    used = settled(loss)
    notes = (*facts.notes, used.note) if used.note else facts.notes
    if flow.loss is not None:
        flow = replace(flow, loss=replace(flow.loss, name=used.name))
    return flow, replace(facts, loss=used.name, notes=notes)


class _Auto:
    """Chooses at its first call, and stays with that."""

    def __init__(self) -> None:
        self.chosen: Loss | None = None

    def __call__(self, output: Any, labels: Any) -> Tensor:
        if self.chosen is None:
            self.chosen = _chosen(output, labels)
        return self.chosen.function(output, labels)


def _chosen(output: Any, labels: Any) -> Loss:
    name, why = choose(output, labels)
    note = f"loss {name}: {why}"
    return Loss(name, _checked(name, LOSSES[name]), note, divisor_of(name))


def _own_function(spec: str) -> Function:
    """Returns the user's function; a class of module is made first."""
    found = load_object(spec)
    if isinstance(found, type) and issubclass(found, nn.Module):
        try:
            found = found()
        except TypeError as error:
            raise BadConfig(
                f"{visible(spec)} cannot be made without arguments: {error}",
                hint="name a function, or an instance",
            ) from None
    if not callable(found):
        raise BadConfig(f"{visible(spec)} is no function: {type(found).__name__}")
    own: Function = found
    return own


def _guarded(name: str, function: Function) -> Function:
    """Returns the user's function, with its failures turned into ours."""

    def call(output: Any, labels: Any) -> Tensor:
        labels = None if isinstance(labels, RandomLabels) else labels
        try:
            return function(output, labels)
        except Exception as error:
            raise CannotRun(
                f"the loss {name} raises {type(error).__name__}: {visible(str(error))}",
                hint="it is called with the model's output and the labels",
            ) from error

    return call


def _checked(name: str, function: Function) -> Function:
    """Returns a loss whose value can be differentiated, or that says why not."""

    def run(output: Any, labels: Any) -> Tensor:
        value = function(output, labels)
        if not isinstance(value, Tensor):
            raise CannotRun(
                f"the loss {name} gives {type(value).__name__}, not a tensor",
                hint="a loss returns a scalar tensor; .item() cuts it off",
            )
        if value.numel() != 1:
            shape = "x".join(str(extent) for extent in value.shape)
            raise CannotRun(
                f"the loss {name} is not a scalar: its shape is {shape}",
                hint="take its mean or sum",
            )
        if not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise CannotRun(f"the loss {name} is of type {kind}, not a real number")
        if torch.is_grad_enabled() and not value.requires_grad:
            raise CannotRun(
                f"the loss {name} has no gradient: {_why_no_gradient(output)}",
                hint="nothing between the parameters and the loss may be cut off",
            )
        return value.reshape(())

    return run


def _why_no_gradient(output: Any) -> str:
    given = own_loss(output)
    given = main_output(output) if given is None else given
    if given is None:
        return "the output holds no tensor"
    if given.is_inference():
        return "the model runs under torch.inference_mode"
    if not (given.is_floating_point() or given.is_complex()):
        return f"the output is of type {str(given.dtype).removeprefix('torch.')}"
    if not given.requires_grad:
        return "the output is detached, under no_grad, frozen or quantized"
    return "the loss itself detaches the output"


__all__ = [
    "LOSSES",
    "check_labels",
    "counted",
    "mean_of",
    "resolve_loss",
    "settle",
    "settled",
]
