"""What a page of a comparison says before its figures: both sides, and their scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vgaudit.compare import Comparison
from vgaudit.plain import visible
from vgaudit.reports.charts.figure import Grid
from vgaudit.reports.html.change import Block, Table, View
from vgaudit.reports.sides import described, score_rows, scored_on, sides_of


def named(view: View, found: Comparison) -> View:
    """Returns the page of a comparison with what its sides are and how good each is."""
    notes = (_sentence(visible(note, length=400)) for note in found.notes)
    target = view.target or _target(found)
    return replace(
        view,
        target=target,
        lead=" ".join([*_learned(found), view.lead, *notes]),
        blocks=(*_scores(found), *_sides(found), *view.blocks),
    )


def _target(found: Comparison) -> str:
    """Returns the model of the later side, where a page has no scans to tell it."""
    sides = sides_of(found)
    return visible(sides[-1][1].model) if sides else ""


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _learned(found: Comparison) -> Iterator[str]:
    """Yields ``Accuracy 10.0 % before, 14.2 % after.``: the first of the scores."""
    for row in score_rows(found)[:1]:
        yield _sentence(f"{row.label} {row.before} before, {row.after} after")


def _scores(found: Comparison) -> Iterator[Block]:
    rows = tuple((r.label, r.before, r.after, r.change) for r in score_rows(found))
    if rows:
        grid = Grid(("", "#before", "#after", "#change"), rows)
        yield Block(
            title="Accuracy and loss" if len(rows) > 1 else "Score",
            text=_sentence(scored_on(found)),
            tables=(Table("", grid),),
        )


def _sides(found: Comparison) -> Iterator[Block]:
    sides = sides_of(found)
    # A model that is named by its spec stands in one row, whatever the other is.
    words = [{"model": visible(x.name), **dict(described(x))} for _, x in sides]
    if any(x.name not in ("", x.model) for _, x in sides):
        named = [visible(x.name) or "–" for _, x in sides]
        words = [{"side": n, **w} for n, w in zip(named, words, strict=True)]
    labels = dict.fromkeys(label for side in words for label in side)
    rows = tuple((label, *(side[label] for side in words)) for label in labels)
    if rows:
        heads = ("", *(when for when, _ in sides))
        yield Block(title="What is compared", tables=(Table("", Grid(heads, rows)),))
