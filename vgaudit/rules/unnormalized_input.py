"""VG503: inputs far from zero mean and unit variance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding
from vgaudit.flow import Audit
from vgaudit.rules.examples import chain, fed, having
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.wording import number


def _input(mean: float, std: float, *, kind: str = "real") -> Audit:
    return fed(having(chain(), input_mean=mean, input_std=std), kind=kind)


@dataclass(frozen=True, slots=True)
class UnnormalizedInput(Rule):
    """The inputs are far from zero mean and unit variance.

    What it measures:
        Mean and standard deviation of the first floating-point input, over all
        batches of real data.

    Why it matters:
        Raw pixels (0 to 255) saturate the first bounded activation, make the first
        weight's gradient hundreds of times the others', and leave the curvature of
        the loss to the mean. Inputs that hardly vary carry no signal.

    False alarms:
        Models that normalise inside; inputs whose scale is part of the task.

    Treatments:
        Subtract the mean and divide by the standard deviation of the training set,
        the same at inference.

    References:
        LeCun, Bottou, Orr and Müller 1998, “Efficient BackProp”, §4.3.
    """

    mean: float = threshold(10.0, "absolute mean of the input; above it")
    std_high: float = threshold(50.0, "standard deviation of the input; above it")
    std_low: float = threshold(1e-3, "standard deviation of the input; below it")

    code: ClassVar[str] = "VG503"
    name: ClassVar[str] = "unnormalized-input"
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example("raw pixels", _input(120.0, 70.0), "warning"),
        Example("inputs that hardly vary", _input(0.0, 1e-5), "warning"),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("normalised inputs", _input(0.1, 1.2)),
        Example("pixels from 0 to 1", _input(0.13, 0.31)),
        Example("synthetic inputs are ours", _input(120.0, 70.0, kind="synthetic")),
        Example("token ids have no scale", fed(chain(), kind="real")),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for the input."""
        mean, std = audit.flow.input_mean, audit.flow.input_std
        if audit.data.kind != "real" or mean is None or std is None:
            return
        for value, limit, beyond in (
            (mean, self.mean, abs(mean) > self.mean),
            (std, self.std_high, std > self.std_high),
            (std, self.std_low, std < self.std_low),
        ):
            if beyond:
                yield Finding(
                    code=self.code,
                    name=self.name,
                    level="warning",
                    message=(
                        f"the input has mean {number(mean)} and standard deviation "
                        f"{number(std)} (limit {number(limit)})"
                    ),
                    value=value,
                    limit=limit,
                    fix=self.advice(
                        "scale inputs to zero mean and unit variance",
                        _effect(mean, std),
                    ),
                )
                return


def _effect(mean: float, std: float) -> str:
    """Returns what such an input does to the first layer."""
    if abs(mean) > std > 0:
        away = f"{number(abs(mean) / std)} deviations from 0"
        return f"its mean lies {away}: the first layer sees little else"
    return (
        f"the first layer's signal is {number(std)} times what its initialisation is "
        "made for, and so is its gradient"
    )
