"""What a deep or a static scan adds to the terminal report, one line a subject."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from rich.console import RenderableType
from rich.text import Text

from vgaudit.flow import (
    AttentionFlow,
    DeepFlow,
    GradientFlow,
    JacobianFlow,
    NoiseFlow,
    ParameterPrecision,
    PlainStretch,
    StaticFlow,
    StreamPoint,
    TheoryFlow,
)
from vgaudit.plain import visible
from vgaudit.reports.transport import row
from vgaudit.rules.wording import count, decades, number, percent

_MOST_STRETCHES = 4
_WORTH_NAMING = 1e-3
"""Share of a gradient from which a loss is worth a name."""


def deep_section(flow: GradientFlow) -> Iterator[RenderableType]:
    """Yields the lines of a deep scan; none for an ordinary one."""
    deep = flow.deep
    if deep is None:
        return
    yield ""
    for label, lines in _subjects(deep, lossy=flow.probe == "loss"):
        for index, line in enumerate(lines):
            yield row(label if index == 0 else "", Text(line))
    missing = [f"{visible(x.path)}: {visible(x.reason)}" for x in deep.not_measured]
    for index, line in enumerate(missing):
        yield row("not measured" if index == 0 else "", Text(line))


def _subjects(deep: DeepFlow, *, lossy: bool) -> Iterator[tuple[str, Iterable[str]]]:
    if deep.theory is not None:
        yield "theory", _theory(deep.theory)
    if deep.jacobians:
        yield "singular values", _jacobians(deep.jacobians)
    if deep.stream:
        yield "forward signal", _stream(deep.stream)
    if deep.attention:
        yield "attention", _attention(deep.attention)
    if deep.precision:
        yield "number formats", _precision(deep.precision, lossy=lossy)
    if deep.precision and lossy:
        yield "first step", _steps(deep.precision)
    if deep.noise:
        yield "noise", _noise(deep.noise)
    if deep.prices:
        yield "price", _prices(deep)


def _theory(found: TheoryFlow) -> Iterator[str]:
    yield (
        f"{decades(found.predicted)} ± {found.spread:.2f} decades predicted, "
        f"{decades(found.measured)} measured"
    )
    scale = "no depth scale" if math.isinf(found.depth_scale) else _scale(found)
    yield f"χ₁ {number(found.chi)} per weight layer: {scale}"
    if found.predicted_free is not None:
        yield f"{decades(found.predicted_free)} from the weights alone, without data"
    if found.until:
        covered = f"{found.covered:,} of {count(found.steps, 'trunk step')}"
        yield f"covers {covered}, as far as {visible(found.until)}"


def _scale(found: TheoryFlow) -> str:
    what = "falls" if found.depth_scale > 0 else "grows"
    return f"‖δ‖² {what} by e in ξ = {number(abs(found.depth_scale))} layers"


def _jacobians(found: tuple[JacobianFlow, ...]) -> Iterator[str]:
    whole = [j for j in found if not j.layer]
    blocks = [j for j in found if j.layer]
    for jacobian in whole:
        yield f"input to output: {_values(jacobian)}"
    if len(blocks) > 1:
        low = min(blocks, key=lambda j: j.mean_square)
        high = max(blocks, key=lambda j: j.mean_square)
        yield (
            f"{count(len(blocks), 'block')}: mean σ² from {number(low.mean_square)} "
            f"({visible(low.layer)}) to {number(high.mean_square)} "
            f"({visible(high.layer)})"
        )
        known = [j for j in blocks if j.largest is not None]
        if known:
            top = max(known, key=lambda j: j.largest or 0.0)
            yield f"largest σ of a block {number(top.largest or 0.0)} ({top.layer})"
    elif blocks:
        yield f"{visible(blocks[0].layer)}: {_values(blocks[0])}"


def _values(jacobian: JacobianFlow) -> str:
    parts = [f"mean σ² {number(jacobian.mean_square)}"]
    if jacobian.largest is not None:
        rough = "" if jacobian.converged else " at least"
        parts.append(f"largest σ{rough} {number(jacobian.largest)}")
    if jacobian.spectrum:
        parts.append(f"smallest {number(jacobian.spectrum[-1])}")
    shape = f"{jacobian.inputs:,} × {jacobian.outputs:,}"
    return f"{', '.join(parts)} ({shape})"


def _stream(points: tuple[StreamPoint, ...]) -> Iterator[str]:
    apart = [p.variation for p in points if p.variation is not None]
    if apart:
        yield f"inputs differ by {_course(apart)} of their size from first to last"
    alike = [p.tokens for p in points if p.tokens is not None]
    if alike:
        ranks = [p.rank for p in points if p.tokens is not None]
        yield (
            f"tokens differ by {_course(alike)}; they span {number(ranks[0])} → "
            f"{number(ranks[-1])} directions"
        )


def _course(values: list[float]) -> str:
    least = min(values)
    ends = f"{number(values[0])} → {number(values[-1])}"
    return f"{ends} (least {number(least)})" if least < values[-1] else ends


def _attention(calls: tuple[AttentionFlow, ...]) -> Iterator[str]:
    entropies = [value for call in calls for value in call.entropy]
    heads = count(len(entropies), "head")
    yield (
        f"{heads} in {count(len(calls), 'layer')}: entropy / log n from "
        f"{number(min(entropies))} to {number(max(entropies))}"
    )
    logits = [(x, c) for c in calls for x in c.largest_logit if not math.isnan(x)]
    if logits:
        top, where = max(logits, key=lambda pair: pair[0])
        yield f"largest logit {number(top)} ({visible(where.layer)})"


def _precision(found: tuple[ParameterPrecision, ...], *, lossy: bool) -> Iterator[str]:
    total = sum(x.elements for x in found)
    for name in ("float16", "bfloat16"):
        lost = math.fsum(x.lost(name) * x.elements for x in found) / max(total, 1)
        worst = max(found, key=lambda x: x.lost(name))
        line = f"{name} turns {percent(lost)} of the gradient into 0"
        if worst.lost(name) >= _WORTH_NAMING:
            line += f", {percent(worst.lost(name))} of {visible(worst.name)}"
        yield line
    scales = [x.loss_scale for x in found]
    known = [x for x in scales if x is not None]
    if len(known) < len(scales):
        yield f"no loss scale saves {count(len(scales) - len(known), 'parameter')}"
    elif max(known) > 1:
        yield f"a loss scale of {max(known):,.0f} saves all of it in float16"
    if not lossy:
        yield "sizes are those of unit cotangents; data and a loss give the real ones"


def _steps(found: tuple[ParameterPrecision, ...]) -> Iterator[str]:
    for optimizer in ("sgd", "adam"):
        steps = [u for x in found if (u := x.update(optimizer)) is not None]
        ratios = sorted(u.ratio for u in steps if u.ratio)
        if not ratios:
            continue
        name = "SGD" if optimizer == "sgd" else "Adam"
        lost = max(u.swallowed for u in steps)
        yield (
            f"{name}, η = {number(steps[0].learning_rate)}: step / weight from "
            f"{number(ratios[0])} to {number(ratios[-1])}; up to {percent(lost)} lost "
            "in bfloat16 weights"
        )
    floor = max((u.floor for x in found for u in x.updates), default=0.0)
    if floor:
        yield f"up to {percent(floor)} of a parameter on Adam's ε floor"


def _noise(lines: tuple[NoiseFlow, ...]) -> Iterator[str]:
    whole = lines[0]
    size = (
        "no signal beyond the noise"
        if math.isinf(whole.noise_scale)
        else f"both are equal at a batch of {number(whole.noise_scale)}"
    )
    yield (
        f"signal / noise {number(whole.snr)} in a batch of {whole.batch_size:,}: {size}"
    )
    if len(lines) > 2:
        low = min(lines[1:], key=lambda x: x.snr if x.snr == x.snr else math.inf)
        yield f"least in {visible(low.name)}: {number(low.snr)}"


def _prices(deep: DeepFlow) -> Iterator[str]:
    yield "; ".join(
        f"{price.part} {price.seconds:.1f} s"
        + (
            ""
            if math.isnan(price.passes)
            else f" ({count(round(price.passes), 'pass')})"
        )
        for price in deep.prices
    )


def static_section(static: StaticFlow | None) -> Iterator[RenderableType]:
    """Yields the lines of a static scan; none for one that ran the model."""
    if static is None:
        return
    yield ""
    found = sorted(static.stretches, key=lambda run: run.decades)
    lines = [_stretch(run) for run in found[:_MOST_STRETCHES]]
    if len(found) > _MOST_STRETCHES:
        lines.append(f"… and {len(found) - _MOST_STRETCHES:,} more")
    if not lines:
        lines = ["on the trunk no two weight layers follow without norm or skip"]
    for index, line in enumerate(lines):
        yield row("plain stretches" if index == 0 else "", Text(line))
    if static.predicted is not None:
        change = f"{decades(static.predicted)} decades over the whole trunk"
        yield row("theory", Text(f"{change}, from the weights alone"))
    judged = f"{static.judged:,} of {count(static.weight_layers, 'weight layer')}"
    least = min(static.judged, static.weight_layers)
    if least < static.weight_layers:
        yield row("judged", Text(f"{judged}; of the others theory says nothing"))


def _stretch(run: PlainStretch) -> str:
    kinds = sorted({x.activation for x in run.layers} - {"linear"}) or ["linear"]
    ends = f"{visible(run.layers[0].layer)} … {visible(run.layers[-1].layer)}"
    many = f"{count(len(run.layers), 'layer')}, {', '.join(map(visible, kinds))}"
    return f"{ends} ({many}): {decades(run.decades)} decades by theory"
