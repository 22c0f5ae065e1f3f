"""The main grid: depths, widths and activations, with every control beside it."""

from __future__ import annotations

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
from benchmarks.papers.rai_study.record import Record, Run, spread, table

DEPTHS, WIDTHS = (31, 101, 200), (32, 64, 100, 200)
CHEAP = ("rai", "readout", "label code")
COSTLY = ("adam", "rprop")
ABLATED = ("rai, no window", "rai, no gate", "rai, no alignment")
# The rate of the lowest loss after 100 steps, on tuning data: see ``tune``.
ADAM_RATE, RPROP_RATE = 1e-3, 1e-2


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
    """A run of the grid: one ridge for each activation, chosen at 101 × 100."""
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


def _reported(
    record: Record, study: str, how: tuple[Cell, str, int], ridge: float
) -> None:
    cell, method, seed = how
    given = problem(seed, noise=cell.noise)
    model = net(seed, cell.activation, depth=cell.depth, width=cell.width)
    detail = f"noise {cell.noise}"
    run = Run(study, method, cell.activation, cell.depth, cell.width, seed, detail)
    record.run(
        run,
        lambda: (
            judged(model, given, lambda m: train(m, given, method, (seed, ridge)))
            | {"ridge": ridge}
        ),
    )


def train(
    model: nn.Module, given: Problem, method: str, how: tuple[int, float]
) -> Figures:
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
            return backprop(model, given, adam(ADAM_RATE), steps=CONTROL_STEPS)
        case "rprop":
            return backprop(model, given, rprop(RPROP_RATE), steps=CONTROL_STEPS)
    raise ValueError(method)


RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


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
    record: Record, method: str, cell: Cell, how: tuple[int, float]
) -> None:
    seed, ridge = how
    detail = _detail(ridge, cell.noise)
    given = problem(seed, noise=cell.noise)
    model = net(seed, cell.activation, depth=101, width=cell.width)
    run = Run("tune", method, cell.activation, 101, cell.width, seed, detail)
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


def chosen(record: Record, cell: Cell, method: str) -> float:
    """Returns the ridge with the best mean score on the tuning data."""
    scores = {}
    for ridge in RIDGES:
        found = record.rows(
            "tune",
            method=method,
            activation=cell.activation,
            width=cell.width,
            detail=_detail(ridge, cell.noise),
        )
        if found:
            scores[ridge] = statistics.fmean(row["score"] for row in found)
    if not scores:
        # Found by tuning; nothing is trained without it.
        record.tuned_first()
    return max(scores, key=lambda ridge: (round(scores[ridge], 3), ridge))


def tune_controls(record: Record, seeds: int = 2) -> None:
    """Rates of Adam and Rprop on the same nets and samples."""
    rates = {"adam": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), "rprop": (1e-4, 1e-3, 1e-2, 1e-1)}
    for seed in range(TUNING, TUNING + seeds):
        for name in FIRST_RIDGE:
            for method, rate in ((m, r) for m, found in rates.items() for r in found):
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


def show(record: Record) -> str:
    """The grid as tables."""
    head = [
        "net, noise",
        "RAI",
        "seconds",
        "readout only",
        "Adam",
        "Rprop",
        "label code",
    ]
    rows = []
    for cell in cells():
        at = {
            "activation": cell.activation,
            "depth": cell.depth,
            "width": cell.width,
            "detail": f"noise {cell.noise}",
        }
        found = {
            method: record.rows("grid", method=method, **at)
            for method in (*CHEAP, *COSTLY)
        }
        scores = {
            method: spread(row["score"] for row in rows_of)
            for method, rows_of in found.items()
        }
        rows.append(
            [
                f"{cell.activation}, {cell.depth} × {cell.width}, {cell.noise}",
                scores["rai"],
                spread(row["seconds"] for row in found["rai"]),
                *(scores[m] for m in ("readout", "adam", "rprop", "label code")),
            ]
        )
    return table(head, rows)


def show_fresh(record: Record) -> str:
    """The follow-up on fresh seeds."""
    rows = []
    for cell in cells():
        at = {
            "activation": cell.activation,
            "depth": cell.depth,
            "width": cell.width,
            "detail": f"noise {cell.noise}",
        }
        found = [
            record.rows("fresh", method=method, **at)
            for method in ("rai", "label code")
        ]
        scores = [spread(row["score"] for row in part) for part in found]
        ridges = ["/".join({f"{r['ridge']:g}": None for r in part}) for part in found]
        net_of = f"{cell.activation}, {cell.depth} × {cell.width}, {cell.noise}"
        rows.append([net_of, scores[0], ridges[0], scores[1], ridges[1]])
    return table(["net, noise", "RAI", "ridge", "label code", "ridge"], rows)


def show_ablations(record: Record) -> str:
    head = ["sigmoid, 101 ×", "full recipe", *ABLATED, "relaxed loss", "its gap"]
    rows = []
    for width in WIDTHS:
        at = {
            "activation": "sigmoid",
            "depth": 101,
            "width": width,
            "detail": "noise 0.1",
        }
        found = [
            record.rows("grid", method=method, **at) for method in ("rai", *ABLATED)
        ]
        bare = found[-1]
        rows.append(
            [
                str(width),
                *(spread(row["score"] for row in part) for part in found),
                spread((row["relaxed"] for row in bare), places=4),
                spread((row["gap"] for row in bare), places=2),
            ]
        )
    return table(head, rows)


def show_tuning(record: Record) -> str:
    settings: dict[tuple[str, str, int], dict[str, None]] = {}
    for run in record.done:
        if run.study == "tune":
            net_of = (run.method, run.activation, run.width)
            settings.setdefault(net_of, {})[run.detail] = None
    rows = []
    for (method, name, width), details in settings.items():
        at = {"method": method, "activation": name, "width": width}
        scores = []
        for detail in details:
            found = [r["score"] for r in record.rows("tune", detail=detail, **at)]
            scores.append(f"{detail}: {statistics.fmean(found):.1f}")
        rows.append([method, f"{name} {width}", "; ".join(scores)])
    return table(["tuned", "net", "mean score by setting"], rows)
