"""Where the gradient goes on its way through the model, drawn for a terminal."""

from __future__ import annotations

import math
import ntpath
from collections.abc import Iterator

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vgaudit.findings import Report
from vgaudit.flow import GradientFlow, LayerFlow, Source
from vgaudit.plain import visible
from vgaudit.reports.look import BLOCKS, Look, bar, binned, heights
from vgaudit.rules.budget import shares
from vgaudit.rules.wording import decades, percent

LABEL = 15
INDENT = 2
WORST = 3
RECURRENCES = 4
WORTH_A_WORD = 0.1
"""Decades from which a kind of operation is named where little is lost in all."""

WORTH_A_BUDGET = 1.0
"""Decades of loss from which it is worth telling where they went."""


def transport(
    report: Report, flow: GradientFlow, look: Look
) -> Iterator[RenderableType]:
    """Yields the depth profile and the budget; where much is lost, the worst steps."""
    profile = _profile(report, flow, look)
    if profile is not None:
        yield row("depth profile", profile)
    yield from _memory(flow)
    if flow.attenuation is None:
        return
    if flow.attenuation.value > -WORTH_A_BUDGET:
        yield from _balance(flow, flow.attenuation.value)
        return
    yield from _budget(flow)
    yield from _worst(flow)


def _balance(flow: GradientFlow, whole: float) -> Iterator[RenderableType]:
    """Yields what each kind of operation gives and takes, where little is lost."""
    worth = [item for item in shares(flow) if abs(item.decades) >= WORTH_A_WORD]
    parts = [
        f"{item.noun} {_signed(item.decades)}"
        for item in sorted(worth, key=lambda item: -abs(item.decades))
    ]
    if parts and math.isfinite(whole):
        said = ", ".join(parts)
        yield row("budget", Text(f"{said}: together {_signed(whole)} decades"))


def _signed(value: float) -> str:
    """Returns ``+3.7`` or ``−0.6``; what rounds to nothing has no sign."""
    text = decades(value)
    return text if text.startswith("−") or not float(text) else f"+{text}"


def _worst(flow: GradientFlow) -> Iterator[RenderableType]:
    """Yields the steps that lose most, of the trunk and of all branches."""
    inner = (step for branch in flow.branches for step in branch.steps)
    steps = sorted((*flow.trunk, *inner), key=lambda step: step.gain.value)
    sources = {x.path: x.source for x in reversed(flow.layers) if x.source is not None}
    losing = [step for step in steps if step.gain.value < 0]
    for index, step in enumerate(losing[:WORST]):
        gain = step.gain.value
        loss = f"{decades(gain)} decades" if math.isfinite(gain) else "all of it"
        line = Text(f"{visible(step.layer or step.name)} ({loss})")
        source = sources.get(step.layer or "")
        if source is not None:
            line.append(f"  {line_of(source)}", style="dim")
        yield row("worst steps" if index == 0 else "", line)


def _memory(flow: GradientFlow) -> Iterator[RenderableType]:
    """Yields how far back each recurrent layer carries the gradient."""
    for index, item in enumerate(flow.recurrences[:RECURRENCES]):
        line = Text(f"{visible(item.layer)}: ")
        if item.horizon is None:
            line.append(f"all {item.steps:,} steps")
        else:
            line.append(f"{item.horizon:,} of {item.steps:,} steps")
        rate = f"{item.rate.value:+.2f}".replace("-", "−")
        line.append(f"  {rate} decades per step", style="dim")
        yield row("memory" if index == 0 else "", line)
    more = len(flow.recurrences) - RECURRENCES
    if more > 0:
        yield row("", Text(f"… and {more:,} more", style="dim"))


def _budget(flow: GradientFlow) -> Iterator[RenderableType]:
    """Yields a bar for each kind of operation that loses gradient."""
    rows = [item for item in shares(flow) if item.share >= 0.01]
    wide = max((len(item.noun) for item in rows), default=0)
    for index, item in enumerate(rows):
        line = Text(item.noun.ljust(wide + 1))
        line.append(bar(item.share), style="red" if index == 0 else "")
        line.append(f" {percent(item.share)}".rjust(7))
        line.append(f"  {decades(item.decades)}", style="dim")
        yield row("where it went" if index == 0 else "", line)


def _profile(report: Report, flow: GradientFlow, look: Look) -> Text | None:
    """Returns one bar for each weight layer of the trunk, input first."""
    values = _depth_values(flow)
    if len(values) < 2:
        return None
    shown = binned(values, max(look.width - LABEL - 40, 16))
    limit = report.thresholds.get(f"vanishing-gradient.{report.optimizer}_error", -3.6)
    line = Text()
    for value, height in zip(shown, heights(shown), strict=True):
        style = "red" if value < limit else "yellow" if value < limit + 1 else "green"
        line.append(BLOCKS[height], style=style)
    ends = f"  {_figure(values[0])} … {_figure(values[-1])} decades"
    line.append(ends)
    line.append("  input … output", style="dim")
    return line


def _depth_values(flow: GradientFlow) -> list[float]:
    """Returns the attenuation along the trunk, input first.

    At each weight layer where most of them lie on the trunk; else, where skips leave
    few of them there, at every tensor that all paths share.
    """
    layers = [_attenuation(x) for x in flow.layers if x.weighted and x.trunk]
    known = [value for value in layers if value is not None]
    if 2 * len(known) > flow.weight_layers or len(known) > len(flow.trunk):
        return known
    return [*(step.attenuation.value for step in flow.trunk), 0.0]


def _attenuation(layer: LayerFlow) -> float | None:
    if layer.attenuation is not None:
        return layer.attenuation.value
    return -math.inf if layer.zero_gradient else None


def _figure(value: float) -> str:
    return decades(value) if math.isfinite(value) else "zero gradient"


def layer_table(flow: GradientFlow, look: Look) -> RenderableType:
    """Returns the weight layers with the least gradient, in forward order."""
    rows = [
        (x, value)
        for x in flow.layers
        if x.weighted and (value := _attenuation(x)) is not None
    ]
    worst = sorted(rows, key=lambda row: row[1])[: look.top]
    kept = {id(layer) for layer, _ in worst}
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(overflow="fold", max_width=max(look.width // 3, 20))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(style="dim", overflow="fold")
    lowest = min((v for _, v in rows if math.isfinite(v)), default=-4.0)
    for layer, value in rows:
        if id(layer) in kept:
            share = 1 - value / min(lowest, -4.0) if math.isfinite(value) else 0.0
            at = line_of(layer.source) if layer.source else layer.type
            name = visible(layer.path)
            grid.add_row(name, _figure(value), bar(share, width=16), visible(at))
    return Padding(grid, (0, 0, 0, INDENT))


def row(label: str, value: RenderableType) -> RenderableType:
    """Returns a labelled line."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=LABEL, no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    grid.add_row(label, value)
    return Padding(grid, (0, 0, 0, INDENT))


def line_of(source: Source) -> str:
    """Returns ``mymodel.py:42``."""
    # ntpath splits at both kinds of slash, whatever system wrote the report.
    return f"{visible(ntpath.basename(source.file))}:{source.line}"
