"""Equation 4 in its readings, and the four questions that the paper leaves open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn
from torch.optim import Optimizer

from benchmarks.papers.rai_study.methods import (
    FIRST_RIDGE,
    Figures,
    Rai,
    adam,
    backprop,
    judged,
    rai,
    rai_recipe,
    readout_only,
    sgd,
)
from benchmarks.papers.rai_study.problems import Problem, net, problem, shaped
from benchmarks.papers.rai_study.record import Record, Run, spread, table
from vgaudit.data.batch import Batch
from vgaudit.training.rai import Hidden, Relaxation, Sweep, find_cuts
from vgaudit.training.rai.minibatch import Inference, TargetTable

HIDDEN = {
    "mean squares": Hidden(),
    "sum of squares": Hidden(reduction="sum"),
    "mean absolute": Hidden(kind="l1"),
    "Huber": Hidden(kind="huber"),
}
STARTS = ("default", "xavier", "gain4", "orthogonal", "normal", "tiny")
MODES = ("plain", "sweep", "infer", "table")
RATES = {"plain": 0.1, "sweep": 0.1, "infer": 0.1, "table": 0.1}


def run_all(record: Record, seeds: int) -> None:
    for seed in range(seeds):
        losses(record, seed)
        generalisation(record, seed)
        regularisers(record, seed)
        starts(record, seed)
        mini_batches(record, seed)


def losses(record: Record, seed: int) -> None:
    """Equation 4 summed and averaged, and other hidden losses; 31 sigmoid layers."""
    given = problem(seed)
    model = net(seed, "sigmoid", depth=31, width=100)
    for name, hidden in HIDDEN.items():
        recipe = rai_recipe(FIRST_RIDGE["sigmoid"], hidden=hidden)
        run = Run("losses", "rai", "sigmoid", 31, 100, seed, name)
        record.run(
            run, lambda r=recipe: judged(model, given, lambda m: rai(m, given, Rai(r)))
        )


def generalisation(record: Record, seed: int) -> None:
    """Against backpropagation where backpropagation works: five layers of 42 units."""
    for task, noise in (("moons", 0.1), ("moons", 0.3), ("wave", 0.1), ("wave", 0.5)):
        given = problem(seed, noise=noise, task=task)
        for name in ("tanh", "relu"):
            model = shaped(seed, name, [42] * 4)
            recipe = rai_recipe(1e-2)
            trained: dict[str, Callable[[nn.Module], Figures]] = {
                "rai": lambda m, g=given, r=recipe: rai(m, g, Rai(r)),
                "backprop": lambda m, g=given: backprop(m, g, adam(3e-3), steps=500),
                "readout": lambda m, g=given: readout_only(m, g),
            }
            for method, work in trained.items():
                run = Run(
                    "generalisation",
                    method,
                    name,
                    5,
                    42,
                    seed,
                    f"{task}, noise {noise}",
                )
                record.run(run, lambda m=model, g=given, w=work: judged(m, g, w))


def regularisers(record: Record, seed: int) -> None:
    """The ridge of the alignment and the readout's penalty, with noisy samples."""
    given = problem(seed, noise=0.3)
    model = net(seed, "sigmoid", depth=31, width=100)
    base = rai_recipe(1e-5)
    changes = {f"ridge {r}": replace(base, ridge=r) for r in (1e-7, 1e-5, 1e-3, 1e-2)}
    changes |= {f"penalty {p}": replace(base, penalty=p) for p in (1e-6, 1e-2, 1e-1)}
    for name, recipe in changes.items():
        run = Run("regularisers", "rai", "sigmoid", 31, 100, seed, name)
        record.run(
            run, lambda r=recipe: judged(model, given, lambda m: rai(m, given, Rai(r)))
        )


def starts(record: Record, seed: int) -> None:
    """How the weights are drawn; 31 layers."""
    given = problem(seed)
    for name in ("sigmoid", "tanh"):
        for start in STARTS:
            model = net(seed, name, depth=31, width=100, start=start)
            trained: dict[str, Callable[[nn.Module], Figures]] = {
                "rai": lambda m, n=name: rai(m, given, Rai(rai_recipe(FIRST_RIDGE[n]))),
                "readout": lambda m: readout_only(m, given),
            }
            for method, work in trained.items():
                run = Run("starts", method, name, 31, 100, seed, start)
                record.run(run, lambda m=model, w=work: judged(m, given, w))


def mini_batches(record: Record, seed: int) -> None:
    """Batches of 20, SGD with momentum; 6 and 11 sigmoid layers of 32."""
    given = problem(seed)
    for depth in (6, 11):
        model = net(seed, "sigmoid", depth=depth, width=32)
        for mode in MODES:
            run = Run("mini-batches", mode, "sigmoid", depth, 32, seed, "")
            record.run(
                run,
                lambda m=model, k=mode: judged(
                    m, given, lambda own: in_batches(own, given, k)
                ),
            )


def in_batches(
    model: nn.Module, given: Problem, mode: str, *, epochs: int = 60
) -> Figures:
    """Trains in batches of 20; the order is the same for every mode."""
    x, y = given.train.args[0], given.train.labels
    optimizer = sgd(RATES[mode])(model)
    step = stepper(model, given, mode, optimizer)
    loss = float("nan")
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(20):
            part = Batch(args=(x[rows],), labels=y[rows], size=len(rows))
            optimizer.zero_grad()
            loss = step(part, rows)
            optimizer.step()
    return {"forward": loss}


def stepper(
    model: nn.Module, given: Problem, mode: str, optimizer: Optimizer
) -> Callable[[Batch, torch.Tensor], float]:
    """Returns what leaves the gradients of a batch in ``.grad``."""
    del optimizer
    if mode == "plain":
        return lambda part, _rows: ordinary(model, given, part)
    cuts = find_cuts(model, given.train)
    if mode == "sweep":
        sweep = Sweep(cuts)

        def swept(part: Batch, _rows: torch.Tensor) -> float:
            with sweep.cutting():
                loss = given.loss.function(model(*part.args), part.labels)
            loss.backward()
            return float(loss.detach())

        return swept
    relaxation = Relaxation(model, cuts, given.loss)
    if mode == "infer":
        inference = Inference(relaxation, given.train)
        return lambda part, _rows: float(inference.backward(part))
    stored = TargetTable(relaxation, given.train)
    return lambda part, rows: float(stored.backward(part, rows))


def ordinary(model: nn.Module, given: Problem, part: Batch) -> float:
    loss = given.loss.function(model(*part.args), part.labels)
    loss.backward()
    return float(loss.detach())


def show(record: Record) -> str:
    """All small studies as tables."""
    parts = []
    for study, heads in (
        ("losses", ["score", "train_score", "unaligned", "gap", "label_share"]),
        ("generalisation", ["score", "train_score"]),
        ("regularisers", ["score", "train_score"]),
        ("starts", ["score", "unaligned"]),
        ("mini-batches", ["score", "seconds"]),
    ):
        kinds = dict.fromkeys(
            (r.activation, r.depth, r.detail, r.method)
            for r in record.done
            if r.study == study
        )
        rows = []
        for name, depth, detail, method in kinds:
            found = record.rows(
                study, activation=name, depth=depth, detail=detail, method=method
            )
            cells = [
                spread((r[h] for r in found if h in r), places=2 if h == "gap" else 1)
                for h in heads
            ]
            rows.append([f"{name}, {depth} layers", detail, method, *cells])
        parts.append(f"{study}\n\n" + table(["net", "what", "method", *heads], rows))
    return "\n\n".join(parts)
