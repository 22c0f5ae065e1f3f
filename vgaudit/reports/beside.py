"""What a training comes to, in sentences: beside its controls and its beginning."""

from __future__ import annotations

from collections.abc import Iterator

from vgaudit.plain import visible
from vgaudit.reports.runs import score_cell
from vgaudit.retraining import Against, Retraining

UNCONVERTED = "it is given back, unconverted"


def sentences(done: Retraining) -> list[str]:
    """Returns the verdicts, and what else the figures of the kept epochs come from."""
    found = [verdict(done, judged) for judged in done.against]
    found += _conversion(done)
    if done.run.best == 0 and not done.early:
        what = "its weights were kept" if done.run.converted is None else UNCONVERTED
        found.append(f"no epoch was better than the model as it came: {what}")
    if not done.controls and not done.early:
        other = "centred-adam" if done.run.name == "sdagd" else "adam"
        found.append(
            f"trained without a control: --control {other} tells what the method adds"
        )
    return found


def _conversion(done: Retraining) -> Iterator[str]:
    """Yields what a conversion did to the score before anything was trained."""
    converted = done.run.converted
    if converted is None or converted.valid_loss is None:
        return
    name = visible(done.metric) or "validation loss"
    before, after = (score_cell(e, done) for e in (done.run.epochs[0], converted))
    moved = f"took {name} from {before} to {after}"
    if before == after:
        moved = f"left {name} at {before}"
    yield f"the conversion alone {moved}, before any training"


def verdict(done: Retraining, judged: Against) -> str:
    """Returns one sentence on the treatment beside a control."""
    ours, theirs = done.run.name, visible(judged.control)
    failed = next((r.failed for r in done.controls if r.name == judged.control), "")
    if failed:
        why = visible(failed, length=200)
        return f"{theirs} failed, and nothing can be compared with it: {why}"
    if not judged.outcome or judged.difference is None:
        return f"{ours} and {theirs} cannot be compared: there was no validation"
    figures = _difference(done, judged)
    if judged.outcome == "better":
        return f"{ours} is better than {theirs}: {figures}"
    if judged.outcome == "worse":
        return f"{ours} is worse than {theirs}: {figures}; train with {theirs} instead"
    return f"{ours} is no better than {theirs}: {figures}"


def scale(done: Retraining) -> tuple[str, int]:
    """Returns the unit of a difference from a control, and its decimals.

    Accuracies differ by points: hundredths.
    """
    if done.metric == "accuracy":
        return "points of accuracy", 1
    return visible(done.metric) or "validation loss", 4


def _difference(done: Retraining, judged: Against) -> str:
    assert judged.difference is not None
    unit, digits = scale(done)
    if digits > 1:
        return f"{_signed(judged.difference, digits=digits)} of {unit}"
    text = f"{_signed(100 * judged.difference)} {unit}"
    if judged.uncertainty is not None:
        samples = f"{judged.samples or done.split.valid:,} samples"
        text += f" (± {100 * judged.uncertainty:.1f} on {samples})"
    return text


def _signed(value: float, *, digits: int = 1) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")
