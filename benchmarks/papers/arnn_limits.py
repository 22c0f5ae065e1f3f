"""L of auto-rotation: from 2 to 10, four types, two distributions, against ReLU.

    python -m benchmarks.papers.arnn_limits --data-root DIR --seeds 5 --resume
    python -m benchmarks.papers.arnn_limits --data-root DIR --quick

The network of the authors' notebook: CIFAR-10 in grey, sigmoid MLP
1024-50-50-40-40-30-10, RMSprop 1e-3, batch 128, 20 epochs; accuracy on the test images
after the last one. AR as published (x_Q = 2·min − max, not folded) with every L and
type; drawn L with N(5, 1) and U(2, 8), which are ours, since the paper's are in a
figure that is lost; what ``vgaudit convert --to ar`` makes of the same network; and
the network without AR with sigmoid, ReLU and LeakyReLU.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.papers import study
from benchmarks.papers.arnn_nets import Task, accuracy, converted, mlp, rotate_, train
from benchmarks.papers.pictures import Images, cifar
from benchmarks.papers.study import Study
from vgaudit.nn import Limit, draw_limit

SIZES = [1024, 50, 50, 40, 40, 30, 10]
GREY = (0.2125, 0.7154, 0.0721)
LIMITS = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)
TYPES = ("frozen_shared", "frozen_indep", "auto_shared", "auto_indep")
DRAWN = ("normal", "uniform")
PLAIN = ("sigmoid", "relu", "leaky")


@dataclass(frozen=True)
class Run:
    """One training. ``arm`` is an activation, ``published`` or ``convert``."""

    arm: str
    type: str
    limit: float
    drawn: str
    images: int
    epochs: int
    seed: int


def runs_of(options: argparse.Namespace, seed: int) -> Iterator[Run]:
    size = (options.images, options.epochs, seed)
    for arm in PLAIN:
        yield Run(arm, "", 0.0, "", *size)
    for limit in options.limits:
        yield Run("convert", "", limit, "", *size)
    for kind in TYPES:
        for limit in options.limits:
            yield Run("published", kind, limit, "", *size)
    for kind in TYPES:
        if kind.endswith("indep"):
            for drawn in DRAWN:
                yield Run("published", kind, 0.0, drawn, *size)


def network(run: Run, data: Images) -> nn.Module:
    if run.arm in PLAIN:
        return mlp(SIZES, run.arm, run.seed)
    model = mlp(SIZES, "sigmoid", run.seed)
    if run.arm == "convert":
        batch = data.train[:512], data.train_labels[:512]
        return converted(model, batch, limit=run.limit)
    generator = torch.Generator().manual_seed(run.seed)

    def limit(units: int) -> Limit:
        if run.drawn == "normal":
            return Limit(draw_limit("normal", units, generator=generator), run.type)
        if run.drawn == "uniform":
            return Limit(draw_limit("uniform", units, generator=generator), run.type)
        return Limit(run.limit, run.type)

    return rotate_(model, limit, data=(0.0, 1.0), hidden=(0.0, 1.0))


def outcome(run: Run, data: Images) -> dict[str, Any]:
    model = network(run, data)
    task = Task(
        data.train,
        data.train_labels,
        cross_entropy,
        accuracy(data.test, data.test_labels),
        batch=128,
        epochs=run.epochs,
    )
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, alpha=0.9, eps=1e-7)
    curve = train(model, task, optimizer, run.seed)
    return {"accuracy": curve.scores[-1], "scores": curve.scores}


def grey(images: Images) -> Images:
    def flat(x: Tensor) -> Tensor:
        return torch.einsum("nchw,c->nhw", x, x.new_tensor(GREY)).flatten(1)

    return replace(images, train=flat(images.train), test=flat(images.test))


def report(done: list[Run], runs: Study[Run], options: argparse.Namespace) -> str:
    def found(**wanted: Any) -> list[float]:
        return [
            runs.results[run]["accuracy"]
            for run in done
            if all(getattr(run, k) == v for k, v in wanted.items())
        ]

    heads = ["", *(f"L = {limit:g}" for limit in options.limits), *DRAWN]
    rows = [
        [
            f"AR as published, {kind}",
            *(study.cell(found(type=kind, limit=limit)) for limit in options.limits),
            *(study.cell(found(type=kind, drawn=drawn)) for drawn in DRAWN),
        ]
        for kind in TYPES
    ]
    by_limit = (found(arm="convert", limit=limit) for limit in options.limits)
    rows.append(["convert --to ar", *map(study.cell, by_limit), "", ""])
    plain = [[f"no AR, {arm}", study.cell(found(arm=arm))] for arm in PLAIN]
    return study.table(heads, rows) + "\n" + study.table(["", "accuracy"], plain)


def draw(figure: Any, done: list[Run], runs: Study[Run]) -> None:
    axes = figure.subplots()
    for kind in (*TYPES, ""):
        by_limit: dict[float, list[float]] = {}
        for run in done:
            if run.type == kind and run.limit and not run.drawn:
                value = runs.results[run]["accuracy"]
                by_limit.setdefault(run.limit, []).append(value)
        means = [statistics.mean(values) for values in by_limit.values()]
        axes.plot(list(by_limit), means, marker="o", label=kind or "convert --to ar")
    for arm, style in zip(PLAIN, (":", "--", "-."), strict=True):
        values = [runs.results[run]["accuracy"] for run in done if run.arm == arm]
        if values:
            axes.axhline(statistics.mean(values), ls=style, c="grey", label=arm)
    axes.set(xlabel="L", ylabel="test accuracy, %")
    axes.legend()


def main() -> None:
    parser = study.parser(__doc__ or "", "arnn_limits")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--limits", type=float, nargs="+", default=list(LIMITS))
    options = study.parse(parser, images=2000, epochs=2, seeds=1, limits=[4.0])
    data = functools.cache(
        lambda: grey(cifar(options.data_root, options.images, options.device))
    )
    runs = Study(options, Run, lambda run: outcome(run, data()))
    done = []
    for seed in range(options.seeds):
        done += runs.run(runs_of(options, seed))
    print(
        f"{options.images} images, {options.epochs} epochs; test accuracy in %, mean "
        f"[lowest–highest] of up to {options.seeds} seeds.\n\n"
        f"{report(done, runs, options)}"
    )
    place = options.plots and options.plots / "arnn_limits.svg"
    study.plot(place, lambda figure: draw(figure, done, runs), (6, 3.5))
    runs.close()


if __name__ == "__main__":
    main()
