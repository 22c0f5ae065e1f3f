"""What tells nets that stay at chance under Adam from nets that train.

    python benchmarks/detection/adam.py

Of the models that limits are fitted on, those that lose three decades or more: for
each figure that theory suggests, the probability that a sick net looks sicker than a
healthy one (area under the curve), and the fewest errors that one limit makes. The
labels are those of ``results.jsonl``; the gradients are of the task's own loss.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor, nn

from benchmarks.detection.build import Spec, build
from benchmarks.detection.grid import half, load
from benchmarks.detection.score import Row, label, lost
from benchmarks.detection.tasks import Task, loss_of, task
from benchmarks.detection.train import BATCH

EPSILON = 1e-8
BATCHES, SAMPLES = 8, 128
DEEP = -3.0
TIMED = ("recurrent", "unrolled")

Figures = dict[str, float]


def figures(spec: Spec, row: Row) -> Figures:
    """Returns the figures of one model, each the larger the sicker."""
    model, data = build(spec).float(), task(spec.task)
    features = row["ours"]["features"]
    return {
        "decades lost": -lost(row),
        "spread of the output": -float(features["variation"]),
        "dead units": float(features["dead"]),
        **_gradients(model, data),
        **_last_hidden(model, data),
    }


def _gradients(model: nn.Module, data: Task) -> Figures:
    """Returns the share on Adam's floor, and the signal to noise over batches."""
    weights = [p for p in model.parameters() if p.dim() >= 2]
    taken: list[list[Tensor]] = []
    for start in range(0, BATCHES * BATCH, BATCH):
        part = slice(start, start + BATCH)
        model.zero_grad()
        loss = loss_of(model(data.x[part].float()), data.y[part])
        loss.backward()  # type: ignore[no-untyped-call]
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in weights]
        taken.append([g.double().clone() for g in grads])
    first = torch.cat([g.flatten() for g in taken[0]])
    ratios = []
    for each in zip(*taken, strict=True):
        over = torch.stack(each)
        noise = float(over.std(0).norm())
        ratios.append(float(over.mean(0).norm()) / noise if noise else 0.0)
    return {
        "share on the floor of ε": float((first.abs() <= EPSILON).double().mean()),
        "signal to noise, worst weight": -min(ratios),
    }


def _last_hidden(model: nn.Module, data: Task) -> Figures:
    """Returns spread and rank of what the last linear or convolution is given."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        seen.append(inputs[0])

    kinds = (nn.Linear, nn.Conv2d)
    layers = [m for m in model.modules() if isinstance(m, kinds)]
    hooks = [layer.register_forward_hook(keep) for layer in layers]
    with torch.no_grad():
        model(data.x[:SAMPLES].float())
    for hook in hooks:
        hook.remove()
    if not seen:
        return {"spread of the last hidden": math.nan, "rank of it": math.nan}
    x = seen[-1].double().flatten(1)
    even = x - x.mean(0)
    energy = torch.linalg.svdvals(even).square()
    rank = float(energy.sum() ** 2 / energy.square().sum()) if energy.any() else 0.0
    spread = float(even.norm() / x.norm())
    return {"spread of the last hidden": -spread, "rank of it": -rank}


def curve(sick: Sequence[float], healthy: Sequence[float]) -> float:
    """Returns the probability that a sick one is above a healthy one, ties half."""
    wins = sum((a > b) + 0.5 * (a == b) for a in sick for b in healthy)
    return wins / len(sick) / len(healthy)


def fewest(sick: Sequence[float], healthy: Sequence[float]) -> int:
    """Returns the fewest errors of “sick from this limit on”."""
    limits = sorted({*sick, *healthy, math.inf})
    return min(sum(x < t for x in sick) + sum(x >= t for x in healthy) for t in limits)


def _chosen(rows: dict[str, Row]) -> Iterator[tuple[Spec, bool]]:
    for spec in load():
        row = rows.get(spec.name)
        if row is None or half(spec.name) != "fit" or spec.family in TIMED:
            continue
        truth = label(row, "adam")
        if truth in ("healthy", "vanishing") and lost(row) <= DEEP:
            yield spec, truth == "vanishing"


def main() -> None:
    """Prints one line a figure, for all nets and for those of sigmoid units."""
    torch.set_num_threads(1)
    text = Path(__file__).with_name("results.jsonl").read_text()
    rows = {row["name"]: row for row in map(json.loads, text.splitlines())}
    found = [(s, sick, figures(s, rows[s.name])) for s, sick in _chosen(rows)]
    groups: dict[str, Callable[[Spec], bool]] = {
        "all": lambda spec: True,
        "sigmoid": lambda spec: spec.activation == "sigmoid",
    }
    for name in found[0][2]:
        cells = []
        for group, belongs in groups.items():
            values = [(f[name], k) for s, k, f in found if belongs(s)]
            sick = [x for x, k in values if k and not math.isnan(x)]
            well = [x for x, k in values if not k and not math.isnan(x)]
            cells.append(
                f"{group}: {curve(sick, well):.2f}, {fewest(sick, well)} errors "
                f"({len(sick)} sick, {len(well)} healthy)"
            )
        sys.stdout.write(f"{name}: {'; '.join(cells)}\n")


if __name__ == "__main__":
    main()
