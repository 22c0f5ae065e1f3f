"""Every parameter's gradient over the batches: number formats, first steps, noise."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vgaudit.data.batch import Batch
from vgaudit.flow import NoiseFlow, ParameterPrecision, UpdateFlow
from vgaudit.probe import norms
from vgaudit.probe.capture import Recorder
from vgaudit.probe.deep.exponents import ExponentSums
from vgaudit.probe.deep.updates import first_steps
from vgaudit.probe.forward import Setting, forward
from vgaudit.probe.recording import Habits
from vgaudit.probe.step import cotangent


@dataclass(slots=True)
class NoiseSums:
    """Sum of a parameter's gradients, and of their squared norms; merges by adding."""

    batches: int = 0
    total: Tensor | None = None
    squares: float = 0.0

    def add(self, gradient: Tensor) -> None:
        """Adds the gradient of one batch."""
        self.batches += 1
        (size,) = norms.read([norms.norm(gradient)])
        self.squares += size * size
        if self.total is None:
            self.total = gradient.detach().clone()
        else:
            self.total += gradient

    def split(self) -> tuple[float, float]:
        """Returns |G|² without what noise adds to it, and tr Σ of one batch."""
        if self.total is None or self.batches < 2:
            return math.nan, math.nan
        (size,) = norms.read([norms.norm(self.total)])
        mean = (size / self.batches) ** 2
        noise = (self.squares - self.batches * mean) / (self.batches - 1)
        noise = max(noise, 0.0)
        return mean - noise / self.batches, noise


@dataclass(slots=True)
class Gradients:
    """What all batches showed of the parameters' gradients.

    Args:
        setting: the model and its loss.
        batches: those with finite values.
        habits: what the first pass learned of the model.

    Attributes:
        exponents, noise, steps: by the name of the parameter.
        sizes: samples of each batch.
        seconds: what the forward and backward passes alone took.
    """

    setting: Setting
    batches: Sequence[Batch]
    habits: Habits
    exponents: dict[str, ExponentSums] = field(default_factory=dict)
    noise: dict[str, NoiseSums] = field(default_factory=dict)
    steps: dict[str, tuple[UpdateFlow, ...]] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def run(self) -> None:
        """Runs forward and backward on every batch."""
        for number, batch in enumerate(self.batches):
            started = time.perf_counter()
            self._backward(batch, number)
            self.seconds += time.perf_counter() - started
            self.sizes.append(batch.size)
            for name, parameter in self.setting.twin.parameters.items():
                if parameter.grad is not None and parameter.numel():
                    self._take(name, parameter, parameter.grad.to_dense())
        self.setting.twin.zero_grad()

    def _backward(self, batch: Batch, number: int) -> None:
        setting = self.setting
        setting.twin.zero_grad()
        recorder = Recorder(
            setting.model, samples=batch.size, habits=self.habits, only="structure"
        )
        with torch.enable_grad(), recorder:
            outputs, loss = forward(setting, batch, recorder)
            recorder.backward = True
            if loss is not None:
                torch.autograd.backward(loss)
                return
            vectors = [
                cotangent(output, setting.seed, number, place)
                for place, output in enumerate(outputs)
            ]
            torch.autograd.backward(outputs, vectors)

    def _take(self, name: str, parameter: Tensor, gradient: Tensor) -> None:
        self.exponents.setdefault(name, ExponentSums()).add(_real(gradient))
        if self.setting.loss is not None:
            self.noise.setdefault(name, NoiseSums()).add(gradient)
        if name not in self.steps:
            self.steps[name] = first_steps(_real(parameter.detach()), _real(gradient))

    def precision(self) -> tuple[ParameterPrecision, ...]:
        """Returns the figures of every parameter that got a gradient."""
        return tuple(
            ParameterPrecision(
                name=name,
                elements=sums.total,
                exponents=sums.exponents(),
                formats=sums.losses(),
                loss_scale=sums.loss_scale(),
                updates=self.steps[name],
            )
            for name, sums in self.exponents.items()
        )

    def noises(self) -> tuple[NoiseFlow, ...]:
        """Returns signal and noise, all parameters together first.

        Empty without a loss, with one batch, and where batches differ in size.
        """
        usual = self.sizes[:1]
        if (
            self.setting.loss is None
            or len(self.sizes) < 2
            or set(self.sizes) != {*usual}
        ):
            return ()
        splits = {
            name: sums.split()
            for name, sums in self.noise.items()
            if sums.batches == len(self.sizes)
        }
        whole = tuple(math.fsum(parts) for parts in zip(*splits.values(), strict=True))
        if not whole or not math.isfinite(sum(whole)):
            return ()
        named = [("", (whole[0], whole[1])), *splits.items()]
        return tuple(self._noise(name, *split) for name, split in named)

    def _noise(self, name: str, signal: float, noise: float) -> NoiseFlow:
        signal, size = max(signal, 0.0), self.sizes[0]
        return NoiseFlow(
            name=name,
            batches=len(self.sizes),
            batch_size=size,
            signal=signal,
            noise=noise,
            snr=signal / noise if noise else math.inf if signal else math.nan,
            noise_scale=size * noise / signal if signal else math.inf,
        )


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
