"""Auto-rotated transposed convolutions."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vgaudit.errors import CannotRewrite
from vgaudit.nn.denominator import Denominator, compute
from vgaudit.nn.inputs import Inputs
from vgaudit.nn.rotated import ConvRotation
from vgaudit.nn.rotation import widen

_TRANSPOSED: tuple[Any, ...] = (
    F.conv_transpose1d,
    F.conv_transpose2d,
    F.conv_transpose3d,
)


class TransposedConvRotation(ConvRotation):
    """Auto-rotation of transposed convolutions.

    With stride s, an output element meets only every s-th tap, in s^d phases
    that differ. D is the largest of theirs, so that one factor per channel
    serves them all.
    """

    stride: tuple[int, ...]
    dilation: tuple[int, ...]

    def rows(self) -> Tensor:
        """Returns the weight as ``[out, in / groups, taps]``."""
        taps = self._by_group(self.weight.flatten(2))
        return taps.transpose(1, 2).flatten(0, 1)

    def multiply(self, rho: Tensor) -> Tensor:
        """Returns ρ·weight."""
        factor = rho.view(self.groups, 1, -1, *[1] * (self.weight.dim() - 2))
        return (factor * self._by_group(self.weight)).flatten(0, 1)

    def _by_group(self, weight: Tensor) -> Tensor:
        """Returns ``[in, …]`` as ``[groups, in / groups, …]``."""
        return weight.reshape(self.groups, -1, *weight.shape[1:])

    def compute_denominator(self) -> Tensor:
        """Returns the largest D of all phases, per unit."""
        rows, bias = widen(self.rows()), self.wide_bias()
        how, k = self.rotation.denominator, self.rotation.k
        phases = [
            compute([self.part(rows[:, :, taps])], bias, how, k)
            for taps in self.phases()
        ]
        return phases[0] if len(phases) == 1 else torch.stack(phases).amax(0)

    def phases(self) -> list[list[int]]:
        """Returns the taps that meet at each kind of output element."""
        sizes, steps = (
            self.weight.shape[2:],
            zip(self.stride, self.dilation, strict=True),
        )
        axes = []
        for size, (stride, dilation) in zip(sizes, steps, strict=True):
            met: list[list[int]] = [[] for _ in range(stride)]
            for tap in range(size):
                met[tap * dilation % stride].append(tap)
            axes.append(met)
        places = torch.arange(sizes.numel()).view(sizes)
        return [
            [int(places[tap]) for tap in itertools.product(*phase)]
            for phase in itertools.product(*axes)
        ]

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Returns the transposed convolution with ρ·w and ρ·b."""
        weights, layer = self.rotated(), cast(Any, self)
        dims = self.weight.dim() - 2
        padding = layer._output_padding(
            input,
            output_size,
            layer.stride,
            layer.padding,
            layer.kernel_size,
            dims,
            layer.dilation,
        )
        result: Tensor = _TRANSPOSED[dims - 1](
            input,
            weights["weight"],
            weights.get("bias"),
            layer.stride,
            layer.padding,
            padding,
            layer.groups,
            layer.dilation,
        )
        return result

    def fit_inputs(self, inputs: Inputs, how: Denominator) -> Inputs:
        """Returns the inputs, with 0 in their range for a bound.

        Raises:
            BadConfig: another number of channels.
            CannotRewrite: ``border="reference"``, which no source defines here.
        """
        if how.border == "reference":
            raise CannotRewrite(
                "border='reference' of a transposed convolution",
                hint="use border='interior'",
            )
        return super().fit_inputs(inputs, how)

    def _pads_zeros(self) -> bool:
        # Near the border an output element meets fewer taps, as if of zeros.
        return True


class AutoRotatedConvTranspose1d(TransposedConvRotation, nn.ConvTranspose1d):
    """``nn.ConvTranspose1d`` with auto-rotation; see ``AutoRotation``."""

    plain_class: ClassVar[type[nn.Module]] = nn.ConvTranspose1d


class AutoRotatedConvTranspose2d(TransposedConvRotation, nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` with auto-rotation; see ``AutoRotation``."""

    plain_class: ClassVar[type[nn.Module]] = nn.ConvTranspose2d


class AutoRotatedConvTranspose3d(TransposedConvRotation, nn.ConvTranspose3d):
    """``nn.ConvTranspose3d`` with auto-rotation; see ``AutoRotation``."""

    plain_class: ClassVar[type[nn.Module]] = nn.ConvTranspose3d
