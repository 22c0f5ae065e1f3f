"""The main grid: depths, widths and activations, with every control beside it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from benchmarks.papers.rai_study.methods import (
    CONTROL_STEPS,
    FIRST_RIDGE,
    Figures,
    Rai,
    adam,
    backprop,
    judged,
    label_code,
    rai,
    rai_recipe,
    readout_only,
    rprop,
)
from benchmarks.papers.rai_study.problems import TUNING, Problem, net, problem
from benchmarks.papers.rai_study.record import Record, Run

DEPTHS, WIDTHS = (31, 101, 200), (32, 64, 100, 200)
CHEAP = ("rai", "readout", "label code")
COSTLY = ("adam", "rprop")
ABLATED = ("rai, no window", "rai, no gate", "rai, no alignment")
RATES = {"adam": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), "rprop": (1e-4, 1e-3, 1e-2, 1e-1)}


@dataclass(frozen=True)
class Cell:
    """One net of the grid."""

    activation: str
    depth: int
    width: int
    noise: float = 0.1


def cells() -> Iterator[Cell]:
    """The sigmoid nets, then tanh and ReLU, then more noise."""
    for depth in DEPTHS:
        for width in WIDTHS:
            yield Cell("sigmoid", depth, width)
    yield from (Cell(name, 101, 100) for name in ("tanh", "relu"))
    yield from (Cell("sigmoid", 101, 100, noise) for noise in (0.2, 0.3))


def run_grid(record: Record, seeds: int, methods: tuple[str, ...]) -> None:
    """Seeds outermost, so that an interrupted run has all cells."""
    for seed in range(seeds):
        for cell in cells():
            for method in methods:
                one(record, cell, method, seed)


def run_ablations(record: Record, seeds: int) -> None:
    """What gate, window and alignment are good for, at the thesis's depth."""
    for seed in range(seeds):
        for width in WIDTHS:
            for method in ABLATED:
                # Without the gate every layer is computed at every step.
                if method != "rai, no gate" or seed < 3:
                    one(record, Cell("sigmoid", 101, width), method, seed)


def one(record: Record, cell: Cell, method: str, seed: int) -> None:
    """A run of the grid: one ridge or rate for each activation, chosen at 101 × 100."""
    if method in RATES:
        rate = chosen_rate(record, cell.activation, method)
        _reported(record, "grid", (cell, method, seed), rate)
    else:
        _reported(record, "grid", (cell, method, seed), FIRST_RIDGE[cell.activation])


FRESH = 10
"""First seed of the runs that follow the grid, and share no sample with it."""


def run_fresh(record: Record, seeds: int) -> None:
    """The ridge chosen for each width and noise, on seeds that the grid did not use.

    That the ridge depends on the width was seen in the grid, so its own seeds are
    spent. Label code gets a ridge of its own here too.
    """
    for seed in range(FRESH, FRESH + seeds):
        for cell in cells():
            for method in ("rai", "label code"):
                ridge = chosen(record, cell, method)
                _reported(record, "fresh", (cell, method, seed), ridge)


EACH = 20
"""First seed of the runs whose ridge is chosen for every net by itself."""


def run_each(record: Record, seeds: int) -> None:
    """The ridge chosen for each sigmoid net at its own depth too, on further seeds.

    That one net of the fresh runs still fell short was seen there, so their seeds are
    spent as well.
    """
    for seed in range(TUNING, TUNING + EACH_SEEDS):
        for cell in each_cells():
            for ridge in FINE_RIDGES:
                for method in ("rai", "label code"):
                    _tune_ridge(record, method, cell, (seed, ridge), study="tune each")
    for seed in range(EACH, EACH + seeds):
        for cell in each_cells():
            for method in ("rai", "label code"):
                ridge = chosen(record, cell, method, study="tune each")
                _reported(record, "each", (cell, method, seed), ridge)


def each_cells() -> Iterator[Cell]:
    """The sigmoid nets at noise 0.1, of which one fell short of the aim."""
    return (c for c in cells() if c.activation == "sigmoid" and c.noise == 0.1)


def _reported(
    record: Record, study: str, how: tuple[Cell, str, int], setting: float
) -> None:
    cell, method, seed = how
    given = problem(seed, noise=cell.noise)
    model = net(seed, cell.activation, depth=cell.depth, width=cell.width)
    detail = f"noise {cell.noise}"
    run = Run(study, method, cell.activation, cell.depth, cell.width, seed, detail)
    record.run(
        run,
        lambda: (
            judged(model, given, lambda m: train(m, given, method, (seed, setting)))
            | {"rate" if method in RATES else "ridge": setting}
        ),
    )


