"""The treatment beside its controls: better, the same, or worse, and how sure."""

from __future__ import annotations

import math

from vgaudit.retraining import Against, Epoch, Outcome, Run
from vgaudit.training.metrics import ACCURACY, R_SQUARED

TIE = 0.01
"""Residual errors within this share of each other count as the same."""

_NORMAL = 1.96
"""Half width of a 95 % interval, in standard errors."""


def against(treatment: Run, control: Run, *, metric: str) -> Against:
    """Returns how the kept epochs of two runs compare on the same samples.

    Accuracies count as different where the difference clears its 95 % interval (two
    independent binomials: the samples are the same, so this is on the safe side);
    losses and R² where the residual errors differ by more than ``TIE``.

    Args:
        treatment: the run that is judged.
        control: the run beside it.
        metric: name of the metric, empty for the loss.
    """
    if control.failed:
        return _against(control.name, "", None)
    ours, theirs = treatment.kept, control.kept
    if metric == ACCURACY and ours.metric is not None and theirs.metric is not None:
        samples = min(treatment.judged, control.judged)
        return _accuracies(control.name, ours.metric, theirs.metric, samples)
    if metric == R_SQUARED and ours.metric is not None and theirs.metric is not None:
        difference = ours.metric - theirs.metric
        residuals = 1.0 - ours.metric, 1.0 - theirs.metric
        return _against(control.name, _by_error(*residuals), difference)
    return _losses(control.name, ours, theirs)


def _accuracies(name: str, ours: float, theirs: float, samples: int) -> Against:
    difference = ours - theirs
    variance = ours * (1.0 - ours) + theirs * (1.0 - theirs)
    half = _NORMAL * math.sqrt(variance / max(samples, 1))
    outcome: Outcome = "same"
    if abs(difference) > half:
        outcome = "better" if difference > 0 else "worse"
    return Against(
        control=name,
        outcome=outcome,
        difference=difference,
        uncertainty=half,
        samples=samples,
    )


def _losses(name: str, ours: Epoch, theirs: Epoch) -> Against:
    if ours.valid_loss is None or theirs.valid_loss is None:
        return _against(name, "", None)
    outcome = _by_error(ours.valid_loss, theirs.valid_loss)
    return _against(name, outcome, ours.valid_loss - theirs.valid_loss)


def _against(name: str, outcome: Outcome, difference: float | None) -> Against:
    return Against(
        control=name, outcome=outcome, difference=difference, uncertainty=None
    )


def _by_error(ours: float, theirs: float) -> Outcome:
    """Compares two errors, of which the lower is better."""
    if not (math.isfinite(ours) and math.isfinite(theirs)):
        return "better" if math.isfinite(ours) else "worse"
    if abs(ours - theirs) <= TIE * max(abs(ours), abs(theirs)):
        return "same"
    return "better" if ours < theirs else "worse"
