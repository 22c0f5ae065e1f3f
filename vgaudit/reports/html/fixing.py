"""A repair as a page: the arms, their learning curves and gradient budgets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from vgaudit.fixing import FAMILIES, TITLES, Arm, Attempt, Fixing, Plan, Trial
from vgaudit.plain import visible
from vgaudit.reports.charts import learning, overlay
from vgaudit.reports.charts.figure import Figure, Grid, called, figure
from vgaudit.reports.charts.lines import KINDS
from vgaudit.reports.html.change import Block, Table, View
from vgaudit.rules.wording import count

STATUSES = {
    "healthy": ("healthy", "same"),
    "repaired": ("repaired", "better"),
    "control": ("no treatment clears the controls", "mixed"),
    "unproven": ("trained, not proven", "mixed"),
    "nothing": ("not repaired", "worse"),
    "interrupted": ("interrupted", "mixed"),
}


def view(done: Fixing) -> View:
    """Returns the page of a repair."""
    status, mark = STATUSES[done.status]
    blocks = tuple(_tried(done, done.trial)) if done.trial is not None else ()
    if done.plan is not None:
        blocks += tuple(_blocks(done, done.plan))
    reason = visible(done.reason, length=300)
    written = tuple(f"written: {visible(name)}" for name in done.written)
    without = tuple(
        f"recommended without evidence: {visible(x, length=300)}" for x in done.advice
    )
    return View(
        target=visible(done.before.target.spec) if done.before is not None else "",
        status=status,
        mark=mark,
        headline=f"{reason[:1].upper()}{reason[1:]}.",
        lead=_lead(done),
        blocks=blocks,
        notes=(*without, *(visible(note, length=300) for note in done.notes), *written),
    )


def _lead(done: Fixing) -> str:
    """Returns what the repair began with: findings, or the trial of the model."""
    if done.findings:
        return f"The scan found {', '.join(map(visible, done.findings))}."
    if done.status == "healthy" or done.trial is None:
        held = done.split is not None and visible(done.split.how, length=300)
        return f"{held.capitalize()}." if held else "The scan found nothing that fails."
    return (
        "The scan found nothing that fails. It was treated because of the trial: "
        f"{visible(done.trial.reason, length=300)}."
    )


def _tried(done: Fixing, trial: Trial) -> Iterator[Block]:
    """Yields what the model as it came has learned by itself."""
    rows = [
        (
            called(attempt.arm),
            "failed" if attempt.failure else _figure(done, attempt.score),
            f"{attempt.steps:,}",
            figure(attempt.seconds, 1),
        )
        for attempt in trial.attempts
    ]
    for name, score in _beside(done):
        rows.append((name, _figure(done, score), "–", "–"))
    columns = ("training", f"#{called(done.metric)}", "#steps", "#seconds")
    yield Block(
        title="Trial",
        text="No finding fails the scan, so the model was trained as it came, with "
        f"one seed, for up to {count(trial.length.steps, 'step')}, by the optimizer "
        "that the scan is judged for. Scores are those of samples that chose nothing.",
        tables=(Table("", Grid(columns, tuple(rows))),),
        charts=tuple(
            _charts(
                done,
                trial.attempts,
                "the model as it came",
                f"Validated every {count(trial.length.lap, 'step')}, which is an epoch "
                "here.",
            )
        ),
    )


def _blocks(done: Fixing, plan: Plan) -> Iterator[Block]:
    finalists = done.finalists
    if finalists:
        yield Block(
            title="Proof",
            text="The best treatment, the best learning rate of the plain model and "
            f"the best random repair, each with {count(len(plan.seeds), 'fresh seed')} "
            f"and {count(plan.steps, 'optimizer step')}, on samples that no choice "
            "has seen. Intervals are Student’s, over seeds.",
            tables=(Table("", _grid(done, finalists)),),
        )
    if plan.rungs:
        yield Block(
            title="Search",
            text="Every kind on the same budget, with one seed; the samples that "
            "choose decide who goes on.",
            tables=(*_searched(done, plan), *_dropped(plan)),
        )
    yield from _curves(done, plan)
    yield from _budgets(done, plan)


def _curves(done: Fixing, plan: Plan) -> Iterator[Block]:
    """Yields learning curves: of the finalists, then of each kind in the search."""
    said = f"Validated every {count(plan.length.lap, 'step')}, which is an epoch here."
    first = [done.proofs(arm.name)[0] for arm in done.finalists]
    charts = [*_charts(done, first, "proof", f"The first fresh seed of each. {said}")]
    for family in FAMILIES:
        longest = [_longest(done, arm) for arm in plan.of(family)]
        own = [attempt for attempt in longest if attempt is not None]
        caption = "The longest training of each in the search."
        charts += _charts(done, own, TITLES[family], caption)
    if charts:
        yield Block(title="Learning", charts=tuple(charts))


def _charts(
    done: Fixing, attempts: Sequence[Attempt], title: str, caption: str
) -> Iterator[Figure]:
    """Yields charts of so many curves each as can be told apart."""
    runs = [attempt.run for attempt in attempts if attempt.run is not None]
    metric = done.metric if done.metric != "loss" else ""
    for first in range(0, len(runs), len(KINDS)):
        drawn = learning.draw(runs[first : first + len(KINDS)], metric=metric)
        if drawn is not None:
            name = f"Learning curves: {title}"
            yield replace(drawn, title=name, caption=caption)


def _budgets(done: Fixing, plan: Plan) -> Iterator[Block]:
    """Yields the gradient of every treatment after its search, and of the finalists."""
    flows = [("as it came", done.before.flow)] if done.before is not None else []
    for arm in plan.arms:
        last = next((a for a in reversed(done.of(arm.name)) if a.flow), None)
        if last is not None and last.flow is not None:
            flows.append((called(arm.name), last.flow))
    budgets = overlay.budgets(flows)
    if budgets:
        yield Block(
            title="Gradient budgets after training",
            text="On one scale: decades that the gradient loses on its way to the "
            "input, from right to left. Hollow parts give gradient back.",
            pair=budgets,
        )


def _longest(done: Fixing, arm: Arm) -> Attempt | None:
    own = [a for a in done.of(arm.name) if a.rung is not None]
    return max(own, key=lambda attempt: attempt.steps, default=None)


def _grid(done: Fixing, finalists: Sequence[Arm]) -> Grid:
    rows: list[tuple[str, ...]] = []
    for arm in finalists:
        found, own = done.estimate(arm.name), done.proofs(arm.name)
        kept = " (kept)" if arm.name == done.kept else ""
        rows.append(
            (
                called(arm.name) + kept,
                _figure(done, found.mean),
                figure(found.half, 4) if math.isfinite(found.half) else "–",
                str(found.count),
                figure(sum(attempt.seconds for attempt in own), 1),
            )
        )
    for name, score in _beside(done):
        rows.append((name, _figure(done, score), "–", "–", "–"))
    columns = ("arm", f"#{called(done.metric)}", "#±", "#seeds", "#seconds")
    return Grid(columns, tuple(rows))


def _beside(done: Fixing) -> Iterator[tuple[str, float]]:
    """Yields what was not trained, with its score where that is known."""
    for name, score in (
        ("the model as it came", done.base),
        ("the best constant answer", done.chance),
    ):
        if score is not None:
            yield name, score


def _searched(done: Fixing, plan: Plan) -> Iterator[Table]:
    """Yields every arm of a kind with what chose it, round by round."""
    rounds = tuple(f"#{rung.length.steps:,} steps" for rung in plan.rungs)
    for family in FAMILIES:
        rows = []
        for arm in plan.of(family):
            found = {a.rung: a for a in done.of(arm.name)}
            cells = (_cell(done, found.get(at)) for at in range(len(plan.rungs)))
            rows.append((called(arm.name), *cells))
        title = TITLES[family]
        grid = Grid(("arm", *rounds), tuple(rows))
        yield Table(f"{title[:1].upper()}{title[1:]}", grid)


def _cell(done: Fixing, attempt: Attempt | None) -> str:
    if attempt is None:
        return "–"
    return "failed" if attempt.failure else _figure(done, attempt.chosen)


def _figure(done: Fixing, score: float) -> str:
    return figure(-score if done.metric == "loss" else score, 4)


def _dropped(plan: Plan) -> Iterator[Table]:
    if plan.dropped:
        rows = tuple((visible(reason, length=200),) for reason in plan.dropped)
        yield Table("Not tried", Grid(("treatment and reason",), rows))
