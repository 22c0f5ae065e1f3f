"""What a conversion is asked and what it did: plain values, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vgaudit.flow import Audit, Source

Treatment = Literal["ar", "adact", "rescale", "plain"]
TREATMENTS: tuple[Treatment, ...] = ("ar", "adact", "rescale", "plain")
Start = Literal["auto", "preserve", "unit-slope", "relu", "leaky", "tanh", "residual"]
LimitSource = Literal["calibrated", "value", "normal", "uniform"]
LimitType = Literal["auto-indep", "auto-shared", "frozen-indep", "frozen-shared"]
DenominatorKind = Literal["moments", "interval", "xq-min", "xq-max"]
Border = Literal["interior", "reference"]
Form = Literal["module", "graph-module"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOptions:
    """How to convert.

    Attributes:
        to: the treatment.
        layers, skip: globs on layer or activation paths; no glob takes all.
        preserve: keep the function; the conversion fails where it cannot.
        limit: L of ``ar`` and the size that ``rescale`` gives pre-activations
            (99 % quantile of |z|); None takes the activation's default.
        limit_from: of ``ar``. ``calibrated``: L so that the 99 % quantile of |z| is
            ``limit``. ``value``: L is ``limit``, as published. ``normal``,
            ``uniform``: L is drawn, N(5, 1) or U(2, 8). None is ``calibrated``, but
            ``value`` with ``border="reference"``.
        limit_type: of ``ar``: L trained (auto) or not, per unit or per layer.
        denominator: of ``ar``: what D is; see ``vgaudit.nn.Denominator``.
        border: of ``ar``: ``reference`` computes D along zero padding as the authors
            do; such layers are not folded.
        fold: write ρ into the weights after ``ar``; None where it can be done.
        centre: subtract each unit's mean; None where the model is stuck.
        refit: after ``ar`` and ``rescale`` of a layer, fit the next Linear layer so
            that the function stays nearly the same; None where nothing is centred
            and the activation saturates.
        ar_axis: ``NAME=-1`` or ``NAME=-2``: which dimension of a parameter that is
            used by hand runs over the units, from the end.
        normed: convert layers before a normalization too, where ``ar`` and
            ``rescale`` do nothing.
        start: shape that ``adact`` starts from.
        hinges: of ``adact``.
        shared: one function for all channels in ``adact``.
        unfuse: open fused LSTM, GRU and RNN layers, so that ``adact`` reaches their
            activations; they run two to five times slower.
        form: ``module`` keeps the user's own modules; ``graph-module`` gives what
            torch.fx traces of them, and fails where that computes something else.
    """

    to: Treatment
    layers: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    preserve: bool = False
    limit: float | None = None
    limit_from: LimitSource | None = None
    limit_type: LimitType = "auto-indep"
    denominator: DenominatorKind = "moments"
    border: Border = "interior"
    fold: bool | None = None
    centre: bool | None = None
    refit: bool | None = None
    ar_axis: tuple[str, ...] = ()
    normed: bool = False
    start: Start = "auto"
    hinges: int = 9
    shared: bool = False
    unfuse: bool = False
    form: Form = "module"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One converted layer or activation.

    Attributes:
        path: the module that changed.
        kind: class of the layer or name of the activation, as it was.
        change: what was done, with the figures.
        activations: the activation calls that it acts on.
        source: the line of code, where known.
        exceeding: of ``ar``: share of the pre-activations on the data that is above
            L; None where it was not measured.
        hinges, dead_hinges: of ``adact``: how many there are, and beside how many no
            value of the data falls, so that they get no gradient.
    """

    path: str
    kind: str
    change: str
    activations: tuple[str, ...] = ()
    source: Source | None = None
    exceeding: float | None = None
    hinges: int = 0
    dead_hinges: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One activation call or layer that was not converted, and why (VG701)."""

    path: str
    kind: str
    reason: str
    source: Source | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A conversion with its proof.

    Attributes:
        options: what was asked.
        edits, refusals: what was converted and what was not.
        max_abs_diff: the largest |Δ| of any output on the data, in train and in
            eval mode.
        output_scale: the largest |output| before.
        preserved: every output, and every output of a converted layer, is bit-equal.
        before, after: the same scan of both.
        written: files that were written.
        notes: statements for the user.
    """

    options: ConvertOptions
    edits: tuple[Edit, ...]
    refusals: tuple[Refusal, ...]
    max_abs_diff: float
    output_scale: float
    preserved: bool
    before: Audit | None = None
    after: Audit | None = None
    written: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
