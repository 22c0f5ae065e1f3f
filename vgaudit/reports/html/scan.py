"""One scan as a page: the verdict, the findings, where the gradient goes, the rest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from vgaudit import __version__
from vgaudit.findings import Finding, Report
from vgaudit.flow import Audit, GradientFlow, LayerFlow
from vgaudit.plain import visible
from vgaudit.reports.charts import (
    activations,
    budget,
    deep,
    exponents,
    histograms,
    lag,
    profile,
)
from vgaudit.reports.charts.depth import spoken
from vgaudit.reports.charts.figure import Figure, Grid, called, figure
from vgaudit.reports.html.findings import MOST, Shown, grouped
from vgaudit.reports.transport import line_of
from vgaudit.reports.verdict import headline, notes, unmeasured
from vgaudit.rules.wording import count, decades, number, percent

MOST_LAYERS = 600
"""Rows of the layer table."""

MOST_NOTES = 60


@dataclass(frozen=True, slots=True)
class Stated:
    """One of the figures below the headline."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Charts under one heading."""

    title: str
    charts: tuple[Figure, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that the template of a scan shows."""

    version: str
    target: str
    status: str
    headline: str
    lead: str
    figures: tuple[Stated, ...] = ()
    findings: tuple[Shown, ...] = ()
    unlisted: str = ""
    sections: tuple[Section, ...] = ()
    layers: Grid | None = None
    layers_words: str = ""
    suppressed: tuple[str, ...] = ()
    unmeasured: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    thresholds: Grid | None = None
    explain: str = ""


def view(report: Report) -> View:
    """Returns what the page of a report shows."""
    audit = report.audit
    first = View(
        version=__version__,
        target=visible(audit.target.spec) if audit is not None else "",
        status=report.status,
        headline=sentence(headline(report)),
        lead=_said(report),
    )
    return first if audit is None else _measured(report, audit, first)


def charts(report: Report) -> tuple[Section, ...]:
    """Returns the charts of a report that there is something to draw for."""
    if report.audit is None:
        return ()
    flow = report.audit.flow
    limits = profile.limits(flow, report.thresholds, report.optimizer)
    transport = (
        () if flow.uncalibrated else (budget.draw(flow), profile.draw(flow, limits))
    )
    sections = (
        ("Where the gradient goes", transport),
        ("Activations", (activations.draw(flow), histograms.draw(flow))),
        ("Recurrent layers", (lag.draw(flow),)),
        ("Deep measurements", _deep(flow)),
    )
    found = (
        Section(title, tuple(chart for chart in drawn if chart is not None))
        for title, drawn in sections
    )
    return tuple(section for section in found if section.charts)


def _deep(flow: GradientFlow) -> tuple[Figure | None, ...]:
    return (
        deep.stream(flow),
        deep.attention(flow),
        deep.spectrum(flow),
        exponents.draw(flow),
    )


def sentence(text: str) -> str:
    """Returns a statement as a sentence of its own."""
    return (
        f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"
    )


def _measured(report: Report, audit: Audit, first: View) -> View:
    flow = audit.flow
    more = len(report.findings) - MOST
    layers = layer_grid(flow)
    shown = count(len(layers.rows) if layers is not None else 0, "weight layer")
    return View(
        version=first.version,
        target=first.target,
        status=first.status,
        headline=first.headline,
        lead=first.lead,
        figures=tuple(_figures(report, audit)),
        findings=grouped(report.findings),
        unlisted=f"{count(more, 'more finding')} in the JSON report"
        if more > 0
        else "",
        sections=charts(report),
        layers=layers,
        layers_words=f"{shown}, in forward order",
        suppressed=_suppressed(report),
        unmeasured=_few(unmeasured(flow)),
        notes=_few(notes(report, audit)),
        facts=tuple(_facts(report, audit)),
        thresholds=_thresholds(report),
        explain=f"vgaudit explain {report.findings[0].code}" if report.findings else "",
    )


def _few(lines: list[str]) -> tuple[str, ...]:
    more = len(lines) - MOST_NOTES
    rest = (f"… and {more:,} more, in the JSON report",) if more > 0 else ()
    return (*lines[:MOST_NOTES], *rest)


def _said(report: Report) -> str:
    """Returns the sentence below the headline."""
    if report.audit is None:
        return _hint(report)
    return "" if report.status == "inconclusive" else _lead(report.audit.flow)


def _hint(report: Report) -> str:
    hint = report.errors[0].get("hint", "") if report.errors else ""
    return sentence(visible(str(hint), length=500)) if hint else ""


def _lead(flow: GradientFlow) -> str:
    """Returns what the attenuation means, in plain words."""
    if flow.attenuation is None:
        return "No path from the output to a weight layer of the trunk was found."
    value = flow.attenuation.value
    part = budget.lost(value)
    if part:
        return (
            f"Of the gradient at the output, {part} is left at the weight layer that "
            "is farthest from it."
        )
    if not math.isfinite(value):
        return "No gradient is left at the weight layer farthest from the output."
    if value <= 0:
        return (
            f"At the weight layer farthest from the output, {percent(10**value)} of "
            "the output’s gradient is left."
        )
    return (
        f"It grows {_fold(value)} on its way to the weight layer that is farthest from "
        "the output."
    )


def _fold(decades_gained: float) -> str:
    """Returns ``twofold`` in figures: ``7.1-fold``, ``75,000-fold``."""
    if decades_gained > 9:
        return f"by {decades(decades_gained)} powers of ten"
    size = 10.0**decades_gained
    digits = 1 if size < 10 else 0
    unit = 10 ** max(int(decades_gained) - 1, 0)
    return f"{round(size / unit, digits) * unit:,.{digits}f}-fold"


def _figures(report: Report, audit: Audit) -> Iterator[Stated]:
    flow = audit.flow
    if flow.attenuation is not None:
        interval = flow.attenuation
        spread = f"95 %: {figure(interval.lo)} to {figure(interval.hi)}"
        known = math.isfinite(interval.lo) and math.isfinite(interval.hi)
        note = spread if interval.n > 1 and known else ""
        yield Stated("left at the input, decades", figure(interval.value), note)
    per_layer = flow.decades_per_layer
    if per_layer is not None and math.isfinite(per_layer):
        layers = count(flow.weight_layers, "weight layer")
        yield Stated("decades a layer", figure(per_layer), layers)
    worst = flow.worst_step
    if worst is not None and worst.gain.value < 0:
        name = called(spoken(worst.layer or worst.name))
        yield Stated("worst step, decades", figure(worst.gain.value), name)
    yield Stated(
        "parameters", f"{audit.target.parameters:,}", called(audit.target.architecture)
    )
    errors, warnings = report.count("error"), report.count("warning")
    rest = f"{count(warnings, 'warning')}, {report.count('info')} info"
    yield Stated("errors", f"{errors:,}", f"{rest}; exit {report.exit_code}")


def _suppressed(report: Report) -> tuple[str, ...]:
    return tuple(
        f"{x.finding.code} {x.finding.name}, {_where(x.finding)}: "
        f"{visible(x.reason, length=300)} ({x.by})"
        for x in report.suppressed[:MOST_NOTES]
    )


def _where(finding: Finding) -> str:
    return visible(finding.layer) or "the model"


def layer_grid(flow: GradientFlow) -> Grid | None:
    """Returns every weight layer in forward order; of too many, those that starve."""
    found = [layer for layer in flow.layers if layer.weighted]
    if not found:
        return None
    shown = found
    if len(found) > MOST_LAYERS:
        ranked = sorted(range(len(found)), key=lambda i: _left(found[i]))
        shown = [found[i] for i in sorted(ranked[:MOST_LAYERS])]
    columns = (
        "layer",
        "type",
        "at",
        "#decades left",
        "#own gain",
        "#gradient / weight",
    )
    left_out = len(found) - len(shown)
    note = f"{left_out:,} layers with more gradient: in the JSON report"
    return Grid(
        (*columns, "#zero share"),
        tuple(map(_layer_cells, shown)),
        note if left_out else "",
    )


def _left(layer: LayerFlow) -> float:
    if layer.attenuation is not None and not math.isnan(layer.attenuation.value):
        return layer.attenuation.value
    return -math.inf if layer.zero_gradient else math.inf


def _layer_cells(layer: LayerFlow) -> tuple[str, ...]:
    ratios = [
        p.grad_to_weight for p in layer.parameters if p.grad_to_weight is not None
    ]
    zeros = [p.zero_fraction for p in layer.parameters]
    left = layer.attenuation.value if layer.attenuation is not None else None
    return (
        called(layer.path) + (f" call {layer.call + 1}" if layer.call else ""),
        visible(layer.type, length=32),
        line_of(layer.source) if layer.source is not None else "–",
        "zero gradient" if layer.zero_gradient else figure(left),
        figure(layer.gain.value if layer.gain is not None else None),
        number(ratios[0]) if ratios else "–",
        percent(max(zeros)) if zeros else "–",
    )


def _facts(report: Report, audit: Audit) -> Iterator[tuple[str, str]]:
    target, data, run, flow = audit.target, audit.data, audit.run, audit.flow
    yield "model", visible(target.spec)
    yield "architecture", visible(target.architecture)
    yield "format", f"{visible(target.format)}, trust tier {target.trust_tier}"
    if target.sha256:
        yield "sha256", visible(target.sha256)
    trainable = f"{target.trainable:,} trainable"
    yield "parameters", f"{target.parameters:,}, {trainable}"
    samples = f"{flow.samples:,} {data.kind} samples in {count(flow.batches, 'batch')}"
    yield "data", f"{samples} ({visible(data.spec)})"
    yield (
        "probe",
        "random cotangents (jacobian)"
        if flow.probe == "jacobian"
        else (f"loss {visible(data.loss)}"),
    )
    if flow.loss is not None:
        yield "loss", f"{number(flow.loss.value)} ± {number(flow.loss.std)}"
    yield (
        "measured",
        f"{flow.mode} mode, {flow.precision.measured}, {visible(flow.device)}",
    )
    yield "judged for", report.optimizer
    versions = f"torch {visible(run.torch)}, Python {visible(run.python)}"
    yield "environment", f"{versions}, {visible(run.sandbox)}"
    yield "seed and time", f"{run.seed}, {decades(run.seconds)} s"
    if report.command:
        yield "command", visible(report.command, length=1000)


def _thresholds(report: Report) -> Grid:
    rows = tuple((name, number(x)) for name, x in sorted(report.thresholds.items()))
    return Grid(("limit", "#value"), rows)
