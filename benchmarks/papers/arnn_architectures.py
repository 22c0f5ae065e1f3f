"""Auto-rotation on the paper's architectures A and B: accuracy and gradients.

    python -m benchmarks.papers.arnn_architectures --data-root DIR --seeds 3 --resume
    python -m benchmarks.papers.arnn_architectures --data-root DIR --quick

CIFAR-10 in colour, divided by 255; Adam 1e-3, batch 32, cross-entropy. Sigmoid, arctan
and ReLU, each as it is, with batch normalization behind the convolutions' activations
(BN), with auto-rotation as published (AR: x_Q = 2·min − max, a trained L per unit that
starts at 5, 7 and 5, not folded), with both, and after ``vgaudit convert --to ar``
with and without BN. All arms of a seed start from the same weights and see the same
batches.

From the root mean square of each weight's gradient, by epoch and layer, in decades:
uniformity is its standard deviation over layers, mean over epochs; stability is its
standard deviation over epochs, mean over layers. Smaller is better for both.
Convergence is the epoch by which half of the arm's gain over chance is reached.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.papers import study
from benchmarks.papers.arnn_nets import (
    RANGES,
    Task,
    accuracy,
    architecture,
    converted,
    rotate_,
    train,
)
from benchmarks.papers.pictures import Images, cifar
from benchmarks.papers.study import Outcome, Study
from vgaudit.nn import Limit

LIMITS = {"sigmoid": 5.0, "arctan": 7.0, "relu": 5.0}
ARMS = {
    "plain": "as it is",
    "bn": "BN",
    "ar": "AR as published",
    "ar-bn": "AR as published, BN",
    "convert": "convert --to ar",
    "convert-bn": "convert --to ar, BN",
}
CHANCE, LEAST = 10.0, 1e-30


@dataclass(frozen=True)
class Run:
    """One training."""

    net: str
    activation: str
    arm: str
    images: int
    epochs: int
    seed: int


def network(run: Run, data: Images) -> nn.Module:
    bn = run.arm.endswith("bn")
    model: nn.Module = architecture(run.net, run.activation, run.seed, bn=bn)
    if run.arm.startswith("convert"):
        return converted(model, (data.train[:512], data.train_labels[:512]))
    if run.arm.startswith("ar"):
        limit = Limit(LIMITS[run.activation])
        hidden = RANGES[run.activation]
        rotate_(model, lambda units: limit, data=(0.0, 1.0), hidden=hidden)
    return model


def outcome(run: Run, data: Images) -> Outcome:
    torch.manual_seed(run.seed)
    model = network(run, data)
    score = accuracy(data.test, data.test_labels)
    task = Task(data.train, data.train_labels, cross_entropy, score, 32, run.epochs)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    curve = train(model, task, optimizer, run.seed)
    return {"accuracy": curve.scores[-1], **asdict(curve)}


def decades(outcome: Outcome) -> list[list[float]]:
    """Returns log10 of the gradients by epoch and layer; 0 counts as 1e-30."""
    return [[math.log10(max(g, LEAST)) for g in row] for row in outcome["gradients"]]


def uniformity(outcome: Outcome) -> float:
    return statistics.mean(statistics.pstdev(row) for row in decades(outcome)[1:])


def stability(outcome: Outcome) -> float:
    by_layer = zip(*decades(outcome)[1:], strict=True)
    return statistics.mean(statistics.pstdev(layer) for layer in by_layer)


def convergence(outcome: Outcome) -> float:
    scores = outcome["scores"]
    half = min((CHANCE + max(scores)) / 2, max(scores))
    return 1 + next(i for i, score in enumerate(scores) if score >= half)


MEASURES = {
    "uniformity": (uniformity, 2),
    "stability": (stability, 2),
    "half by epoch": (convergence, 0),
}


def rows_of(found: dict[Run, Outcome]) -> Iterator[list[str]]:
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for run, outcome in found.items():
        groups.setdefault((run.net, run.activation, run.arm), []).append(outcome)
    for (net, activation, arm), outcomes in groups.items():
        best = [max(o["scores"]) for o in outcomes]
        yield [
            f"{net}, {activation}",
            ARMS[arm],
            study.cell([o["accuracy"] for o in outcomes]),
            study.cell(best),
            *(
                study.cell([measure(o) for o in outcomes], digits)
                for measure, digits in MEASURES.values()
            ),
        ]


def against(found: dict[Run, Outcome]) -> Iterator[list[str]]:
    """Yields the differences of accuracy that the paper's claims are about."""
    pairs = [("bn", "plain"), ("ar", "bn"), ("ar-bn", "bn"), ("ar-bn", "ar")]
    pairs += [("convert", "ar"), ("convert", "ar-bn"), ("convert-bn", "ar-bn")]
    nets = dict.fromkeys((run.net, run.activation) for run in found)
    score = {
        (run.net, run.activation, run.arm, run.seed): outcome["accuracy"]
        for run, outcome in found.items()
    }
    for first, second in pairs:
        cells = []
        for net in nets:
            seeds = {key[3] for key in score if key[:2] == net}
            both = [
                score[(*net, first, seed)] - score[(*net, second, seed)]
                for seed in sorted(seeds)
                if (*net, first, seed) in score and (*net, second, seed) in score
            ]
            cells.append(study.interval(both, 1))
        yield [f"{ARMS[first]} minus {ARMS[second]}", *cells]


