"""Auto-rotated Linear and (transposed) convolution layers."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vgaudit.errors import BadConfig, CannotRewrite
from vgaudit.nn.denominator import (
    Denominator,
    Part,
    compute,
    fixed_point,
    floor_of,
    ratio,
)
from vgaudit.nn.inputs import Inputs
from vgaudit.nn.rotation import AutoRotation, full_precision, widen


class WeightRotation(AutoRotation):
    """Layers with one ``weight`` and one ``bias``."""

    weight: Tensor
    bias: Tensor | None

    def rotated(self) -> dict[str, Tensor]:
        """Returns ρ·weight and ρ·bias."""
        rho = self.rho().to(self.weight.dtype)
        weights = {"weight": self.multiply(rho)}
        if self.bias is not None:
            weights["bias"] = rho * self.bias
        return weights

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the plain layer's output with ρ·weight and ρ·bias."""
        return self.run_plain(self.rotated(), *args, **kwargs)

    def rows(self) -> Tensor:
        """Returns the weight as ``[units, inputs of a unit, taps]``."""
        raise NotImplementedError

    def multiply(self, rho: Tensor) -> Tensor:
        """Returns the weight with every unit multiplied by its ρ."""
        raise NotImplementedError

    def units(self) -> torch.Size:
        """Returns the shape of D, ``[units]``."""
        return self.rows().shape[:1]

    def compute_denominator(self) -> Tensor:
        """Returns D per unit."""
        part = self.part(widen(self.rows()))
        how = self.rotation
        return compute([part], self.wide_bias(), how.denominator, how.k)

    def part(self, rows: Tensor) -> Part:
        """Returns ``rows`` with the inputs they multiply."""
        return Part(
            rows, self._per_unit(self.ar_center), self._per_unit(self.ar_spread)
        )

    def wide_bias(self) -> Tensor | None:
        """Returns the bias in float32 at least."""
        return None if self.bias is None else widen(self.bias)

    def _per_unit(self, inputs: Tensor) -> Tensor:
        """Returns a scalar, or ``[C_in]`` as ``[1 or units, inputs of a unit, 1]``."""
        return inputs if inputs.dim() == 0 else inputs.view(1, -1, 1)

    def _fit(self, inputs: Inputs, channels: int) -> Inputs:
        if inputs.center.dim() == 1 and inputs.center.shape[0] != channels:
            raise BadConfig(
                f"inputs for {len(inputs.center)} channels, the layer has {channels}",
                hint="give one entry per input channel, or scalars",
            )
        return inputs


class LinearRotation(WeightRotation):
    """Auto-rotation of ``Linear``."""

    def rows(self) -> Tensor:
        """Returns the weight as ``[out, in, 1]``."""
        return self.weight.unsqueeze(-1)

    def multiply(self, rho: Tensor) -> Tensor:
        """Returns ρ·weight."""
        return rho.unsqueeze(1) * self.weight

    def fit_inputs(self, inputs: Inputs, how: Denominator) -> Inputs:
        """Returns the inputs; they are as many as the layer's or scalars."""
        return self._fit(inputs, self.weight.shape[1])

    def forward(self, input: Tensor) -> Tensor:
        """Returns (ρ·w)·x + ρ·b, ``[..., out]``."""
        weights = self.rotated()
        return F.linear(input, weights["weight"], weights.get("bias"))


class AutoRotatedLinear(LinearRotation, nn.Linear):  # type: ignore[misc]
    """``nn.Linear`` with auto-rotation; see ``AutoRotation`` for the arguments."""

    plain_class: ClassVar[type[nn.Module]] = nn.Linear


class ColumnRotation(LinearRotation):
    """Auto-rotation of linear layers whose units are columns, ``weight [in, out]``.

    The ``Conv1D`` of transformers, in GPT-2 and its kin, is one. Its own forward runs
    with the rotated weights.
    """

    def rows(self) -> Tensor:
        """Returns the weight as ``[out, in, 1]``."""
        return self.weight.t().unsqueeze(-1)

    def multiply(self, rho: Tensor) -> Tensor:
        """Returns ρ·weight."""
        return rho * self.weight

    def fit_inputs(self, inputs: Inputs, how: Denominator) -> Inputs:
        """Returns the inputs; they are as many as the layer's or scalars."""
        return self._fit(inputs, self.weight.shape[0])

    forward = WeightRotation.forward


