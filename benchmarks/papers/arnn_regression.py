"""Auto-rotation in regression: the output layer must stay as it is.

    python -m benchmarks.papers.arnn_regression --seeds 5 --resume
    python -m benchmarks.papers.arnn_regression --quick

Friedman's first problem, y = 10 sin(π x₁ x₂) + 20 (x₃ − ½)² + 10 x₄ + 5 x₅ + noise, ten
inputs in [0, 1] of which five matter, y from about 0 to 30: no data are needed. Sigmoid
MLPs 10-32-…-32-1 of several depths, Adam 1e-3, batch 32, mean squared error; root mean
squared error on 1,000 noise-free points (the standard deviation of y is 4.9). Arms:
without AR; AR as published on the hidden layers, which is the paper's rule; on all
layers, which breaks it: |z| of the output is then of the order of L = 5; and
``vgaudit convert --to ar``.

Source: Friedman, Multivariate adaptive regression splines, Annals of Statistics 1991.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from benchmarks.papers import study
from benchmarks.papers.arnn_nets import Task, converted, mlp, rotate_, train
from benchmarks.papers.study import Outcome, Study
from vgaudit.nn import Limit

ARMS = {
    "sigmoid": "sigmoid, no AR",
    "relu": "ReLU, no AR",
    "hidden": "AR as published, hidden layers",
    "all": "AR as published, output layer too",
    "convert": "convert --to ar",
}
TRAINING, TEST, WIDTH, LIMIT = 2000, 1000, 32, 5.0


@dataclass(frozen=True)
class Run:
    """One training."""

    arm: str
    hidden: int
    epochs: int
    seed: int


def friedman(count: int, seed: int, *, noise: float) -> tuple[Tensor, Tensor]:
    """Returns inputs ``[N, 10]`` and targets ``[N, 1]`` of Friedman's first problem."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 10, generator=generator)
    wave = 10 * (math.pi * x[:, 0] * x[:, 1]).sin()
    y = wave + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    y = y + noise * torch.randn(count, generator=generator)
    return x, y.unsqueeze(1)


def network(run: Run, x: Tensor, y: Tensor) -> nn.Module:
    sizes = [10, *[WIDTH] * run.hidden, 1]
    model: nn.Module = mlp(sizes, "relu" if run.arm == "relu" else "sigmoid", run.seed)
    if run.arm == "convert":
        return converted(model, (x[:512], y[:512]))
    if run.arm in ("hidden", "all"):
        limit = Limit(LIMIT)
        whole = run.arm == "all"
        unit = (0.0, 1.0)
        rotate_(model, lambda units: limit, data=unit, hidden=unit, output=whole)
    return model


def outcome(run: Run) -> Outcome:
    x, y = friedman(TRAINING, 10_000 + run.seed, noise=1.0)
    points, truth = friedman(TEST, 20_000, noise=0.0)
    torch.manual_seed(run.seed)
    model = network(run, x, y)

    def score(model: nn.Module) -> float:
        return mse_loss(model(points), truth).sqrt().item()

    task = Task(x, y, mse_loss, score, 32, run.epochs)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    curve = train(model, task, optimizer, run.seed)
    with torch.no_grad():
        largest = model(points).abs().max().item()
    return {"rmse": curve.scores[-1], "largest": round(largest, 2)}


def main() -> None:
    parser = study.parser(__doc__ or "", "arnn_regression")
    parser.add_argument("--hidden", type=int, nargs="+", default=[1, 3, 6])
    parser.add_argument("--epochs", type=int, default=100)
    options = study.parse(parser, hidden=[3], epochs=2, seeds=1)
    runs = Study(options, Run, outcome)
    wanted = [
        Run(arm, hidden, options.epochs, seed)
        for seed in range(options.seeds)
        for hidden in options.hidden
        for arm in ARMS
    ]
    done = runs.run(wanted)

    def found(what: str, arm: str, hidden: int) -> list[float]:
        chosen = [r for r in done if (r.arm, r.hidden) == (arm, hidden)]
        return [runs.results[run][what] for run in chosen]

    heads = [f"{hidden} hidden" for hidden in options.hidden]
    rows = [
        [
            title,
            *(study.cell(found("rmse", arm, k), 2) for k in options.hidden),
            *(study.cell(found("largest", arm, k), 0) for k in options.hidden),
        ]
        for arm, title in ARMS.items()
    ]
    print(
        f"{options.epochs} epochs; root mean squared error, and the largest |output| "
        f"on the test points; mean [lowest–highest] of up to {options.seeds} seeds.\n\n"
        + study.table(["", *heads, *(f"largest, {head}" for head in heads)], rows)
    )
    runs.close()


if __name__ == "__main__":
    main()