def train(
    model: nn.Module, given: Problem, method: str, how: tuple[int, float]
) -> Figures:
    """Trains by a method; ``how`` is a seed and the method's ridge or rate."""
    seed, ridge = how
    match method:
        case "rai":
            return rai(model, given, Rai(rai_recipe(ridge)))
        case "rai, no window":
            return rai(model, given, Rai(rai_recipe(ridge, window=None)))
        case "rai, no gate":
            return rai(model, given, Rai(rai_recipe(ridge, closed=False)))
        case "rai, no alignment":
            return rai(model, given, Rai(rai_recipe(ridge, window=None), aligned=False))
        case "readout":
            return readout_only(model, given)
        case "label code":
            return label_code(model, given, ridge, seed)
        case "adam":
            return backprop(model, given, adam(ridge), steps=CONTROL_STEPS)
        case "rprop":
            return backprop(model, given, rprop(ridge), steps=CONTROL_STEPS)
    raise ValueError(method)


RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
FINE_RIDGES = (1e-7, 3e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4)
EACH_SEEDS = 8


def tune(record: Record, seeds: int = 4) -> None:
    """Settings of RAI, one at a time, on nets and samples used for nothing else.

    The ridge is chosen for each width, activation and noise, at 101 layers.
    """
    nets = {(c.activation, c.width, c.noise): c for c in cells() if c.depth == 101}
    for seed in range(TUNING, TUNING + seeds):
        for cell in nets.values():
            for ridge in RIDGES:
                for method in ("rai", "label code"):
                    _tune_ridge(record, method, cell, (seed, ridge))
            if cell == Cell(cell.activation, 101, 100):
                _tune_others(record, cell, seed)


def _detail(ridge: float, noise: float) -> str:
    return f"ridge {ridge}" + (f", noise {noise}" if noise != 0.1 else "")


def _tune_ridge(
    record: Record,
    method: str,
    cell: Cell,
    how: tuple[int, float],
    *,
    study: str = "tune",
) -> None:
    seed, ridge = how
    detail = _detail(ridge, cell.noise)
    given = problem(seed, noise=cell.noise)
    model = net(seed, cell.activation, depth=cell.depth, width=cell.width)
    run = Run(study, method, cell.activation, cell.depth, cell.width, seed, detail)
    record.run(
        run,
        lambda: judged(model, given, lambda m: train(m, given, method, (seed, ridge))),
    )


def _tune_others(record: Record, cell: Cell, seed: int) -> None:
    base = rai_recipe(FIRST_RIDGE[cell.activation])
    changes = {f"penalty {p}": replace(base, penalty=p) for p in (1e-6, 1e-2)}
    for window in (10, 40):
        gate = replace(base.gate, window=window)
        changes[f"window {window}"] = replace(base, gate=gate)
    given = problem(seed)
    model = net(seed, cell.activation, depth=101, width=100)
    for detail, recipe in changes.items():
        run = Run("tune", "rai", cell.activation, 101, 100, seed, detail)
        record.run(
            run,
            lambda r=recipe: judged(model, given, lambda m: rai(m, given, Rai(r))),
        )


def chosen(record: Record, cell: Cell, method: str, *, study: str = "tune") -> float:
    """Returns the ridge with the best mean score on the tuning data."""
    scores = {}
    for ridge in RIDGES if study == "tune" else FINE_RIDGES:
        found = record.rows(
            study,
            method=method,
            activation=cell.activation,
            depth=101 if study == "tune" else cell.depth,
            width=cell.width,
            detail=_detail(ridge, cell.noise),
        )
        if found:
            scores[ridge] = statistics.fmean(row["score"] for row in found)
    if not scores:
        # Found by tuning; nothing is trained without it.
        record.tuned_first()
    return max(scores, key=lambda ridge: (round(scores[ridge], 3), ridge))


def chosen_rate(record: Record, name: str, method: str) -> float:
    """Returns the rate with the best mean score on the tuning data.

    Of several, the one with the lowest loss: nearly all of them end at chance.
    """
    best = {}
    for rate in RATES[method]:
        at = {"method": method, "activation": name, "detail": f"rate {rate}"}
        found = record.rows("tune", **at)
        if not found:
            record.tuned_first()
        loss = statistics.fmean(row["forward"] for row in found)
        score = statistics.fmean(row["score"] for row in found)
        best[rate] = (round(score, 3), -loss if math.isfinite(loss) else -math.inf)
    return max(best, key=lambda rate: best[rate])


def tune_controls(record: Record, seeds: int = 2) -> None:
    """Rates of Adam and Rprop on the same nets and samples."""
    for seed in range(TUNING, TUNING + seeds):
        for name in FIRST_RIDGE:
            for method, rate in ((m, r) for m, found in RATES.items() for r in found):
                _tune_control(record, (method, rate), name, seed)


def _tune_control(record: Record, how: tuple[str, float], name: str, seed: int) -> None:
    method, rate = how
    make = {"adam": adam, "rprop": rprop}[method](rate)
    given = problem(seed)
    model = net(seed, name, depth=101, width=100)

    def train_copy(own: nn.Module) -> Figures:
        return backprop(own, given, make, steps=CONTROL_STEPS)

    run = Run("tune", method, name, 101, 100, seed, f"rate {rate}")
    record.run(run, lambda: judged(model, given, train_copy))
