"""How far the gradient of each parameter reaches down in its number format."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Exponents:
    """How many values have which binary exponent: exact, and additive over batches.

    Attributes:
        lowest: the exponent e of the first count: 2ᵉ ≤ |x| < 2ᵉ⁺¹.
        counts: values with exponent ``lowest``, ``lowest`` + 1, …
        zeros: values that are exactly 0.
        nonfinite: values that are NaN or infinite.
    """

    lowest: int
    counts: tuple[int, ...]
    zeros: int
    nonfinite: int

    @property
    def total(self) -> int:
        """All values, of every kind."""
        return sum(self.counts) + self.zeros + self.nonfinite


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatLoss:
    """What one floating-point format does to a gradient.

    Attributes:
        format: ``float16`` or ``bfloat16``.
        zero: share of elements that are not 0 and become 0 in it.
        subnormal: share that becomes subnormal in it, with fewer digits.
        overflow: share that is finite and becomes infinite in it.
    """

    format: str
    zero: float
    subnormal: float
    overflow: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateFlow:
    """The first step that an optimizer would take on one parameter.

    Attributes:
        optimizer: ``sgd`` or ``adam`` (ε = 1e-8, no momentum before, no decay).
        learning_rate: for which the figures stand.
        ratio: ‖step‖ / ‖weight‖; None for a weight that is 0.
        swallowed: share of the steps that are not 0 and do not change a weight that
            is stored in bfloat16.
        floor: share of elements with 0 < |g| ≤ ε, on which Adam's ε takes half of
            the step or more; 0 for SGD.
    """

    optimizer: str
    learning_rate: float
    ratio: float | None
    swallowed: float
    floor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterPrecision:
    """One parameter's gradient and the number formats, on the measured batches.

    The gradients are absolute: of the loss, or of cotangents of unit variance where
    no loss was given (then only their spread means something, not their place).

    Attributes:
        name: of the parameter.
        elements: gradient elements counted, all batches together.
        exponents: of its gradient.
        formats: what float16 and bfloat16 do to it.
        loss_scale: the smallest power of two by which the loss must be multiplied
            so that float16 turns at most one element in a thousand into 0; 1 where
            none is needed; None where float16 overflows before.
        updates: the first step of SGD and of Adam.
    """

    name: str
    elements: int
    exponents: Exponents
    formats: tuple[FormatLoss, ...]
    loss_scale: float | None
    updates: tuple[UpdateFlow, ...]

    def lost(self, format: str) -> float:
        """Returns the share that becomes 0 in a format; 0 where it is not known."""
        return next((x.zero for x in self.formats if x.format == format), 0.0)

    def update(self, optimizer: str) -> UpdateFlow | None:
        """Returns the first step of an optimizer, where it is known."""
        return next((x for x in self.updates if x.optimizer == optimizer), None)
