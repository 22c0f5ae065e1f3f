"""A repair as a page: the arms, their learning curves and gradient budgets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from vgaudit.fixing import Arm, Attempt, Fixing, Plan
from vgaudit.plain import visible
from vgaudit.reports.charts import learning, overlay
from vgaudit.reports.charts.figure import Grid, called, figure
from vgaudit.reports.html.change import Block, Table, View
from vgaudit.retraining import Run
from vgaudit.rules.wording import count

STATUSES = {
    "healthy": ("healthy", "same"),
    "repaired": ("repaired", "better"),
    "control": ("no treatment clears the controls", "mixed"),
    "nothing": ("not repaired", "worse"),
    "interrupted": ("interrupted", "mixed"),
}


def view(done: Fixing) -> View:
    """Returns the page of a repair."""
    status, mark = STATUSES[done.status]
    blocks = tuple(_blocks(done, done.plan)) if done.plan is not None else ()
    reason = visible(done.reason, length=300)
    lead = "The scan found " + (", ".join(map(visible, done.findings)) or "nothing")
    written = tuple(f"written: {visible(name)}" for name in done.written)
    without = tuple(
        f"recommended without evidence: {visible(x, length=300)}" for x in done.advice
    )
    return View(
        target=visible(done.before.target.spec) if done.before is not None else "",
        status=status,
        mark=mark,
        headline=f"{reason[:1].upper()}{reason[1:]}.",
        lead=f"{lead}.",
        blocks=blocks,
        notes=(*without, *(visible(note, length=300) for note in done.notes), *written),
    )


def _blocks(done: Fixing, plan: Plan) -> Iterator[Block]:
    tried = [arm for arm in plan.arms if done.of(arm.name)]
    tried.sort(key=lambda arm: -done.estimate(arm.name).mean)
    yield Block(
        title="What was tried",
        text=f"{count(plan.steps, 'optimizer step')} for each training, on the same "
        "split; with the same seed, on the same batches in the same order. Intervals "
        "are Student’s, over seeds.",
        tables=(Table("", _grid(done, tried)), *_dropped(plan)),
    )
    runs = [run for arm in tried if (run := _first_run(done, arm)) is not None]
    drawn = learning.draw(runs, metric=done.metric if done.metric != "loss" else "")
    if drawn is not None:
        caption = "The first seed of every arm, on the samples that choose the epoch."
        yield Block(title="Learning", charts=(replace(drawn, caption=caption),))
    flows = [
        (called(arm.name), flow)
        for arm in tried
        if (flow := _first(done, arm).flow) is not None
    ]
    if done.before is not None:
        flows.insert(0, ("as it came", done.before.flow))
    budgets = overlay.budgets(flows)
    if budgets:
        yield Block(
            title="Gradient budgets after training",
            text="On one scale: decades that the gradient loses on its way to the "
            "input, from right to left. Hollow parts give gradient back.",
            pair=budgets,
        )


def _first(done: Fixing, arm: Arm) -> Attempt:
    return done.of(arm.name)[0]


def _first_run(done: Fixing, arm: Arm) -> Run | None:
    return _first(done, arm).run


def _grid(done: Fixing, tried: list[Arm]) -> Grid:
    columns = (
        "arm",
        "role",
        f"#{called(done.metric)}",
        "#±",
        "#seeds",
        "#steps",
        "#seconds",
        "why",
    )
    sign = -1.0 if done.metric == "loss" else 1.0
    rows: list[tuple[str, ...]] = []
    for arm in tried:
        found, own = done.estimate(arm.name), done.of(arm.name)
        kept = " (kept)" if arm.name == done.kept else ""
        rows.append(
            (
                called(arm.name) + kept,
                arm.role,
                figure(sign * found.mean, 4),
                figure(found.half, 4) if math.isfinite(found.half) else "–",
                str(found.count),
                f"{max(attempt.steps for attempt in own):,}",
                figure(sum(attempt.seconds for attempt in own), 1),
                visible(arm.why),
            )
        )
    if done.base is not None:
        rows.append(
            (
                "the model as it came",
                "",
                figure(sign * done.base, 4),
                "–",
                "–",
                "0",
                "–",
                "",
            )
        )
    return Grid(columns, tuple(rows))


def _dropped(plan: Plan) -> Iterator[Table]:
    if plan.dropped:
        rows = tuple((visible(reason, length=200),) for reason in plan.dropped)
        yield Table("Not tried", Grid(("candidate and reason",), rows))