class ConvRotation(WeightRotation):
    """Auto-rotation of convolutions; grouped and depthwise ones need no more."""

    groups: int
    in_channels: int

    def rows(self) -> Tensor:
        """Returns the weight as ``[out, in / groups, taps]``."""
        return self.weight.flatten(2)

    def multiply(self, rho: Tensor) -> Tensor:
        """Returns ρ·weight."""
        return rho.view(-1, *[1] * (self.weight.dim() - 1)) * self.weight

    def fit_inputs(self, inputs: Inputs, how: Denominator) -> Inputs:
        """Returns the inputs, with 0 in their range where a bound must hold for it.

        Raises:
            BadConfig: another number of channels.
            CannotRewrite: ``border="reference"`` under a forward of the user's own.
        """
        pads = self._pads_zeros()
        own = type(self).forward is not ConvRotation.forward
        if how.border == "reference" and pads and own:
            raise CannotRewrite(
                f"border='reference' of {self.plain_class.__name__}, which has its "
                "own forward",
                hint="use border='interior'",
            )
        inputs = self._fit(inputs, self.in_channels)
        return inputs.hull() if how.kind == "interval" and pads else inputs

    def forward(self, input: Tensor) -> Tensor:
        """Returns the convolution with ρ·w and ρ·b, or as the authors at borders."""
        if self.border_matters():
            y = self.convolve(input, self.weight, self.bias)
            spatial = input.shape[-(self.weight.dim() - 2) :]
            return y * self._border_factor(spatial).to(y.dtype)
        weights = self.rotated()
        return self.convolve(input, weights["weight"], weights.get("bias"))

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Returns the plain layer's convolution."""
        result: Tensor = cast(Any, self)._conv_forward(x, weight, bias)
        return result

    def border_matters(self) -> bool:
        """Tells whether D is asked for as the authors compute it, and varies."""
        return self.rotation.denominator.border == "reference" and self._pads_zeros()

    def _pads_zeros(self) -> bool:
        layer = cast(Any, self)
        if isinstance(layer.padding, str):
            return layer.padding != "valid" and layer.padding_mode == "zeros"
        return any(layer.padding) and layer.padding_mode == "zeros"

    def _per_unit(self, inputs: Tensor) -> Tensor:
        if inputs.dim() == 0 or self.groups == 1:
            return super()._per_unit(inputs)
        units = self.rows().shape[0] // self.groups
        return inputs.view(self.groups, -1, 1).repeat_interleave(units, 0)

    def _border_factor(self, spatial: torch.Size) -> Tensor:
        """Returns ρ as a map: D from one sample that is x_Q everywhere."""
        with full_precision(self.weight.device):
            how, ones = self.rotation.denominator, [1] * len(spatial)
            weight, bias = widen(self.weight), self.wide_bias()
            point = fixed_point(self.ar_center, self.ar_spread, how)
            x_q = weight.new_ones(1, self.in_channels, *spatial)
            d = self.convolve(point.view(-1, *ones) * x_q, weight, bias).abs()[0]
            floor = floor_of(
                [self.part(widen(self.rows()))], bias, how, self.rotation.k
            )
            d = torch.maximum(d, floor.view(-1, *ones)) + how.epsilon
            return ratio(self.limit.view(-1, *ones), d)


class AutoRotatedConv1d(ConvRotation, nn.Conv1d):
    """``nn.Conv1d`` with auto-rotation; see ``AutoRotation`` for the arguments."""

    plain_class: ClassVar[type[nn.Module]] = nn.Conv1d


class AutoRotatedConv2d(ConvRotation, nn.Conv2d):
    """``nn.Conv2d`` with auto-rotation; see ``AutoRotation`` for the arguments."""

    plain_class: ClassVar[type[nn.Module]] = nn.Conv2d


class AutoRotatedConv3d(ConvRotation, nn.Conv3d):
    """``nn.Conv3d`` with auto-rotation; see ``AutoRotation`` for the arguments."""

    plain_class: ClassVar[type[nn.Module]] = nn.Conv3d
