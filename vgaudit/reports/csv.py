"""The layer table as CSV: every call of every layer, one a row.

Text cells that a spreadsheet would take for a formula begin with an apostrophe.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping

from vgaudit.findings import Report
from vgaudit.flow import Interval, LayerFlow
from vgaudit.reports.escaping import cell, inert
from vgaudit.suite import Suite, single

COLUMNS = (
    "target",
    "path",
    "type",
    "order",
    "depth",
    "call",
    "trunk",
    "weighted",
    "attenuation_decades",
    "attenuation_lo",
    "attenuation_hi",
    "gain_decades",
    "zero_gradient",
    "parameters",
    "grad_rms",
    "weight_rms",
    "activation",
    "saturated_share",
    "dead_units",
    "units",
    "source_file",
    "source_line",
    "findings",
)


def render(report: Report) -> str:
    """Returns the layers of one report."""
    return render_suite(single(report))


def render_suite(suite: Suite) -> str:
    """Returns the layers of all reports, with the name of the target in front."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for entry in suite.entries:
        if entry.report.audit is None:
            continue
        codes = _codes(entry.report)
        for layer in entry.report.audit.flow.layers:
            row = dict(_row(layer, codes))
            writer.writerow({"target": cell(entry.name), **row})
    return inert(stream.getvalue())


def _codes(report: Report) -> dict[str, list[str]]:
    """Returns the codes of the findings at each layer."""
    found: dict[str, list[str]] = {}
    for finding in report.findings:
        for path in finding.layers:
            found.setdefault(path, []).append(finding.code)
    return found


def _row(
    layer: LayerFlow, codes: Mapping[str, list[str]]
) -> Iterator[tuple[str, object]]:
    yield "path", cell(layer.path)
    yield "type", cell(layer.type)
    yield "order", layer.order
    yield "depth", layer.depth
    yield "call", layer.call
    yield "trunk", int(layer.trunk)
    yield "weighted", int(layer.weighted)
    yield from _interval(layer.attenuation)
    yield "gain_decades", layer.gain.value if layer.gain is not None else None
    yield "zero_gradient", int(layer.zero_gradient)
    yield "parameters", sum(p.numel for p in layer.parameters)
    # The first parameter is the weight; norms of a bias beside it say little.
    for parameter in layer.parameters[:1]:
        yield "grad_rms", parameter.grad_rms
        yield "weight_rms", parameter.weight_rms
    stats = layer.activation
    if stats is not None:
        yield "activation", cell(stats.kind)
        yield "saturated_share", stats.saturated
        yield "dead_units", stats.dead_units
        yield "units", stats.units
    if layer.source is not None:
        yield "source_file", cell(layer.source.file)
        yield "source_line", layer.source.line
    yield "findings", " ".join(codes.get(layer.path, ()))


def _interval(figure: Interval | None) -> Iterator[tuple[str, object]]:
    if figure is not None:
        yield "attenuation_decades", figure.value
        yield "attenuation_lo", figure.lo
        yield "attenuation_hi", figure.hi
