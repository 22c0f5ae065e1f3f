"""The network that the three-step algorithm trains: one hidden layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vgaudit.errors import BadConfig
from vgaudit.nn import PiecewiseLinear


class OneHidden(nn.Module):
    """y = output(activation(hidden(x))), plus bypass(x) where there is one.

    Args:
        hidden: from n inputs to K units.
        activation: per unit, or one for all; not the residual form.
        output: from K units to M outputs.
        bypass: from the inputs straight to the outputs, without bias; the paper's
            network has it, most of PyTorch's do not.

    Shape:
        ``[N, n]`` to ``[N, M]``.

    Raises:
        BadConfig: the parts do not fit together.
    """

    def __init__(
        self,
        hidden: nn.Linear,
        activation: PiecewiseLinear,
        output: nn.Linear,
        bypass: nn.Linear | None = None,
    ) -> None:
        super().__init__()
        _check(hidden, activation, output, bypass)
        self.hidden, self.activation = hidden, activation
        self.output, self.bypass = output, bypass

    def forward(self, x: Tensor) -> Tensor:
        """Returns the outputs for ``x``."""
        y: Tensor = self.output(self.activation(self.hidden(x)))
        return y if self.bypass is None else y + self.bypass(x)


def start(
    x: Tensor,
    outputs: int,
    *,
    units: int = 20,
    activation: PiecewiseLinear | None = None,
    generator: torch.Generator | None = None,
) -> OneHidden:
    """Returns a network to start from, with bypass, in the type of ``x``.

    Hidden weights are Gaussian; "net control" then shifts and scales them so that
    every unit's net has mean 0.5 and standard deviation 1 over ``x``. Output weights
    are 0: the algorithm begins with their least-squares solution.

    Args:
        x: inputs, ``[N, n]``, in float32 or float64.
        outputs: M.
        units: K.
        activation: starts from ReLU, per unit, with 9 hinges from −4 to 4, unless
            another is given.
        generator: of the Gaussian weights.

    Source: net control as in the Matlab code of AdAct's group (adaptive MOLF).
    """
    raw = torch.randn(units, x.shape[1], generator=generator, dtype=torch.float64)
    weight = raw.to(x)
    net = x @ weight.t()
    spread = net.std(0, correction=0)
    weight = weight / torch.where(spread > 0, spread, 1.0).unsqueeze(1)
    parts = [nn.Linear(x.shape[1], units), nn.Linear(units, outputs)]
    hidden, output = (part.to(x) for part in parts)
    bypass = nn.Linear(x.shape[1], outputs, bias=False).to(x)
    with torch.no_grad():
        hidden.weight.copy_(weight)
        hidden.bias.copy_(0.5 - (x @ weight.t()).mean(0))
        for parameter in (output.weight, output.bias, bypass.weight):
            parameter.zero_()
    activation = activation or PiecewiseLinear(units)
    return OneHidden(hidden, activation.to(x), output, bypass)


def _check(
    hidden: nn.Linear,
    activation: PiecewiseLinear,
    output: nn.Linear,
    bypass: nn.Linear | None,
) -> None:
    if activation.base is not None:
        raise BadConfig(
            "the three-step algorithm on a residual PiecewiseLinear",
            hint="start the activation from another shape, such as 'preserve'",
        )
    units = hidden.out_features
    if activation.num_channels not in (None, units) or output.in_features != units:
        raise BadConfig(
            f"{units} hidden units, {activation.num_channels} activations, "
            f"{output.in_features} inputs of the output layer",
            hint="give one activation per hidden unit, or one for all",
        )
    expected = (hidden.in_features, output.out_features)
    if bypass is not None and (
        (bypass.in_features, bypass.out_features) != expected or bypass.bias is not None
    ):
        raise BadConfig(
            f"a bypass from {bypass.in_features} to {bypass.out_features} features",
            hint=f"give one from {expected[0]} to {expected[1]} without bias",
        )
