"""What a treatment changed, as a page: comparisons, conversions and trainings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vgaudit import __version__
from vgaudit.compare import Comparison, Figures
from vgaudit.conversion import Conversion
from vgaudit.findings import Finding, Level
from vgaudit.flow import Audit
from vgaudit.plain import visible
from vgaudit.reports import beside
from vgaudit.reports.charts import heatmap, learning, overlay, profile
from vgaudit.reports.charts import own as own_figures
from vgaudit.reports.charts.figure import Figure, Grid, called, figure
from vgaudit.reports.html.findings import Shown, shown
from vgaudit.reports.html.headline import learned, moved
from vgaudit.reports.moved import counted
from vgaudit.reports.runs import MEANING, heads, number_cell, side_by_side, told
from vgaudit.reports.transport import line_of
from vgaudit.retraining import Against, Retraining
from vgaudit.rules.wording import count, number, percent

MOST = 60
"""Rows of edits, refusals and findings; the JSON document has them all."""

MOST_HEATMAPS = 4

OUTCOMES = {"better": "better", "same": "no better", "worse": "worse"}


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a heading of its own, and what it says in sentences."""

    title: str
    grid: Grid
    said: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One section of the page.

    Attributes:
        title: its heading.
        text: one sentence, or empty.
        charts: one below the other.
        pair: charts side by side.
        tables: open tables.
        findings: in words.
    """

    title: str
    text: str = ""
    charts: tuple[Figure, ...] = ()
    pair: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    findings: tuple[Shown, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that the template of a change shows.

    Attributes:
        lead: one sentence below the headline. said: more, each on a line of its own.
    """

    version: str = __version__
    target: str
    status: str
    mark: str
    headline: str
    lead: str
    said: tuple[str, ...] = ()
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """The scans before and after, whose profiles are drawn."""

    before: Audit | None = None
    after: Audit | None = None


def comparison(found: Comparison, sides: Sides) -> View:
    """Returns the page of two reports side by side."""
    target = sides.after or sides.before
    return View(
        target=visible(target.target.spec) if target is not None else "",
        status=found.verdict,
        mark=found.verdict,
        headline=moved(found),
        lead=f"{counted(found)}.",
        blocks=(*_compared(found, sides), *_findings(found)),
    )


def conversion(done: Conversion, found: Comparison | None) -> View:
    """Returns the page of a conversion with its proof."""
    sides = Sides(before=done.before, after=done.after)
    edits, refused = len(done.edits), len(done.refusals)
    outputs = (
        "Every output is bit-equal to what it was."
        if done.preserved
        else f"Outputs changed by up to {number(done.max_abs_diff)}, where the largest "
        f"was {number(done.output_scale)}."
    )
    left = count(refused, "activation") if refused else "no activation"
    counted = f"{count(edits, 'edit')}, {left} left alone"
    blocks = [Block(title="What was changed", tables=tuple(_changes(done)))]
    if found is not None:
        blocks = [*_compared(found, sides), *blocks, *_findings(found)]
    target = done.before.target.spec if done.before is not None else ""
    return View(
        target=visible(target),
        status=f"converted to {done.options.to}",
        mark=found.verdict if found is not None else "same",
        headline=moved(found) if found is not None else f"{counted}.".capitalize(),
        lead=f"{counted}. {outputs}",
        blocks=tuple(blocks),
        notes=_notes(done.notes, done.written),
    )


