"""What the two sides of a comparison are, how good each is, and where they differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vgaudit.estimates import accuracies_apart
from vgaudit.findings import Report
from vgaudit.plain import visible
from vgaudit.rules.wording import count
from vgaudit.scores import Score, of_scan


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a side beside its report.

    Attributes:
        name: as the user named it: ``train.json#before``, or a model's spec.
        score: how good the model is.
        unscored: why that could not be found out, or empty.
    """

    name: str = ""
    score: Score | None = None
    unscored: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What was measured on one side of a comparison.

    Attributes:
        name: as the user named it; empty for an object of Python.
        model: the spec of the model. architecture: class or zoo name.
        parameters: number of elements. weight_layers: on the longest path.
        data: spec of the data, or a description of made-up inputs.
        synthetic: the data was made up.
        loss: its name, or ``jacobian``.
        batches, samples: that were measured. mode: ``train`` or ``eval``.
        seed: of the order of the data, and of what was made up.
    """

    name: str
    model: str
    architecture: str
    parameters: int
    weight_layers: int
    data: str
    synthetic: bool
    loss: str
    batches: int
    samples: int
    mode: str
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """How the scores moved: after minus before.

    Attributes:
        metric: in units of the metric; None where the sides have not the same one.
        uncertainty: 95 % half width of ``metric`` from the numbers of samples, for an
            accuracy.
        loss: of the same loss; None where it is another, or not known.
    """

    metric: float | None = None
    uncertainty: float | None = None
    loss: float | None = None


def side(report: Report, name: str) -> Side | None:
    """Returns what a report is about; None of a run that failed."""
    audit = report.audit
    if audit is None:
        return None
    return Side(
        name=name,
        model=audit.target.spec,
        architecture=audit.target.architecture,
        parameters=audit.target.parameters,
        weight_layers=audit.flow.weight_layers,
        data=audit.data.spec,
        synthetic=audit.data.kind == "synthetic",
        loss=audit.data.loss,
        batches=audit.flow.batches,
        samples=audit.flow.samples,
        mode=audit.flow.mode,
        seed=audit.flow.seed,
    )


def scores(
    reports: tuple[Report, Report], known: tuple[Known, Known]
) -> tuple[Score | None, Score | None]:
    """Returns the score of each side: as known, or where one is not, of both scans."""
    before, after = known
    if before.score is not None and after.score is not None:
        return before.score, after.score
    scanned = of_scan(reports[0].audit), of_scan(reports[1].audit)
    return (before.score, after.score) if None in scanned else scanned


def gain(before: Score | None, after: Score | None) -> Gain | None:
    """Returns how the scores moved; None where they have nothing in common."""
    if before is None or after is None:
        return None
    metric = uncertainty = loss = None
    old, new = before.value, after.value
    if old is not None and new is not None and before.metric == after.metric:
        metric = new - old
        if before.metric == "accuracy":
            sides = (new, after.samples), (old, before.samples)
            uncertainty = accuracies_apart(*sides)
    if before.loss is not None and after.loss is not None:
        loss = after.loss - before.loss if before.loss_name == after.loss_name else None
    if metric is None and loss is None:
        return None
    return Gain(metric=metric, uncertainty=uncertainty, loss=loss)


def differences(
    sides: tuple[Side | None, Side | None],
    judged: tuple[Score | None, Score | None],
    known: tuple[Known, Known],
) -> tuple[str, ...]:
    """Returns what is not alike beside the findings, one sentence each."""
    before, after = sides
    found: list[str] = []
    if before is not None and after is not None:
        found += [*_models(before, after), *_circumstances(before, after)]
    # Scores of scans on other samples are told by the line on the scans.
    if not any(line.startswith("measured on") for line in found):
        found += _samples(*judged) if gain(*judged) is not None else ()
    for when, one in zip(("before", "after"), known, strict=True):
        if one.unscored:
            found.append(f"the model {when} could not be scored: {one.unscored}")
    return tuple(found)


def _models(a: Side, b: Side) -> Iterator[str]:
    def size(one: Side) -> str:
        layers = count(one.weight_layers, "weight layer")
        return f"{layers}, {count(one.parameters, 'parameter')}"

    if a.architecture != b.architecture:
        old, new = (f"{visible(x.architecture)} ({size(x)})" for x in (a, b))
        yield f"the architectures differ: {old} before, {new} after"
    elif size(a) != size(b):
        name = visible(a.architecture)
        yield f"the models differ: {name} with {size(a)} before, {size(b)} after"


def _circumstances(a: Side, b: Side) -> Iterator[str]:
    """Yields how the measurements differ; of other data, its amount says no more."""
    if (a.data, a.synthetic) != (b.data, b.synthetic):
        old, new = visible(a.data), visible(b.data)
        yield f"measured on different data: {old} before, {new} after"
    elif a.samples != b.samples:
        old, new = (count(x.samples, "sample") for x in (a, b))
        yield f"measured on different samples: {old} before, {new} after"
    elif a.seed != b.seed:
        yield f"measured with different seeds: {a.seed} before, {b.seed} after"
    if a.loss != b.loss:
        old, new = visible(a.loss), visible(b.loss)
        yield f"measured with different losses: {old} before, {new} after"
    if a.mode != b.mode:
        yield f"measured in different modes: {a.mode} before, {b.mode} after"


def _samples(a: Score | None, b: Score | None) -> Iterator[str]:
    if a is None or b is None or (a.on, a.samples) == (b.on, b.samples):
        return
    old, new = (judged_on(x) for x in (a, b))
    yield f"scored on different samples: {old} before, {new} after"


def judged_on(score: Score) -> str:
    """Returns ``60 samples (60 of 600 samples, held out by seed 0)``."""
    return f"{count(score.samples, 'sample')} ({visible(score.on, length=200)})"