def heatmaps(figure: Any, found: dict[Run, Outcome], net: str, activation: str) -> None:
    """Draws the gradients by epoch and layer, first seed, one field per arm."""
    chosen = {
        run.arm: outcome
        for run, outcome in found.items()
        if (run.net, run.activation, run.seed) == (net, activation, 0)
    }
    fields = figure.subplots(1, len(chosen), sharey=True, squeeze=False)[0]
    image = None
    for axes, (arm, outcome) in zip(fields, chosen.items(), strict=True):
        # Layers from the input (left) to the output, epochs downwards.
        image = axes.imshow(decades(outcome), vmin=-8, vmax=-1, aspect="auto")
        axes.set(title=ARMS[arm], xlabel="layer")
    fields[0].set(ylabel="epoch")
    figure.colorbar(image, ax=list(fields), label="log10 gradient RMS")


def curves(figure: Any, found: dict[Run, Outcome], net: str, activation: str) -> None:
    """Draws accuracy over epochs, mean of seeds, one line per arm."""
    axes = figure.subplots()
    for arm, title in ARMS.items():
        seeds = [
            outcome["scores"]
            for run, outcome in found.items()
            if (run.net, run.activation, run.arm) == (net, activation, arm)
        ]
        means = [statistics.mean(epoch) for epoch in zip(*seeds, strict=True)]
        axes.plot(range(1, len(means) + 1), means, label=title)
    axes.set(xlabel="epoch", ylabel="test accuracy, %", title=f"{net}, {activation}")
    figure.legend(loc="outside right center")


def plots(options: argparse.Namespace, found: dict[Run, Outcome]) -> None:
    for net, activation in dict.fromkeys((r.net, r.activation) for r in found):
        name = f"arnn_{net}_{activation}".lower()
        if options.plots:
            study.plot(
                options.plots / f"{name}_gradients.svg",
                lambda f, n=net, a=activation: heatmaps(f, found, n, a),  # type: ignore[misc]
                (12, 3),
            )
            study.plot(
                options.plots / f"{name}_accuracy.svg",
                lambda f, n=net, a=activation: curves(f, found, n, a),  # type: ignore[misc]
                (6.5, 3),
            )


def main() -> None:
    parser = study.parser(__doc__ or "", "arnn_architectures")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=50, help="the paper: 50 and 100")
    parser.add_argument("--nets", nargs="+", choices=["B", "A"], default=["B", "A"])
    parser.add_argument(
        "--activations", nargs="+", choices=list(LIMITS), default=list(LIMITS)
    )
    options = study.parse(
        parser, images=1000, epochs=2, seeds=1, nets=["B"], activations=["sigmoid"]
    )
    data = functools.cache(
        lambda: cifar(options.data_root, options.images, options.device)
    )
    runs = Study(options, Run, lambda run: outcome(run, data()))
    wanted = [
        Run(net, activation, arm, options.images, options.epochs, seed)
        for seed in range(options.seeds)
        for net in options.nets
        for activation in options.activations
        for arm in ARMS
    ]
    found = {run: runs.results[run] for run in runs.run(wanted)}
    nets = dict.fromkeys((run.net, run.activation) for run in found)
    head = ["network", "arm", "accuracy", "best epoch", *MEASURES]
    print(
        f"{options.images} images, {options.epochs} epochs; test accuracy in %, mean "
        f"[lowest–highest] of up to {options.seeds} seeds.\n\n"
        f"{study.table(head, rows_of(found))}\n"
        f"{study.table(['points', *(', '.join(n) for n in nets)], against(found))}"
    )
    plots(options, found)
    runs.close()


if __name__ == "__main__":
    main()