def retraining(done: Retraining, found: Comparison | None) -> View:
    """Returns the page of a training: its curves, its controls and its proof."""
    runs = (done.run, *done.controls)
    limits = _limits(found, done.after) if found is not None else ()
    drawn = (learning.draw(runs, metric=done.metric, limits=limits),)
    maps = tuple(heatmap.draw(run) for run in runs[:MOST_HEATMAPS])
    own = tuple(own_figures.draw(run) for run in runs)
    charts = (*drawn, *own, *maps)
    blocks = [
        Block(
            title="Training",
            charts=tuple(chart for chart in charts if chart is not None),
            tables=(*_beside(done), *_against(done)),
        )
    ]
    if found is not None:
        sides = Sides(before=done.before, after=done.after)
        blocks = [*_compared(found, sides), *blocks, *_findings(found)]
    target = done.before.target.spec if done.before is not None else ""
    stopped = f"Stopped: {visible(done.run.stopped)}." if done.run.stopped else ""
    how = f"{visible(done.split.how).capitalize()}."
    lead = (learned(done), _trained(done), how, stopped)
    return View(
        target=visible(target),
        status=f"trained with {visible(done.run.name)}",
        mark=found.verdict if found is not None else "same",
        headline=moved(found) if found is not None else _trained(done),
        lead=" ".join(filter(None, lead)),
        said=tuple(_sentence(done, one) for one in beside.sentences(done)),
        blocks=tuple(blocks),
        notes=_notes((*_said(done), *done.notes), done.written),
    )


def _said(done: Retraining) -> Iterator[str]:
    """Yields the notes of every run."""
    for run in (done.run, *done.controls):
        yield from (f"{run.name}: {sentence}" for sentence in run.notes)


def _compared(found: Comparison, sides: Sides) -> Iterator[Block]:
    charts: tuple[Figure, ...] = ()
    pair: tuple[Figure, ...] = ()
    if sides.before is not None and sides.after is not None:
        limits = _limits(found, sides.after)
        old, new = sides.before.flow, sides.after.flow
        both = overlay.profiles(old, new, limits)
        charts = (both,) if both is not None else ()
        pair = overlay.budgets((("before", old), ("after", new)))
    rows = tuple(_rows(found.before, found.after))
    figures = Grid(("", "#before", "#after"), rows)
    yield Block(
        title="Before and after",
        tables=(Table("", figures),),
        charts=charts,
    )
    if pair:
        yield Block(
            title="Gradient budget",
            text="On one scale: decades that the gradient loses on its way to the "
            "input, from right to left. Hollow parts give gradient back.",
            pair=pair,
        )


def _limits(found: Comparison, after: Audit | None) -> tuple[profile.Limit, ...]:
    if after is None:
        return ()
    return profile.limits(after.flow, found.thresholds, found.optimizer)


def _rows(a: Figures, b: Figures) -> Iterator[tuple[str, str, str]]:
    yield "status", a.status, b.status
    yield "attenuation, decades", figure(a.attenuation), figure(b.attenuation)
    yield "max/min gradient over layers, decades", figure(a.spread), figure(b.spread)
    yield "most saturated activation", _share(a.saturated), _share(b.saturated)
    gates = (a.saturated_gate, b.saturated_gate)
    if gates != (None, None):
        yield "most saturated gate", _share(gates[0]), _share(gates[1])
    yield "output varies by", _share(a.variation), _share(b.variation)
    yield "errors", f"{a.errors:,}", f"{b.errors:,}"
    yield "warnings", f"{a.warnings:,}", f"{b.warnings:,}"


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)


def _findings(found: Comparison) -> Iterator[Block]:
    groups = (
        ("New findings", _unmoved(found.new)),
        ("Findings that are graver", found.risen),
        ("Findings that are gone", _unmoved(found.gone)),
        ("Findings that are milder", found.fallen),
        ("Findings that stayed", _unmoved(found.steady)),
    )
    for title, findings in groups:
        if findings:
            yield Block(title=title, findings=_few(findings), text=_more(findings))


def _unmoved(findings: Sequence[Finding]) -> tuple[tuple[Level, Finding], ...]:
    return tuple((finding.level, finding) for finding in findings)


def _few(findings: Sequence[tuple[Level, Finding]]) -> tuple[Shown, ...]:
    return tuple(shown(finding, before=was) for was, finding in findings[:MOST])


def _more(findings: Sequence[tuple[Level, Finding]]) -> str:
    more = len(findings) - MOST
    return f"The first {MOST} of {len(findings):,}." if more > 0 else ""


