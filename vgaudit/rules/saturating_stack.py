"""VG401: a deep stack of saturating activations without norm or skip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vgaudit.findings import Finding, Level
from vgaudit.flow import Audit, PlainStretch
from vgaudit.plain import visible
from vgaudit.rules.examples import chain
from vgaudit.rules.examples_deep import stretch
from vgaudit.rules.rule import Example, Rule, Training, threshold
from vgaudit.rules.wording import count, decades, number, percent, place


@dataclass(frozen=True, slots=True)
class SaturatingStack(Rule):
    """A stack of saturating units without norm or skip will lose its gradient.

    What it measures:
        Runs of weight layers of the trunk with neither norm nor skip between them,
        fed by activations with two rails (sigmoid, tanh, …). For each the data-free
        mean-field theory predicts the decades of ‖δ‖ from its last layer to its
        first, from the real weights: χ₁ = ‖W‖² per output · E φ′(z)², z Gaussian
        with the variance that the layers below give it. It needs `scan --static`,
        which runs nothing.

    Why it matters:
        The slope of a saturating activation is at most 1 (sigmoid: 1/4), so unless
        the weights make up for it the gradient falls by the same factor in every
        layer. This is the one defect that needs no data to be known.

    False alarms:
        A stack whose weights make up for the slopes (orthogonal, near the critical
        gain) is quiet, since the prediction counts and not the kind. Weights that
        training has aligned can carry more than independent ones would.

    Treatments:
        A norm before each activation, a skip around every two layers, an activation
        with unit slope, or weights at the critical gain.

    References:
        Glorot and Bengio 2010; Schoenholz et al. 2017, “Deep information
        propagation”; Pennington, Schoenholz and Ganguli 2017, “Resurrecting the
        sigmoid in deep learning through dynamical isometry”.
    """

    sgd_error: float = threshold(-3.6, "decades; at or below it an error under SGD")
    adam_warning: float = threshold(-3.6, "decades; at or below it a warning for Adam")
    adam_error: float = threshold(-8.3, "decades; at or below it an error under Adam")
    layers: int = threshold(4, "saturating layers from which a stack is judged")

    code: ClassVar[str] = "VG401"
    name: ClassVar[str] = "saturating-stack"
    implied_by: ClassVar[tuple[str, ...]] = ("VG101",)
    FIRES: ClassVar[tuple[Example, ...]] = (
        Example("twelve sigmoid layers", stretch(-9.0, kind="sigmoid"), "error"),
        Example("tanh under SGD", stretch(-4.0, kind="tanh"), "error"),
        Example(
            "tanh under Adam", stretch(-4.0, kind="tanh"), "warning", Training("adam")
        ),
    )
    QUIET: ClassVar[tuple[Example, ...]] = (
        Example("tanh at the critical gain", stretch(-0.2, kind="tanh")),
        Example("a stack of ReLU is VG402", stretch(-6.0, kind="relu")),
        Example("three layers", stretch(-4.0, layers=4, kind="sigmoid")),
        Example("an ordinary scan", chain()),
    )

    def check(self, audit: Audit, training: Training) -> Iterator[Finding]:
        """Yields one finding for each stack."""
        static = audit.flow.static
        for run in static.stretches if static is not None else ():
            mostly = 2 * run.saturating >= len(run.layers) - 1
            level = self._level(run, training)
            if level is not None and mostly and run.saturating >= self.layers:
                yield self._finding(run, level, training)

    def _level(self, run: PlainStretch, training: Training) -> Level | None:
        if training.optimizer == "sgd":
            return "error" if run.decades <= self.sgd_error else None
        if run.decades <= self.adam_error:
            return "error"
        return "warning" if run.decades <= self.adam_warning else None

    def _finding(self, run: PlainStretch, level: Level, training: Training) -> Finding:
        paths = tuple(layer.layer for layer in run.layers)
        kinds = sorted({x.activation for x in run.layers} - {"linear"})
        adam = self.adam_error if level == "error" else self.adam_warning
        limit = self.sgd_error if training.optimizer == "sgd" else adam
        return Finding(
            code=self.code,
            name=self.name,
            level=level,
            layer=place(paths),
            layers=paths,
            message=(
                f"{count(len(paths), 'weight layer')} with {' and '.join(kinds)} and "
                f"neither norm nor skip: theory predicts {decades(run.decades)} "
                f"decades from the last to the first (limit {number(limit)})"
            ),
            value=run.decades,
            limit=limit,
            unit="decades",
            evidence=(_steepest(run),),
            fix=self.advice(
                "a norm before the activations, a skip around every two layers, "
                "or an activation with unit slope",
                f"each layer passes {percent(_each(run))} of the gradient on, "
                "whatever the data",
            ),
        )


def _each(run: PlainStretch) -> float:
    """Returns the factor on the norm of the gradient across a typical layer."""
    each: float = 10 ** (run.decades / max(len(run.layers) - 1, 1))
    return each


def _steepest(run: PlainStretch) -> str:
    worst = min(run.layers, key=lambda layer: layer.decades)
    return (
        f"most is lost at {visible(worst.layer)}: gain {number(worst.gain)} where "
        f"{worst.activation} needs {number(worst.critical)}"
    )
