"""What ``scan --deep`` measures beside the transport of the gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vgaudit.facts import NotMeasured, Source
from vgaudit.flow.exponents import ParameterPrecision


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionFlow:
    """One call of attention, per head.

    Attributes:
        layer: path of the module that calls it, with ``call 2`` for further calls.
        source: the line that called it, where known.
        queries, keys: lengths of both sequences.
        entropy: for each head, the mean over samples and queries of
            entropy / log n, where n is the number of keys that the query sees;
            1 is even attention, 0 is attention to one key.
        collapsed: for each head, the share of queries below 0.05.
        largest_logit: for each head, the largest |q·k|·scale of a visible key; NaN
            where only the probabilities were at hand.
    """

    layer: str
    source: Source | None
    queries: int
    keys: int
    entropy: tuple[float, ...]
    collapsed: tuple[float, ...]
    largest_logit: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPoint:
    """The forward signal at one place of the trunk.

    Attributes:
        layer: path of the module whose output it is.
        size: root mean square of its values.
        variation: ‖X − mean over samples‖ / ‖X‖; near 0 all inputs look alike.
        tokens: the same over the tokens of one sample, ‖X − mean over tokens‖ / ‖X‖;
            near 0 the stream has collapsed to rank one. None without tokens.
        rank: participation ratio (Σσ²)² / Σσ⁴ of the tokens (else the samples):
            how many directions carry the signal.
    """

    layer: str
    size: float
    variation: float | None
    tokens: float | None
    rank: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanFieldLayer:
    """Mean-field theory of one step of the trunk, nearest the input first.

    Attributes:
        layer: path of the layer, or name of the operation.
        kind: the activation, or the kind of operation: ``weights``,
            ``normalization``, ``pooling``, ``merge`` …
        chi: the predicted factor on ‖δ‖² across it, from the actual weights and the
            measured statistics; for a weight with the activation below it, their
            product is χ₁.
        chi_free: the same without data: the statistics too come from the theory;
            None where it does not reach.
        predicted: decades at the step's input side, relative to the network's
            output, as ``TrunkStep.attenuation``.
        measured: the same as measured on this batch; None where it was not.
    """

    layer: str
    kind: str
    chi: float
    chi_free: float | None
    predicted: float
    measured: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TheoryFlow:
    """Mean-field prediction beside measurement, along the trunk.

    Attributes:
        layers: one for each trunk step that the theory covers, input first.
        chi: χ₁: the mean factor on ‖δ‖² of one weight layer with all that belongs
            to it (geometric mean); NaN with fewer than two weight layers.
        depth_scale: ξ = −1 / ln χ₁ in weight layers: how many the gradient crosses
            until ‖δ‖² has fallen (χ₁ < 1) or grown (χ₁ > 1: negative) by e; infinite
            at χ₁ = 1.
        predicted: decades at the deepest weight layer covered.
        predicted_free: the same without data; None where it does not reach there.
        measured: decades measured at the same place, in the same backward pass.
        spread: one standard deviation of the prediction in decades: what nets of
            this width and depth differ by (finite width).
        covered: trunk steps with a prediction. steps: all of them.
        until: the operation at which the theory ends; empty if it covers all.
    """

    layers: tuple[MeanFieldLayer, ...]
    chi: float
    depth_scale: float
    predicted: float
    predicted_free: float | None
    measured: float
    spread: float
    covered: int
    steps: int
    until: str = ""

    @property
    def disagreement(self) -> float:
        """Decades between prediction and measurement."""
        return abs(self.predicted - self.measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class JacobianFlow:
    """Singular values of one Jacobian: of the whole network, or of a block.

    Attributes:
        layer: path of the block; empty for input to output.
        inputs, outputs: its dimensions.
        mean_square: mean of the squared singular values, ‖J‖_F² / min(dimensions),
            from random cotangents.
        mean_square_error: standard error of it.
        largest: the largest singular value; None where the operations cannot be
            differentiated twice.
        converged: the last steps of the iteration changed ``largest`` by less than
            one part in a thousand.
        spectrum: all singular values, falling, where they are few enough.
    """

    layer: str
    inputs: int
    outputs: int
    mean_square: float
    mean_square_error: float
    largest: float | None
    converged: bool
    spectrum: tuple[float, ...] = ()

    @property
    def condition(self) -> float | None:
        """Largest over smallest singular value, where the whole spectrum is known."""
        if not self.spectrum:
            return None
        low = self.spectrum[-1]
        return self.spectrum[0] / low if low else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseFlow:
    """How much of a parameter's gradient is the same in every batch.

    Attributes:
        name: of the parameter; empty for all of them together.
        batches: how many were compared. batch_size: samples in each.
        signal: |G|², the squared norm of the mean gradient, without the part that
            noise adds to it; 0 where noise alone explains it.
        noise: tr Σ, the variance of one batch's gradient, all elements together.
        snr: signal / noise of one batch.
        noise_scale: batch_size · noise / signal: the batch at which both are equal
            (the simple noise scale); infinite where there is no signal.
    """

    name: str
    batches: int
    batch_size: int
    signal: float
    noise: float
    snr: float
    noise_scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one part of the deep scan cost.

    Attributes:
        part: ``attention``, ``theory``, ``jacobian``, ``precision``, ``noise`` …
        seconds: wall-clock time.
        passes: how many backward passes of the measured batches that equals; NaN
            where no plain pass was timed.
    """

    part: str
    seconds: float
    passes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepFlow:
    """The extra measurements of ``scan --deep``.

    Attributes:
        attention: every call of attention, in forward order.
        stream: the forward signal along the trunk, input first.
        precision: every parameter's gradient and the number formats.
        theory: mean-field theory beside measurement; None where it covers nothing.
        jacobians: input to output first, then each block's.
        noise: per parameter, after one line for all of them; empty without a loss
            or with one batch.
        prices: what each part cost.
        not_measured: parts that could not be measured, with the reason.
    """

    attention: tuple[AttentionFlow, ...] = ()
    stream: tuple[StreamPoint, ...] = ()
    precision: tuple[ParameterPrecision, ...] = ()
    theory: TheoryFlow | None = None
    jacobians: tuple[JacobianFlow, ...] = ()
    noise: tuple[NoiseFlow, ...] = ()
    prices: tuple[Price, ...] = ()
    not_measured: tuple[NotMeasured, ...] = ()