def _changes(done: Conversion) -> Iterator[Table]:
    if done.edits:
        rows = tuple(
            (
                called(edit.path or next(iter(edit.activations), "the model")),
                called(edit.kind),
                visible(edit.change, length=300),
            )
            for edit in done.edits[:MOST]
        )
        columns = ("layer", "was", "change")
        yield Table("Edits", Grid(columns, rows, _rest(len(done.edits))))
    if done.refusals:
        left = tuple(
            (
                called(refusal.path),
                called(refusal.kind),
                line_of(refusal.source) if refusal.source is not None else "–",
                visible(refusal.reason, length=300),
            )
            for refusal in done.refusals[:MOST]
        )
        heads = ("activation", "kind", "at", "why it was left")
        rest = _rest(len(done.refusals))
        yield Table("Left as they were (VG701)", Grid(heads, left, rest))


def _rest(total: int) -> str:
    return f"{total - MOST:,} more: --format json has all" if total > MOST else ""


def _trained(done: Retraining) -> str:
    epochs = done.run.epochs
    last = epochs[-1] if epochs else None
    steps = f", {count(last.steps, 'step')}" if last is not None else ""
    trained = count(done.run.passes, "epoch")
    samples = count(done.split.train, "sample")
    kept = f"epoch {done.run.best} was kept"
    if last is not None and last.finish:
        kept = f"what {called(done.run.name)} does after them was kept"
    return f"{trained}{steps} on {samples}; {kept}."


def _beside(done: Retraining) -> Iterator[Table]:
    """Yields the kept epochs side by side, and what methods say of themselves."""
    if not done.run.epochs:
        return
    runs = (done.run, *done.controls)
    columns = ("", *(f"#{called(name)}" for name in heads(done)))
    rows = tuple((row.label, *row.cells) for row in side_by_side(done))
    yield Table("The kept epoch of each run", Grid(columns, rows, MEANING))
    for run in runs:
        shown = told(run)
        names = dict.fromkeys(name for _, epoch in shown for name in epoch.figures)
        columns = ("", *(f"#{head}" for head, _ in shown))
        cells = tuple(
            (called(name), *(number_cell(e.figures.get(name)) for _, e in shown))
            for name in names
        )
        if cells:
            yield Table(
                f"What {called(run.name)} reports of itself", Grid(columns, cells)
            )


def _against(done: Retraining) -> Iterator[Table]:
    if done.against:
        unit, _ = beside.scale(done)
        columns = ("control", "the treatment is", f"#difference in {unit}", "#±")
        rows = tuple(_against_cells(done, judged) for judged in done.against)
        said = (beside.verdict(done, judged) for judged in done.against)
        yield Table(
            "The treatment against each control",
            Grid((*columns, "#samples"), rows),
            tuple(_sentence(done, one) for one in said),
        )


def _against_cells(done: Retraining, one: Against) -> tuple[str, ...]:
    _, digits = beside.scale(done)
    scale = 100.0 if digits == 1 else 1.0
    figures = (
        None if x is None else scale * x for x in (one.difference, one.uncertainty)
    )
    return (
        called(one.control),
        OUTCOMES.get(one.outcome, "not comparable"),
        *(figure(x, digits) for x in figures),
        f"{one.samples or done.split.valid:,}" if one.outcome else "–",
    )


def _sentence(done: Retraining, said: str) -> str:
    """Returns a sentence of a report; names of runs are written as they are."""
    named = any(said.startswith(run.name) for run in (done.run, *done.controls))
    begun = said if named else said[:1].upper() + said[1:]
    return begun.rstrip(".") + "."


def _notes(lines: Sequence[str], written: Sequence[str]) -> tuple[str, ...]:
    said = tuple(visible(line, length=300) for line in lines[:MOST])
    names = ", ".join(visible(name) for name in written)
    return (*said, *([f"written: {names}"] if names else []))
