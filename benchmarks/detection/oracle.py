"""Labels from training alone: no gradient, no rule, no threshold of vgaudit.

For each optimizer a model is trained from its initial weights at two to four
learning rates (all that are sensible; smaller ones where the others diverge).

* ``healthy``: some run explains 30 % of the entropy (or variance) or more.
* ``exploding``: no run learns, and every run diverges; or all is as for
  ``vanishing`` below, but the loss starts above ten times chance (such a run has
  fallen to chance by killing the net).
* ``dead``: no run learns, the outputs are constant over the whole data set in
  float64, and some layer's output is constant although its input is not.
* ``vanishing``: no run learns, the best one stays at chance (explains 5 % or
  less), and so does another run, with another order of the batches and twice
  as many steps.
* ``unclear``: all else, above all what lies between 5 % and 30 %, and what
  learns only in the longer run. These are left out of the rates and counted.

Where a model is at chance, the *frozen-control test* says which layers do not
learn: a group of layers does not learn if freezing it at its initial weights
changes nothing that training reaches (less than two percentage points). At chance
several groups can each reach the class frequencies without the others, so the
counterpart is asked as well: a group that reaches something when it alone is
trained does learn.
Where a model is healthy, parameters that stay bit-equal to their start under
every run are cut off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.detection.build import Spec, build
from benchmarks.detection.tasks import task
from benchmarks.detection.train import Kind, Outcome, Run, Watch, train

Label = Literal["healthy", "vanishing", "exploding", "dead", "unclear"]

STEPS, LONGER, CONTROL = 300, 600, 150
CHANCE = 0.05
FROZEN_MARGIN = 0.02
RATES: dict[Kind, tuple[float, ...]] = {
    "sgd": (0.1, 0.5, 0.01),
    "adam": (1e-3, 3e-3),
}
GENTLER: dict[Kind, tuple[float, ...]] = {"sgd": (1e-3, 1e-4), "adam": (1e-4,)}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the oracle says about one model under one optimizer.

    Attributes:
        label: the class.
        explained: the best that any run of the usual length reached.
        longer: what the longer run reached; None where none was needed.
        rate: the learning rate of the best run.
        groups: layers by name, from input to output, as the frozen-control
            test groups them; empty where it was not made.
        learns: for each group, whether it learns.
        still: parameters that no run moved.
    """

    label: Label
    explained: float
    rate: float
    longer: float | None = None
    groups: tuple[tuple[str, ...], ...] = ()
    learns: tuple[bool, ...] = ()
    still: tuple[str, ...] = ()


def label(spec: Spec, kind: Kind, watch: Watch | None = None) -> Verdict:
    """Returns the oracle's verdict.

    Args:
        spec: the model.
        kind: the optimizer.
        watch: looks on at the first run, for peers that watch training.
    """
    tried: dict[float, Outcome] = {}
    for rate in RATES[kind]:
        run = Run(kind=kind, rate=rate, steps=STEPS)
        tried[rate] = train(spec, run, None if tried else watch)
        if tried[rate].learned:
            return _verdict("healthy", tried)
    for rate in GENTLER[kind]:
        if not all(outcome.diverged for outcome in tried.values()):
            break
        tried[rate] = train(spec, Run(kind=kind, rate=rate, steps=STEPS))
        if tried[rate].learned:
            return _verdict("healthy", tried)
    if all(outcome.diverged for outcome in tried.values()):
        return _verdict("exploding", tried)
    return _at_chance(spec, kind, tried)


def _cause(spec: Spec) -> Label:
    if dead(spec):
        return "dead"
    return "exploding" if blown_up(spec) else "vanishing"


def blown_up(spec: Spec) -> bool:
    """Tells whether the untrained loss is far above that of a constant output."""
    start = train(spec, Run(kind="sgd", rate=0.0, steps=0))
    return start.diverged


def _at_chance(spec: Spec, kind: Kind, tried: dict[float, Outcome]) -> Verdict:
    first = _verdict("unclear", tried)
    if first.explained > CHANCE:
        return first
    again = Run(kind=kind, rate=first.rate, steps=LONGER, order=1)
    longer = train(spec, again).best
    if longer > CHANCE:
        return replace(first, longer=longer)
    groups = layer_groups(build(spec))
    learns = tuple(_frozen_control(spec, kind, first, groups))
    return replace(
        first,
        label=_cause(spec),
        longer=longer,
        groups=groups,
        learns=learns,
    )


def _verdict(label: Label, tried: dict[float, Outcome]) -> Verdict:
    """Returns what the best run reached, under a label."""
    calm = {r: o for r, o in tried.items() if not o.diverged} or tried
    rate = max(calm, key=lambda r: calm[r].best)
    still = set.intersection(*(set(o.still) for o in tried.values()))
    return Verdict(
        label=label, explained=calm[rate].best, rate=rate, still=tuple(sorted(still))
    )


def _frozen_control(
    spec: Spec, kind: Kind, best: Verdict, groups: tuple[tuple[str, ...], ...]
) -> Iterator[bool]:
    """Yields for each group whether training needs it, or gains by it alone."""
    run = Run(kind=kind, rate=best.rate, steps=CONTROL, stop=False)
    free, start = train(spec, run).explained, train(spec, replace(run, steps=0))
    everything = {name for name, _ in build(spec).named_parameters()}
    for group in groups:
        names = set(_parameters(build(spec), group))
        frozen = train(spec, replace(run, frozen=names)).explained
        alone = train(spec, replace(run, frozen=everything - names)).explained
        needed = not abs(frozen - free) <= FROZEN_MARGIN
        yield needed or not abs(alone - start.explained) <= FROZEN_MARGIN


def layer_groups(model: nn.Module, *, most: int = 4) -> tuple[tuple[str, ...], ...]:
    """Returns the owners of weights in order: up to four groups, and the last.

    A module without submodules is named by its parameters instead.
    """
    owners: dict[str, None] = {}
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            owner = name.rpartition(".")[0]
            plain = isinstance(model.get_submodule(owner), nn.ParameterList)
            owners[name if plain else owner] = None
    names = list(owners)
    body, head = names[:-1], names[-1:]
    count = min(most, len(body))
    cuts = [round(i * len(body) / count) for i in range(count + 1)] if count else []
    parts = [tuple(body[a:b]) for a, b in pairwise(cuts)]
    return (*parts, tuple(head))


def _parameters(model: nn.Module, group: tuple[str, ...]) -> Iterator[str]:
    """Yields the parameters of a group; a weight alone stands with its bias."""
    wanted = {*group, *(name.replace("weights.", "biases.") for name in group)}
    for name, _ in model.named_parameters():
        if name in wanted or name.rpartition(".")[0] in wanted:
            yield name


def dead(spec: Spec) -> bool:
    """Tells whether some layer answers every sample alike, and so the outputs."""
    model, data = build(spec).double(), task(spec.task)
    killed: list[str] = []

    def look(name: str) -> object:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
            same = isinstance(output, Tensor) and _spread(output) == 0
            if same and _spread(inputs[0]) > 1e-6:
                killed.append(name)

        return hook

    leaves = [m for m in model.named_modules() if not list(m[1].children())]
    hooks = [m.register_forward_hook(look(n)) for n, m in leaves]
    with torch.no_grad():
        outputs = model(data.x.double())
    for hook in hooks:
        hook.remove()
    return bool(killed) and _spread(outputs) == 0


def _spread(tensor: Tensor) -> float:
    """Returns the largest relative difference between samples."""
    flat = tensor.detach().double().flatten(1)
    scale = float(flat.abs().max())
    return float((flat - flat[:1]).abs().max()) / scale if scale else 0.0
