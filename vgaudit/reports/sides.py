"""The sides of a comparison and their scores, in words that text and HTML share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vgaudit.compare import Comparison, Side
from vgaudit.compare.sides import judged_on
from vgaudit.plain import visible
from vgaudit.rules.wording import count, number
from vgaudit.scores import Score

BOUND = (
    "± is the 95 % interval that the number of samples leaves; samples that chose the "
    "epoch flatter it"
)


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One score on both sides, and how it moved."""

    label: str
    before: str
    after: str
    change: str


def score_rows(found: Comparison) -> tuple[ScoreRow, ...]:
    """Returns the scores that both sides have; nothing where one has none."""
    old, new, gain = found.before.score, found.after.score, found.gain
    if old is None or new is None or gain is None:
        return ()
    rows = []
    if gain.metric is not None:
        cells = (_value(old), _value(new))
        rows.append(ScoreRow(visible(new.metric), *cells, _moved(found)))
    if gain.loss is not None:
        cells = (number(old.loss or 0.0), number(new.loss or 0.0))
        rows.append(ScoreRow(_loss(new), *cells, _signed(number(gain.loss))))
    return tuple(rows)


def _loss(score: Score) -> str:
    name = visible(score.loss_name, length=20)
    return f"loss, {name}" if name else "loss"


def _value(score: Score) -> str:
    value = score.value or 0.0
    if score.metric == "accuracy":
        return f"{100 * value:.1f} %"
    return f"{value:z.4f}".replace("-", "−")


def _moved(found: Comparison) -> str:
    """Returns ``+4.2 points ± 8.2``: the change, with its interval where known."""
    assert found.gain is not None
    assert found.gain.metric is not None
    value, half = found.gain.metric, found.gain.uncertainty
    if found.after.score is None or found.after.score.metric != "accuracy":
        return _signed(f"{value:z.4f}")
    bound = "" if half is None else f" ± {100 * half:.1f}"
    return f"{_signed(f'{100 * value:z.1f}')} points{bound}"


def _signed(text: str) -> str:
    """Returns a number with its sign, a typographic minus; zero has none."""
    shown = text.replace("-", "−")
    zero = not shown.strip("0.")
    return shown if zero or shown.startswith("−") else f"+{shown}"


def scored_on(found: Comparison) -> str:
    """Returns on which samples both sides were scored, and what ± means."""
    old, new = found.before.score, found.after.score
    if old is None or new is None:
        return ""
    place = judged_on(new)
    if judged_on(old) != place:
        place = f"{judged_on(old)} before, {place} after"
    text = f"scored on {place}"
    if old.epoch is not None and new.epoch is not None:
        text += f", epoch {old.epoch} before, {new.epoch} after"
    if found.gain is not None and found.gain.uncertainty is not None:
        chosen = bool(old.epoch or new.epoch)
        text += f"; {BOUND if chosen else BOUND.partition(';')[0]}"
    return text


def described(side: Side) -> Iterator[tuple[str, str]]:
    """Yields what a side is, under a word each."""
    if side.model != side.name:
        yield "model", visible(side.model)
    yield "architecture", visible(side.architecture)
    layers = count(side.weight_layers, "weight layer")
    yield "size", f"{layers}, {count(side.parameters, 'parameter')}"
    batches = f"{count(side.samples, 'sample')} in {count(side.batches, 'batch')}"
    yield "measured on", f"{visible(side.data)}: {batches}"
    yield "loss", "none: jacobian" if side.loss == "jacobian" else visible(side.loss)


def sides_of(found: Comparison) -> tuple[tuple[str, Side], ...]:
    """Returns the sides that are known, each with when it was."""
    both = (("before", found.before.side), ("after", found.after.side))
    return tuple((when, side) for when, side in both if side is not None)
