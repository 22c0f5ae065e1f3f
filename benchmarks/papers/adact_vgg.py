"""AdAct's comparison on VGG nets: fixed against trainable activations.

    python -m benchmarks.papers.adact_vgg --data-root DIR --seeds 10 --resume
    python -m benchmarks.papers.adact_vgg --data-root DIR --quick

CIFAR-10, one to three VGG blocks of 32, 64 and 128 channels with two 3 × 3
convolutions each, dense 128, Glorot-normal weights, SGD 0.001 with momentum 0.9, batch
64, 100 epochs: the paper does not give its nets, and these are the usual ones of that
name, whose ReLU accuracies match the paper's. ReLU, LeakyReLU, PReLU, APL, and
PiecewiseLinear from ReLU and from leaky ReLU. All arms of a seed start from the same
weights and see the same batches; PiecewiseLinear starts as ReLU exactly. Accuracy on
the test images after every epoch, and the CPU seconds of training: equal epochs are
not equal time.

Reduced: --convs 1 --optimizer adam --lr 0.001 --epochs 4 --images 8000.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from benchmarks.papers import study
from benchmarks.papers.adact_nets import ARMS, accuracy, start_, vgg
from benchmarks.papers.pictures import Images, cifar
from benchmarks.papers.study import Outcome, Study

BATCH = 64


@dataclass(frozen=True)
class Run:
    """One training."""

    arm: str
    blocks: int
    convs: int
    optimizer: str
    lr: float
    images: int
    epochs: int
    seed: int


def outcome(run: Run, data: Images) -> Outcome:
    torch.manual_seed(run.seed)
    model = vgg(run.arm, run.blocks, convs=run.convs)
    start_(model, run.seed)
    model.to(data.train.device)
    optimizer: torch.optim.Optimizer
    if run.optimizer == "adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=run.lr)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=run.lr, momentum=0.9)
    order = torch.Generator().manual_seed(run.seed)
    scores, losses, spent = [], [], 0.0
    for _ in range(run.epochs):
        start, total = time.process_time(), 0.0
        for rows in torch.randperm(len(data.train), generator=order).split(BATCH):
            optimizer.zero_grad()
            loss = cross_entropy(model(data.train[rows]), data.train_labels[rows])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        spent += time.process_time() - start
        scores.append(round(accuracy(model, data.test, data.test_labels), 2))
        losses.append(round(total / len(data.train), 4))
    return {
        "accuracy": scores[-1],
        "scores": scores,
        "losses": losses,
        "cpu": round(spent, 1),
    }


Found = dict[tuple[int, str], list[Outcome]]


def within(outcomes: list[Outcome], limits: list[float]) -> list[float]:
    """Returns the accuracies that were reached in given CPU seconds.

    An epoch's seconds count as all alike.
    """
    reached = []
    for outcome, limit in zip(outcomes, limits, strict=False):
        per_epoch = outcome["cpu"] / len(outcome["scores"])
        epochs = min(int(limit / per_epoch + 1e-9), len(outcome["scores"]))
        reached.append(outcome["scores"][epochs - 1] if epochs else 10.0)
    return reached


def rows_of(found: Found) -> list[list[str]]:
    rows = []
    for (blocks, arm), outcomes in found.items():
        relu = found.get((blocks, "ReLU"), [])
        pairs = zip(outcomes, relu, strict=False)
        gain = [a["accuracy"] - b["accuracy"] for a, b in pairs]
        rows.append(
            [
                f"VGG {blocks}",
                arm,
                study.cell([o["accuracy"] for o in outcomes]),
                study.interval(gain, 1) if arm != "ReLU" else "",
                study.cell([max(o["scores"]) for o in outcomes]),
                study.cell([o["losses"][-1] for o in outcomes], 2),
                f"{statistics.mean(o['cpu'] for o in outcomes):.0f}",
                study.cell(within(outcomes, [o["cpu"] for o in relu])),
            ]
        )
    return rows


def draw(figure: Any, found: Found) -> None:
    depths = list(dict.fromkeys(blocks for blocks, _ in found))
    fields = figure.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    for axes, depth in zip(fields, depths, strict=True):
        for (blocks, arm), outcomes in found.items():
            if blocks == depth:
                curves = zip(*(o["scores"] for o in outcomes), strict=True)
                axes.plot([statistics.mean(epoch) for epoch in curves], label=arm)
        axes.set(title=f"VGG {depth}", xlabel="epoch")
    fields[0].set(ylabel="test accuracy, %")
    fields[0].legend()


def wanted(options: argparse.Namespace) -> list[Run]:
    fixed = (options.convs, options.optimizer, options.lr)
    size = (options.images, options.epochs)
    return [
        Run(arm, blocks, *fixed, *size, seed)
        for seed in range(options.seeds)
        for blocks in options.blocks
        for arm in ARMS
    ]


def main() -> None:
    parser = study.parser(__doc__ or "", "adact_vgg")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--convs", type=int, default=2, help="in each block")
    parser.add_argument("--optimizer", choices=["sgd", "adam"], default="sgd")
    parser.add_argument("--lr", type=float, default=0.001)
    quick = {"images": 500, "epochs": 2, "blocks": [2], "convs": 1, "seeds": 1}
    options = study.parse(parser, **quick)
    data = functools.cache(
        lambda: cifar(options.data_root, options.images, options.device)
    )
    runs = Study(options, Run, lambda run: outcome(run, data()))
    found: Found = {}
    for run in runs.run(wanted(options)):
        found.setdefault((run.blocks, run.arm), []).append(runs.results[run])
    head = ["net", "activation", "accuracy", "minus ReLU", "best epoch", "train loss"]
    print(
        f"{options.images} images, {options.convs} convolutions in a block, "
        f"{options.optimizer} {options.lr:g}, {options.epochs} epochs; test accuracy "
        f"in %, mean [lowest–highest] of up to {options.seeds} seeds.\n\n"
        + study.table([*head, "CPU s", "in ReLU's CPU time"], rows_of(found))
    )
    place = options.plots and options.plots / "adact_vgg.svg"
    study.plot(place, lambda figure: draw(figure, found), (9, 3.2))
    runs.close()


if __name__ == "__main__":
    main()
