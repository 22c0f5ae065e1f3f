"""Repairs as text, JSON or HTML: every arm with its interval, and what is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

from vgaudit.errors import CannotLoad
from vgaudit.estimates import Estimate, difference
from vgaudit.fixing import (
    FAMILIES,
    TITLES,
    Arm,
    Attempt,
    Fixing,
    Plan,
    Trial,
)
from vgaudit.plain import to_plain, visible
from vgaudit.reports import html
from vgaudit.reports.comparison import SCHEMA_VERSION
from vgaudit.rules.wording import count
from vgaudit.typed import Mismatch, typed

NAME = 36


def render(done: Fixing, *, form: str, resume: str = "") -> str:
    """Returns a repair as ``text``, ``json`` or ``html``.

    Args:
        done: what was tried.
        form: ``text``, ``json`` or ``html``.
        resume: the command that continues an interrupted repair.
    """
    if form == "html":
        return html.fixed(done).document()
    if form == "json":
        record = {"schema_version": SCHEMA_VERSION, "fixing": to_plain(done)}
        return json.dumps(record, allow_nan=False, indent=1) + "\n"
    lines = [*_head(done)]
    if done.trial is not None:
        lines += ["", *_trial(done, done.trial)]
    if done.plan is not None:
        lines += ["", *_arms(done, done.plan)]
    lines += ["", *_closing(done, resume)]
    return "\n".join(lines) + "\n"


def parse(record: object) -> Fixing:
    """Returns the repair that a worker sent as plain values.

    Raises:
        CannotLoad: it is none.
    """
    try:
        return typed(Fixing, record)
    except Mismatch as error:
        raise CannotLoad(f"not a repair: {error}") from error


HEADINGS = {
    "healthy": "healthy: left alone",
    "repaired": "repaired",
    "control": "no treatment clears the controls",
    "unproven": "trained, not proven",
    "nothing": "not repaired",
    "interrupted": "interrupted",
}


def _head(done: Fixing) -> Iterator[str]:
    yield f"{HEADINGS[done.status]}: {visible(done.reason, length=300)}"
    if done.findings:
        yield f"found: {', '.join(visible(name) for name in done.findings)}"
    if done.status != "healthy" and done.trial is not None and done.trial.reason:
        yield f"found: {treated_for(done.trial)}"
    if done.split is not None:
        yield (
            f"trained on {done.split.train:,} samples; {done.split.valid:,} held out, "
            f"of which {done.judged:,} judge and others choose"
        )
    if done.kept and done.status == "repaired":
        yield gain(done)


def treated_for(trial: Trial) -> str:
    """Returns one sentence on why a model is treated that no finding fails."""
    return (
        "no finding fails the scan; it is treated because of the trial: "
        f"{visible(trial.reason, length=300)}"
    )


def _trial(done: Fixing, trial: Trial) -> Iterator[str]:
    """Yields what the model as it came has reached, on the samples that judge."""
    arms = len(trial.attempts)
    yield (
        f"trial: the model as it came, {count(arms, 'training')} of up to "
        f"{trial.length.steps:,} steps, seed {done.options.seed}, "
        f"{trial.seconds:.0f} s of {done.options.budget:.0f} s"
    )
    for attempt in trial.attempts:
        reached = "failed" if attempt.failure else shown(done, attempt.score)
        yield f"  {visible(attempt.arm, length=NAME):<{NAME}} {reached:>9}"
    yield f"  {'the model as it came':<{NAME}} {shown(done, done.base):>9}"
    if done.chance is not None:
        yield f"  {'the best constant answer':<{NAME}} {shown(done, done.chance):>9}"


def gain(done: Fixing) -> str:
    """Returns one sentence on how far the winner is ahead of control and start."""
    ours, theirs = done.estimate(done.kept), done.estimate(done.control)
    ahead = difference(ours, theirs)
    assert done.base is not None
    return (
        f"{done.metric}: {_score(done, ours.mean)} with {visible(done.kept)}, "
        f"{_score(done, theirs.mean)} with {visible(done.control)} (ahead by "
        f"{_apart(done, ahead.mean)} ± {_apart(done, ahead.half)}), "
        f"{_score(done, done.base)} as it came{_constant(done)}"
    )


def _apart(done: Fixing, value: float) -> str:
    """Returns a difference of two scores as it is written."""
    if done.metric == "accuracy":
        return f"{100 * value:.1f} points"
    return f"{value:.4g}"


def _constant(done: Fixing) -> str:
    """Returns what a constant answer scores, where that is known."""
    if done.chance is None or done.metric == "R²":
        return ""
    return f", {_score(done, done.chance)} with the best constant answer"


def _arms(done: Fixing, plan: Plan) -> Iterator[str]:
    finalists = done.finalists
    if finalists:
        yield (
            f"proof: the best of each kind, {count(len(plan.seeds), 'fresh seed')}, "
            f"{plan.steps:,} steps"
        )
        yield (
            f"  {'':<{NAME}} {'kind':<10} {done.metric:>9}  {'95 % interval':<19} "
            f"{'s':>7}"
        )
    for arm in finalists:
        yield _arm(done, arm)
    if finalists:
        yield f"  {'the model as it came':<{NAME}} {'':<10} {shown(done, done.base):>9}"
    if finalists and done.chance is not None:
        name = "the best constant answer"
        yield f"  {name:<{NAME}} {'':<10} {shown(done, done.chance):>9}"
    if plan.rungs:
        yield from ("", *_search(done, plan))
    yield from ("", *_cost(done, plan))


def _search(done: Fixing, plan: Plan) -> Iterator[str]:
    """Yields what chose the best of each kind: one seed, on the choosing samples."""
    rounds = ", ".join(
        f"{rung.entrants} × {rung.length.steps:,}" for rung in plan.rungs
    )
    yield f"search: {rounds} steps of each kind, on the samples that choose"
    for family in FAMILIES:
        yield f"  {TITLES[family]}:"
        for arm in plan.of(family):
            found = [a for a in done.of(arm.name) if a.rung is not None]
            if found:
                scores = ", then ".join(_chosen(done, a) for a in found)
                yield f"    {visible(arm.name, length=NAME):<{NAME}} {scores}"


def _chosen(done: Fixing, attempt: Attempt) -> str:
    return "failed" if attempt.failure else shown(done, attempt.chosen)


def _cost(done: Fixing, plan: Plan) -> Iterator[str]:
    yield (
        f"cost: {count(len(done.attempts), 'training')} of {plan.trainings}"
        f"{'' if done.trial is None else ' after the trial'}, "
        f"{plan.family_steps:,} steps for each kind, "
        f"{done.seconds:.0f} s of {done.options.budget:.0f} s"
    )
    for reason in plan.dropped:
        yield f"not tried: {visible(reason, length=200)}"
    for attempt in done.attempts:
        if attempt.failure:
            why = attempt.failure.removeprefix(f"{attempt.arm}: ")
            yield (
                f"failed: {visible(attempt.arm)}, seed {attempt.seed}: "
                f"{visible(why, length=200)}; counted as the model as it came"
            )


def _arm(done: Fixing, arm: Arm) -> str:
    found, own = done.estimate(arm.name), done.proofs(arm.name)
    mark = "*" if arm.name == done.kept else " "
    seconds = sum(attempt.seconds for attempt in own)
    return (
        f"{mark} {visible(arm.name, length=NAME):<{NAME}} {arm.family:<10} "
        f"{shown(done, found.mean):>9}  {interval(done, found):<19} {seconds:>7.1f}"
    )


def interval(done: Fixing, found: Estimate) -> str:
    """Returns both ends of an interval; accuracies stay between 0 and 100 %."""
    if not math.isfinite(found.half):
        return "–"
    low, high = found.low, found.high
    if done.metric == "accuracy":
        low, high = max(low, 0.0), min(high, 1.0)
    return f"{shown(done, low)} to {shown(done, high)}"


def shown(done: Fixing, value: float | None) -> str:
    """Returns a score as it is written; losses without their sign."""
    if value is None:
        return "–"
    return _score(done, value)


def _score(done: Fixing, value: float) -> str:
    if done.metric == "accuracy":
        return f"{100 * value:.1f} %"
    if done.metric == "loss":
        return f"{-value:.4g}"
    return f"{value:.4f}".replace("-", "−")


def _closing(done: Fixing, resume: str) -> Iterator[str]:
    for sentence in done.advice:
        yield f"recommended without evidence: {visible(sentence, length=300)}"
    for sentence in done.notes:
        yield f"note: {visible(sentence, length=300)}"
    if done.early:
        if done.folder:
            yield f"kept in {visible(done.folder)}; to continue: {resume}"
        else:
            yield "nothing was kept: give -o OUT or --run-folder DIR"
    elif done.written:
        yield "written: " + ", ".join(visible(name) for name in done.written)
    elif done.kept:
        yield "nothing was written; -o OUT.safetensors writes the model"
    else:
        yield "nothing was written"
