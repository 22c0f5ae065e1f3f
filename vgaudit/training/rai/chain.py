"""Full-batch RAI for equal linear layers in a row: all of them in one product.

The same steps as ``reference.Reference``, for nets of the form linear, activation,
linear, … with hidden layers of one width. The weights of the layers lie stacked, the
gradients are written out, and layers that still rest are not computed: half the cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vgaudit.data.batch import Batch
from vgaudit.training.rai.cuts import linear_operands
from vgaudit.training.rai.gate import Gate
from vgaudit.training.rai.relaxed import Relaxation, frozen
from vgaudit.training.rai.rprop import rprop_
from vgaudit.training.rai.splice import Call, Splice

_SLOPES: dict[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] = {
    torch.sigmoid: lambda h: h * (1 - h),
    torch.tanh: lambda h: 1 - h * h,
    torch.relu: lambda h: (h > 0).to(h.dtype),
}
"""Activation → its slope as a function of its value."""

_CACHED = 1 << 16
"""Weights worked on at a time: what a processor core keeps near by."""


@dataclass(slots=True)
class _Layer:
    """One linear layer as it is called."""

    weight: nn.Parameter
    bias: nn.Parameter
    input: Tensor
    value: Tensor


@dataclass(slots=True)
class Form:
    """A model recognised as a chain.

    Attributes:
        layers: all linear layers, the input layer first.
        activation: between them.
        shape: of the model's output.
    """

    layers: list[_Layer]
    activation: Callable[[Tensor], Tensor]
    shape: torch.Size


def read_form(relaxation: Relaxation, batch: Batch) -> Form | None:
    """Returns the form of a model that is such a chain, else None.

    It is recognised by its values: what enters each layer must be, bit for bit, the
    activation of what left the one before it.
    """
    cuts = relaxation.cuts
    if cuts.readout is None or cuts.place != "pre" or len(cuts) < 2:
        return None
    if relaxation.hidden.kind != "mse" or len({s.shape for s in cuts.spots}) > 1:
        return None
    calls: list[Call] = []

    def keep(_number: int, call: Call) -> Tensor:
        calls.append(call)
        value: Tensor = call.value
        return value

    model = relaxation.model
    splice = Splice([*cuts.spots, cuts.readout], keep, dropout=False)
    with torch.no_grad(), frozen(model), splice:
        output = model(*batch.args, **batch.kwargs)
    layers = [layer for call in calls if (layer := _layer(call)) is not None]
    if len(layers) < len(calls) or len({id(x.weight) for x in layers}) < len(calls):
        return None
    last = layers[-1].value
    same = isinstance(output, Tensor) and output.numel() == last.numel()
    if not same or not torch.equal(output.reshape_as(last), last):
        return None
    for activation in _SLOPES:
        if _fits(layers, activation):
            return Form(layers, activation, output.shape)
    return None


def _layer(call: Call) -> _Layer | None:
    if call.function is not functional.linear:
        return None
    weight, bias = linear_operands(call.args, call.kwargs)
    given = call.args[0] if call.args else call.kwargs["input"]
    if not isinstance(weight, nn.Parameter) or not isinstance(bias, nn.Parameter):
        return None
    trained = weight.requires_grad and bias.requires_grad
    if given.dim() != 2 or not trained:
        return None
    return _Layer(weight, bias, given, call.value.clone())


def _fits(layers: list[_Layer], activation: Callable[[Tensor], Tensor]) -> bool:
    return all(
        torch.equal(activation(before.value), after.input)
        for before, after in pairwise(layers)
    )


class Chain:
    """RAI on a chain; ``write`` brings its weights into the model.

    Attributes:
        noise: 0.0; resting layers are not computed, so they hold no rounding noise.
        done: steps taken.

    Args:
        form: of the model.
        relaxation: for the losses.
        batch: every training sample.
        gate: when a stage moves.
    """

    def __init__(
        self, form: Form, relaxation: Relaxation, batch: Batch, gate: Gate
    ) -> None:
        first, *hidden, last = form.layers
        self.noise, self.done, self._gate = 0.0, 0, gate
        self._form, self._relaxation, self._batch = form, relaxation, batch
        self._slope = _SLOPES[form.activation]
        self._x = first.input
        self._z = torch.stack([layer.value for layer in (first, *hidden)])
        with torch.no_grad():
            self._values = {
                "targets": self._z,
                "weights": torch.stack([layer.weight.detach() for layer in hidden]),
                "biases": torch.stack([layer.bias.detach() for layer in hidden]),
                "first": first.weight.detach().clone(),
                "first_bias": first.bias.detach().clone(),
                "last": last.weight.detach().clone(),
                "last_bias": last.bias.detach().clone(),
            }
        self._previous = {k: torch.zeros_like(v) for k, v in self._values.items()}
        self._sizes = {
            k: torch.full_like(v, gate.rate) for k, v in self._values.items()
        }
        # ∂/∂ẑ of the hidden loss is this times the residual.
        hidden_loss = relaxation.hidden
        mean = hidden_loss.reduction == "mean"
        self._pull = 2 * hidden_loss.weight / (self._z[0].numel() if mean else 1)

    def __len__(self) -> int:
        return len(self._z)

    @torch.no_grad()
    def step(self) -> float:
        """Takes one step; returns the loss of the relaxed output before it."""
        moving = self._gate.moving(len(self), self.done)
        # Stage t moves together with the target that enters it.
        low, high = max(0, moving.start - 1), moving.stop - 1
        h = self._form.activation(self._z[low:high])
        slope = self._slope(h)
        gradient = torch.zeros_like(h)
        loss = float("nan")
        if high == len(self):
            loss = self._last(h[-1], slope[-1], gradient[-1])
        self._hidden(low, h, slope, gradient)
        if moving.start == 0:
            self._first(gradient[0] if high > 0 else None)
        self._move("targets", gradient, slice(low, high))
        self.done += 1
        return loss

    def _last(self, h: Tensor, slope: Tensor, gradient: Tensor) -> float:
        weight, bias = self._values["last"], self._values["last_bias"]
        logits = torch.addmm(bias, h, weight.T)
        with torch.enable_grad():
            logits.requires_grad_()
            shaped = logits.reshape(self._form.shape)
            loss = self._relaxation.loss.function(shaped, self._batch.labels)
            if self._relaxation.hidden.reduction == "sum":
                loss = loss * self._batch.size
            (pull,) = torch.autograd.grad(loss, logits)
        gradient.add_((pull @ weight) * slope)
        self._move("last", pull.T @ h)
        self._move("last_bias", pull.sum(0))
        return float(loss.detach())

    def _hidden(self, low: int, h: Tensor, slope: Tensor, gradient: Tensor) -> None:
        """Adds the hidden losses' gradients and moves the hidden layers."""
        weights, biases = self._values["weights"], self._values["biases"]
        at_once = max(1, _CACHED // weights[0].numel())
        stop = min(low + len(h), len(weights))
        for start in range(low, stop, at_once):
            part = slice(start, min(start + at_once, stop))
            here = slice(part.start - low, part.stop - low)
            above = slice(here.start + 1, here.stop + 1)
            weight = weights[part]
            rest = torch.baddbmm(biases[part, None], h[here], weight.mT)
            rest.sub_(self._z[part.start + 1 : part.stop + 1]).mul_(self._pull)
            gradient[above].sub_(rest[: len(gradient[above])])
            gradient[here].addcmul_(torch.bmm(rest, weight), slope[here])
            self._move("weights", torch.bmm(rest.mT, h[here]), part)
            self._move("biases", rest.sum(1), part)

    def _first(self, gradient: Tensor | None) -> None:
        weight, bias = self._values["first"], self._values["first_bias"]
        rest = torch.addmm(bias, self._x, weight.T).sub_(self._z[0]).mul_(self._pull)
        if gradient is not None:
            gradient.sub_(rest)
        self._move("first", rest.T @ self._x)
        self._move("first_bias", rest.sum(0))

    def _move(self, name: str, gradient: Tensor, part: slice = slice(None)) -> None:
        rprop_(
            self._values[name][part],
            gradient,
            self._previous[name][part],
            self._sizes[name][part],
        )

    def targets(self) -> list[Tensor]:
        """Returns the targets as they are, one for each cut."""
        return list(self._z)

    @torch.no_grad()
    def write(self) -> None:
        """Brings the weights into the model."""
        first, *hidden, last = self._form.layers
        for layer, name in ((first, "first"), (last, "last")):
            layer.weight.copy_(self._values[name])
            layer.bias.copy_(self._values[f"{name}_bias"])
        for number, layer in enumerate(hidden):
            layer.weight.copy_(self._values["weights"][number])
            layer.bias.copy_(self._values["biases"][number])

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next step needs."""
        return {
            "values": self._values,
            "previous": self._previous,
            "sizes": self._sizes,
            "done": self.done,
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what ``state_dict`` gave."""
        for own, given in (
            (self._values, state["values"]),
            (self._previous, state["previous"]),
            (self._sizes, state["sizes"]),
        ):
            for name, tensor in own.items():
                tensor.copy_(given[name])
        self.done = int(state["done"])
