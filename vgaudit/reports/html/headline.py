"""The headline of a change: its verdict, what decided it, and the attenuation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from vgaudit.compare import Comparison
from vgaudit.findings import LEVELS, Finding, Level
from vgaudit.plain import visible
from vgaudit.reports.charts.figure import figure
from vgaudit.reports.runs import metric_cell, number_cell
from vgaudit.retraining import Retraining
from vgaudit.rules.wording import count

VERDICTS = {
    "better": "Healthier",
    "same": "The same findings",
    "worse": "Worse",
    "mixed": "Some better, some worse",
}


def moved(found: Comparison) -> str:
    """Returns the verdict with its reasons and the attenuation on both sides.

    ``Worse: 1 new warning, though less of the gradient is lost: 1.1 decades before,
    0.8 after.`` A figure that goes the way of the verdict stands without a clause.
    """
    reasons = ", ".join(_reasons(found))
    head = VERDICTS[found.verdict] + (f": {reasons}" if reasons else "")
    old, new = found.before.attenuation, found.after.attenuation
    if old is None or new is None:
        return f"{head}."
    lost = max(old, new) <= 0
    sides = (-old, -new) if lost else (old, new)
    before, after = (figure(side, 1) for side in sides)
    way = _other_way(found, old, new)
    if way:
        grows = f"the gradient changes {way} over depth"
        what = f"{way} of the gradient is lost" if lost else grows
        return f"{head}, though {what}: {before} decades before, {after} after."
    joint = "; " if reasons else ": "
    unit = "decades lost" if lost else "decades"
    return f"{head}{joint}{before} {unit} before, {after} after."


def _reasons(found: Comparison) -> Iterator[str]:
    """Yields what came and went that a verdict can come from, the worse first.

    Of a verdict for the better, what went comes first.
    """
    worse = [*_several(found.new, "new {}"), *_shifts(found.risen, "rose")]
    better = [*_several(found.gone, "{} gone"), *_shifts(found.fallen, "fell")]
    yield from (*better, *worse) if found.verdict == "better" else (*worse, *better)


def _several(findings: Iterable[Finding], form: str) -> Iterator[str]:
    """Yields ``1 new error``, ``2 warnings gone``; infos decide nothing."""
    counts = Counter(finding.level for finding in findings)
    for level in LEVELS:
        if counts[level] and level != "info":
            number, noun = count(counts[level], level).split(" ")
            yield f"{number} {form.format(noun)}"


def _shifts(shifts: Iterable[tuple[Level, Finding]], verb: str) -> Iterator[str]:
    """Yields ``1 finding rose from info to error``."""
    counts = Counter((before, finding.level) for before, finding in shifts)
    for (before, after), several in counts.items():
        yield f"{count(several, 'finding')} {verb} from {before} to {after}"


def _other_way(found: Comparison, old: float, new: float) -> str:
    """Returns ``less`` or ``more`` where the attenuation contradicts the verdict.

    As far as one decimal shows; a gradient that grows is as far off as one that is
    lost.
    """
    before, after = round(abs(old), 1), round(abs(new), 1)
    if found.verdict == "worse" and after < before:
        return "less"
    return "more" if found.verdict == "better" and after > before else ""


def learned(done: Retraining) -> str:
    """Returns ``Accuracy 19.0 % before, 100.0 % after.``; empty where none is known.

    Of a model without such a metric the validation loss.
    """
    if not done.run.epochs:
        return ""
    first, kept = done.run.epochs[0], done.run.kept
    name = visible(done.metric) or "validation loss"
    if done.metric:
        cells = [metric_cell(x.metric, done) for x in (first, kept)]
        known = first.metric is not None and kept.metric is not None
    else:
        cells = [number_cell(x.valid_loss) for x in (first, kept)]
        known = first.valid_loss is not None and kept.valid_loss is not None
    before, after = cells
    said = f"{name[:1].upper()}{name[1:]} {before} before, {after} after."
    return said if known else ""
