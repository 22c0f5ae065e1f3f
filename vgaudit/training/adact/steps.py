"""The three steps of AdAct: hidden weights, hinge values, output weights.

N patterns, n inputs, K hidden units, M outputs, H hinges; E = T − Y are the errors and
the loss is their mean square per pattern, ``(1/N) Σ E²``. All gradients here are
*negative* gradients, as in the paper: adding them descends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vgaudit.training.adact.interpolation import Interpolation
from vgaudit.training.adact.least_squares import solve
from vgaudit.training.adact.network import OneHidden
from vgaudit.training.adact.patterns import Patterns, with_constant


@dataclass(frozen=True, slots=True)
class Block:
    """What one block of patterns does to the network.

    Attributes:
        x: inputs, ``[N, n + 1]`` with a constant in front, ``[N, n]`` if the hidden
            layer has no bias.
        place: where the nets lie between the hinges.
        outputs: of the hidden units, O, ``[N, K]``.
        slopes: of the hidden units, O′, ``[N, K]``.
        errors: E, ``[N, M]``.
        arriving: E · W_oh, ``[N, K]``: half the negative gradient by O.
    """

    x: Tensor
    place: Interpolation
    outputs: Tensor
    slopes: Tensor
    errors: Tensor
    arriving: Tensor


@dataclass(frozen=True, slots=True)
class FactorSystem:
    """Newton's system for one learning factor per hidden unit: ``hessian · z = slope``.

    Attributes:
        direction: negative gradient by the hidden weights, ``[K, n + 1]``.
        slope: negative derivative of the loss by z at 0, ``[K]``.
        hessian: second derivative, ``[K, K]``; positive semidefinite, being the
            elementwise product of two Gram matrices (Schur). Exact while no net
            crosses a hinge.
    """

    direction: Tensor
    slope: Tensor
    hessian: Tensor


@torch.no_grad()
def loss(net: OneHidden, data: Patterns) -> float:
    """Returns the mean over patterns of the squared errors' sum."""
    total = sum(
        float((target - net(x)).double().square().sum())
        for x, target in data.blocks(net.output.weight)
    )
    return total / len(data)


@torch.no_grad()
def factor_system(net: OneHidden, data: Patterns) -> FactorSystem:
    """Returns the system of MOLF (multiple optimal learning factors)."""
    units, inputs = net.hidden.weight.shape
    constant = net.hidden.bias is not None
    direction = net.hidden.weight.new_zeros(units, inputs + constant)
    for block in run(net, data):
        direction += (block.arriving * block.slopes).t() @ block.x
    direction *= 2 / len(data)
    slope = direction.new_zeros(units)
    gram = direction.new_zeros(units, units)
    for block in run(net, data):
        moved = block.slopes * (block.x @ direction.t())
        slope += (moved * block.arriving).sum(0)
        gram += moved.t() @ moved
    weight = net.output.weight
    scale = 2 / len(data)
    return FactorSystem(direction, scale * slope, scale * gram * (weight.t() @ weight))


@torch.no_grad()
def move_hidden(net: OneHidden, direction: Tensor, factors: Tensor) -> None:
    """Adds each unit's factor times its direction to the hidden weights."""
    step = factors.unsqueeze(1) * direction
    if net.hidden.bias is not None:
        net.hidden.bias.add_(step[:, 0])
        step = step[:, 1:]
    net.hidden.weight.add_(step)


@torch.no_grad()
def hinge_direction(net: OneHidden, data: Patterns) -> Tensor:
    """Returns the negative gradient by the hinge values, in their shape."""
    total = sum(block.place.spread(2 * block.arriving) for block in run(net, data))
    assert isinstance(total, Tensor)
    if net.activation.num_channels is None:
        total = total.sum(0, keepdim=True)
    return total / len(data)


@torch.no_grad()
def learning_factor(net: OneHidden, data: Patterns, direction: Tensor) -> float:
    """Returns the z with the least loss at hinge values + z · direction.

    The outputs are linear in the hinge values, so the loss is exactly quadratic in
    z. The paper prints z = ∂E/∂z, which is cut short.
    """
    along = across = 0.0
    for block in run(net, data):
        change = block.place.values(direction) @ net.output.weight.t()
        along += float((block.errors * change).sum())
        across += float(change.square().sum())
    return along / across if across > 0 else 0.0


@torch.no_grad()
def output_weights(net: OneHidden, data: Patterns) -> Tensor:
    """Returns the least-squares weights of the output layer, ``[features, M]``.

    The features are a constant if the output layer has a bias, the inputs if there
    is a bypass, and the hidden outputs (output weight optimization, OWO).
    """
    gram: Tensor | float = 0.0
    cross: Tensor | float = 0.0
    for x, target in data.blocks(net.output.weight):
        features = basis(net, x)
        gram = gram + features.t() @ features
        cross = cross + features.t() @ target
    assert isinstance(gram, Tensor)
    assert isinstance(cross, Tensor)
    return solve(gram / len(data), cross / len(data))


def basis(net: OneHidden, x: Tensor) -> Tensor:
    """Returns what the output layer weighs, ``[N, features]``."""
    parts = [] if net.bypass is None else [x]
    parts.append(net.activation(net.hidden(x)))
    features = torch.cat(parts, 1)
    return features if net.output.bias is None else with_constant(features)


@torch.no_grad()
def set_output(net: OneHidden, weights: Tensor) -> None:
    """Writes ``weights``, ``[features, M]``, into the output layer and the bypass."""
    rows = weights.t()
    if net.output.bias is not None:
        net.output.bias.copy_(rows[:, 0])
        rows = rows[:, 1:]
    if net.bypass is not None:
        inputs = net.bypass.in_features
        net.bypass.weight.copy_(rows[:, :inputs])
        rows = rows[:, inputs:]
    net.output.weight.copy_(rows)


def run(net: OneHidden, data: Patterns) -> Iterator[Block]:
    """Yields what the network does with each block of patterns."""
    for x, target in data.blocks(net.output.weight):
        place = Interpolation.at(net.hidden(x), net.activation)
        outputs = place.values(net.activation.values)
        y = net.output(outputs)
        errors = target - (y if net.bypass is None else y + net.bypass(x))
        yield Block(
            x=x if net.hidden.bias is None else with_constant(x),
            place=place,
            outputs=outputs,
            slopes=place.slopes(net.activation.values),
            errors=errors,
            arriving=errors @ net.output.weight,
        )
