"""Finds the one hidden layer in a model, and proves that nothing else computes."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch
from vgaudit.data.losses.outputs import main_output
from vgaudit.errors import CannotRewrite
from vgaudit.nn import PiecewiseLinear
from vgaudit.plain import kind_of
from vgaudit.training.adact.network import OneHidden

HINT = "--solver gradient trains models of any depth"
AGREE = 1e-3


@dataclass(frozen=True, slots=True)
class Parts:
    """The three parts of a model that the algorithm trains; they are the model's own.

    Attributes:
        hidden: the first linear layer.
        activation: between the two.
        output: the last linear layer.
    """

    hidden: nn.Linear
    activation: PiecewiseLinear
    output: nn.Linear

    def network(self) -> OneHidden:
        """Returns a copy in float64."""
        net = OneHidden(self.hidden, self.activation, self.output)
        return copy.deepcopy(net).double()

    @torch.no_grad()
    def take(self, net: OneHidden) -> None:
        """Writes what ``net`` has learned into the model, in its own type."""
        self.hidden.load_state_dict(net.hidden.state_dict())
        self.activation.values.copy_(net.activation.values)
        self.output.load_state_dict(net.output.state_dict())


def linear_layers(model: nn.Module) -> list[nn.Linear]:
    """Returns the hidden and the output layer.

    Raises:
        CannotRewrite: other layers have parameters, or there are not exactly two.
    """
    # A subclass may compute with its weights in another way.
    found = [m for m in model.modules() if type(m) is nn.Linear]
    known = {id(p) for m in found for p in m.parameters()}
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, PiecewiseLinear) or not own:
            continue
        if any(id(p) not in known for p in own):
            raise CannotRewrite(
                f"'{name or type(module).__name__}' is {kind_of(module)}: the "
                "classic solver trains one hidden linear layer",
                hint=HINT,
            )
    if len(found) != 2:
        raise CannotRewrite(
            f"{len(found)} linear layers: the classic solver needs a hidden one and an "
            "output",
            hint=HINT,
        )
    return found


def parts_of(model: nn.Module, batch: Batch) -> Parts:
    """Returns the parts of a model that is nothing but its one hidden layer.

    What comes before that layer may be anything without parameters. On ``batch`` the
    parts alone must give what the model gives, in eval mode.

    Raises:
        CannotRewrite: the model is more than that, or a part of it is frozen.
    """
    hidden, output = linear_layers(model)
    activations = [m for m in model.modules() if isinstance(m, PiecewiseLinear)]
    if len(activations) != 1:
        raise CannotRewrite(
            f"{len(activations)} piecewise linear activations: the classic solver "
            "needs exactly one",
            hint="convert the model's activation with `vgaudit convert --to adact`",
        )
    if any(not parameter.requires_grad for parameter in model.parameters()):
        raise CannotRewrite("parameters that are frozen", hint=HINT)
    parts = Parts(hidden, activations[0], output)
    inputs, outputs = features(model, parts, batch)
    alone = parts.network()(inputs.double()).detach()
    if outputs.shape != alone.shape or not _agree(outputs.double(), alone):
        raise CannotRewrite(
            "the model computes more than linear, activation, linear",
            hint=HINT,
        )
    return parts


@torch.no_grad()
def features(model: nn.Module, parts: Parts, batch: Batch) -> tuple[Tensor, Tensor]:
    """Returns what reaches the hidden layer, ``[N, n]``, and the outputs, ``[N, M]``.

    In eval mode; the mode is restored.

    Raises:
        CannotRewrite: the hidden layer is not called once, on samples by features.
    """
    seen: list[Tensor] = []
    handle = parts.hidden.register_forward_pre_hook(
        lambda _module, args: seen.append(args[0])
    )
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        output = main_output(model(*batch.args, **batch.kwargs))
    finally:
        handle.remove()
        for module, mode in training.items():
            module.training = mode
    shapes = [tuple(x.shape) for x in seen]
    if len(seen) != 1 or seen[0].dim() != 2 or output is None:
        raise CannotRewrite(
            f"the hidden layer is called on {shapes or 'nothing'}, not once on "
            "samples by features",
            hint=HINT,
        )
    return seen[0], output


def _agree(given: Tensor, expected: Tensor) -> bool:
    scale = float(expected.abs().max())
    return float((given - expected).abs().max()) <= AGREE * scale + 1e-6
