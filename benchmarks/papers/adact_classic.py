"""AdAct's three-step algorithm beside its control, MOLF alone.

    python -m benchmarks.papers.adact_classic --data-root DIR --seeds 10 --resume
    python -m benchmarks.papers.adact_classic --data-root DIR --quick

Networks of one hidden layer with bypass, full batch, float64. "MOLF" trains hidden
weights (MOLF) and output weights (OWO) with ReLU fixed; "MOLF + AdAct" trains the
values of the activations too, and starts from the same function and weights. With the
validation guard the network of the lowest squared error on validation samples is kept.
Two tasks: Friedman's first problem (200 training points, noise 1; squared error over
the variance of the targets), and MNIST (one-hot targets; error in %). The test samples
are fresh; validation samples are as many as a third of the training samples.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.papers import study
from benchmarks.papers.arnn_regression import friedman
from benchmarks.papers.pictures import Images, mnist
from benchmarks.papers.study import Outcome, Study
from vgaudit.training.adact import OneHidden, Patterns, Plan, fit, start, steps

ARMS = {
    "molf": "MOLF",
    "adact": "MOLF + AdAct",
    "molf-guard": "MOLF, validation guard",
    "adact-guard": "MOLF + AdAct, validation guard",
}
TASKS = {"friedman": "Friedman 1, squared error", "mnist": "MNIST, error in %"}
POINTS = 200


@dataclass(frozen=True)
class Run:
    """One training."""

    task: str
    arm: str
    units: int
    samples: int
    iterations: int
    seed: int


@dataclass(frozen=True)
class Split:
    """Patterns to train on, to hold out, and to test, with the score of a network."""

    train: Patterns
    held: Patterns
    test: Patterns
    score: Callable[[OneHidden, Patterns], float]


def regression(seed: int) -> Split:
    parts = []
    for offset, count in ((0, POINTS), (1, POINTS // 3), (2, 1000)):
        x, y = friedman(count, 1_000 * seed + offset, noise=1.0)
        parts.append(Patterns(2 * x.double() - 1, (y.double() - 14.4) / 4.9))

    def score(net: OneHidden, data: Patterns) -> float:
        return steps.loss(net, data)

    return Split(*parts, score)


def classes(run: Run, data: Images) -> Split:
    generator = torch.Generator().manual_seed(run.seed)
    order = torch.randperm(len(data.train), generator=generator)
    held = run.samples // 3
    rows = order[: run.samples], order[run.samples : run.samples + held]

    def patterns(x: Tensor, y: Tensor) -> Patterns:
        # Pixels in [0, 1]; those that never vary are dropped by the rank test.
        return Patterns.classes(x.double() * 0.3081 + 0.1307, y, 10)

    @torch.no_grad()
    def score(net: OneHidden, data: Patterns) -> float:
        found = net(data.inputs).argmax(1) == data.targets.argmax(1)
        return 100 * (1 - found.double().mean().item())

    train, kept = (patterns(data.train[r], data.train_labels[r]) for r in rows)
    return Split(train, kept, patterns(data.test, data.test_labels), score)


def outcome(run: Run, data: Callable[[], Images]) -> Outcome:
    task = regression(run.seed) if run.task == "friedman" else classes(run, data())
    generator = torch.Generator().manual_seed(run.seed)
    outputs = task.train.targets.shape[1]
    net = start(task.train.inputs, outputs, units=run.units, generator=generator)
    plan = Plan(
        iterations=run.iterations,
        adapt=run.arm.startswith("adact"),
        patience=run.iterations,
    )
    held = task.held if run.arm.endswith("guard") else None
    done = fit(net, task.train, held=held, plan=plan)
    return {
        "loss": done.history[done.best].loss,
        "train": task.score(done.net, task.train),
        "test": task.score(done.net, task.test),
        "best": done.best,
        "halved": sum(turn.halvings > 0 for turn in done.history),
    }


def main() -> None:
    parser = study.parser(__doc__ or "", "adact_classic")
    parser.add_argument("--units", type=int, default=20)
    parser.add_argument("--samples", type=int, default=6000, help="of MNIST")
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    options = study.parse(parser, tasks=["friedman"], iterations=5, seeds=1)
    data = functools.cache(lambda: mnist(options.data_root, options.device))
    runs = Study(options, Run, lambda run: outcome(run, data))
    done = runs.run(
        Run(
            task,
            arm,
            options.units,
            options.samples if task == "mnist" else POINTS,
            options.iterations,
            seed,
        )
        for seed in range(options.seeds)
        for task in options.tasks
        for arm in ARMS
    )

    def found(task: str, arm: str, what: str) -> dict[int, float]:
        return {
            run.seed: runs.results[run][what]
            for run in done
            if (run.task, run.arm) == (task, arm)
        }

    rows = []
    for task in options.tasks:
        for arm, title in ARMS.items():
            control = found(task, arm.replace("adact", "molf"), "test")
            test = found(task, arm, "test")
            gain = [test[s] - control[s] for s in test if s in control]
            rows.append(
                [
                    TASKS[task],
                    title,
                    study.cell(list(found(task, arm, "train").values()), 3),
                    study.cell(list(test.values()), 3),
                    study.interval(gain, 3) if arm.startswith("adact") else "",
                    study.cell(list(found(task, arm, "best").values()), 0),
                ]
            )
    head = [
        "task",
        "algorithm",
        "training",
        "test",
        "test minus MOLF",
        "iteration kept",
    ]
    print(
        f"{options.units} hidden units, {options.iterations} iterations, mean "
        f"[lowest–highest] of up to {options.seeds} seeds.\n\n{study.table(head, rows)}"
    )
    runs.close()


if __name__ == "__main__":
    main()
