"""Adaptive activations in the last layers only, on features learned elsewhere.

    python -m benchmarks.papers.adact_transfer --data-root DIR --seeds 5 --resume
    python -m benchmarks.papers.adact_transfer --data-root DIR --quick

The paper takes nets trained on ImageNet to CIFAR-10. Here nothing is downloaded: three
VGG blocks learn the first five classes of CIFAR-10 with ReLU, their convolutions are
frozen, and new last layers (dense 128, activation, output) learn the other five, with
each activation from the same weights, for the given number of iterations (the paper:
at least 100). Adam 1e-3, batch 64. Accuracy on the test images of those classes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.papers import study
from benchmarks.papers.adact_nets import (
    ARMS,
    accuracy,
    head,
    split_classes,
    start_,
    vgg,
)
from benchmarks.papers.pictures import Images, cifar
from benchmarks.papers.study import Outcome, Study

BATCH, HALF, CUT = 64, 5, 3


@dataclass(frozen=True)
class Run:
    """One training of the last layers."""

    arm: str
    images: int
    epochs: int
    iterations: int
    seed: int


def adam(model: nn.Module, x: Tensor, y: Tensor, steps: int, seed: int) -> None:
    """Trains for a number of steps, data in a new order in each pass."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    done = 0
    while done < steps:
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            if done == steps:
                return
            optimizer.zero_grad()
            cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            done += 1


def features(data: Images, epochs: int, seed: int) -> Images:
    """Returns the other five classes behind convolutions that learned five."""
    torch.manual_seed(seed)
    source = split_classes(data, range(HALF))
    model = vgg("ReLU", 3, convs=1, classes=HALF)
    start_(model, seed)
    steps = epochs * (len(source.train) // BATCH)
    adam(model, source.train, source.train_labels, steps, seed)
    convolutions = model[:-CUT]
    target = split_classes(data, range(HALF, 2 * HALF))

    @torch.no_grad()
    def through(x: Tensor) -> Tensor:
        return torch.cat([convolutions(part) for part in x.split(500)])

    return Images(
        through(target.train),
        target.train_labels,
        through(target.test),
        target.test_labels,
    )


def outcome(run: Run, data: Images) -> Outcome:
    torch.manual_seed(run.seed)
    model = nn.Sequential(*head(run.arm, data.train.shape[1], HALF))
    start_(model, run.seed)
    adam(model, data.train, data.train_labels, run.iterations, run.seed)
    return {
        "accuracy": round(accuracy(model, data.test, data.test_labels), 2),
        "train": round(accuracy(model, data.train, data.train_labels), 2),
    }


def main() -> None:
    parser = study.parser(__doc__ or "", "adact_transfer")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=20, help="of the convolutions")
    parser.add_argument("--iterations", type=int, nargs="+", default=[100, 500, 2000])
    options = study.parse(parser, images=1000, epochs=1, seeds=1, iterations=[20])
    images = functools.cache(
        lambda: cifar(options.data_root, options.images, options.device)
    )
    # One seed's features serve all its runs; the next seed's take their place.
    learned = functools.lru_cache(maxsize=1)(
        lambda seed: features(images(), options.epochs, seed)
    )
    runs = Study(options, Run, lambda run: outcome(run, learned(run.seed)))
    done = runs.run(
        Run(arm, options.images, options.epochs, iterations, seed)
        for seed in range(options.seeds)
        for iterations in options.iterations
        for arm in ARMS
    )

    def found(arm: str, iterations: int, what: str = "accuracy") -> dict[int, float]:
        return {
            run.seed: runs.results[run][what]
            for run in done
            if (run.arm, run.iterations) == (arm, iterations)
        }

    rows = []
    for arm in ARMS:
        row = [arm]
        for iterations in options.iterations:
            own, relu = found(arm, iterations), found("ReLU", iterations)
            gain = [own[seed] - relu[seed] for seed in own if seed in relu]
            row.append(study.cell(list(own.values())))
            row.append(study.interval(gain, 1) if arm != "ReLU" else "")
        rows.append(row)
    heads = [[f"{n} iterations", "minus ReLU"] for n in options.iterations]
    print(
        f"{options.images} images, half for the convolutions ({options.epochs} "
        "epochs), half for the last layers; test accuracy in %, mean [lowest–highest] "
        f"of up to {options.seeds} seeds.\n\n"
        + study.table(["activation", *(h for pair in heads for h in pair)], rows)
    )
    runs.close()


if __name__ == "__main__":
    main()
