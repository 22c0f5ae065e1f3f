"""MNIST in mini-batches: five hidden sigmoid layers, SGD with and without sweep."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.papers.rai_study.record import Record, Run, spread, table
from vgaudit.data.batch import Batch
from vgaudit.training.rai import Sweep, find_cuts

BATCH, STEPS, VALIDATION, TUNING = 100, 900, 5000, 1000
RATES = (0.03, 0.1, 0.3, 1.0)
HIDDEN, WIDTH = 5, 100


@dataclass(frozen=True)
class Images:
    """Standardised images ``[N, 784]`` with labels ``[N]``."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def mnist(root: Path) -> Images:
    parts = []
    for name in ("train", "t10k"):
        raw = root / "MNIST" / "raw"
        pixels = _values(raw / f"{name}-images-idx3-ubyte", 16).reshape(-1, 784)
        parts += [
            (pixels.float() / 255 - 0.1307) / 0.3081,
            _values(raw / f"{name}-labels-idx1-ubyte", 8).long(),
        ]
    return Images(*parts)


def _values(path: Path, header: int) -> Tensor:
    return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)[header:]


def build(seed: int) -> nn.Sequential:
    """784-(100 × 5)-10 with torch's own initialisation."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for number in range(HIDDEN):
        layers += [nn.Linear(WIDTH if number else 784, WIDTH), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


def batches(samples: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(samples, generator=generator).split(BATCH)


def error_of(images: tuple[Tensor, Tensor], model: nn.Module) -> float:
    x, y = images
    with torch.no_grad():
        return 100 * float((model(x).argmax(1) != y).double().mean())


def train(
    parts: tuple[Tensor, Tensor, Tensor, Tensor], method: str, rate: float, seed: int
) -> dict[str, float]:
    """900 steps of SGD with momentum 0.9; error on the other two tensors."""
    x, y, *others = parts
    model = build(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    cuts = find_cuts(model, Batch(args=(x[:BATCH],), labels=y[:BATCH], size=BATCH))
    sweep = Sweep(cuts)
    start = time.process_time()
    for _, rows in zip(range(STEPS), batches(len(x), seed), strict=False):
        optimizer.zero_grad()
        if method == "sweep":
            with sweep.cutting():
                output = model(x[rows])
        else:
            output = model(x[rows])
        F.cross_entropy(output, y[rows]).backward()
        optimizer.step()
    seconds = time.process_time() - start
    return {"error": error_of((others[0], others[1]), model), "seconds": seconds}


def run_all(record: Record, root: Path | None, seeds: int = 3) -> None:
    """Rates on a validation split, then fresh seeds on the test set."""

    @functools.cache
    def images() -> Images:
        if root is None:
            raise SystemExit("--study mnist needs --data-root DIR, with DIR/MNIST/raw")
        return mnist(root)

    for method in ("sweep", "plain"):
        for rate in RATES:
            run = Run("mnist-tune", method, "sigmoid", 6, WIDTH, TUNING, f"rate {rate}")
            record.run(
                run, lambda m=method, r=rate: train(split(images()), m, r, TUNING)
            )
    for method in ("sweep", "plain"):
        rate = best(record, method)
        for seed in range(seeds):
            run = Run("mnist", method, "sigmoid", 6, WIDTH, seed, f"rate {rate}")
            record.run(
                run, lambda m=method, r=rate, s=seed: train(whole(images()), m, r, s)
            )


def split(images: Images) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and validation part of the training images."""
    x, y = images.train, images.train_labels
    return x[:-VALIDATION], y[:-VALIDATION], x[-VALIDATION:], y[-VALIDATION:]


def whole(images: Images) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test images."""
    return images.train, images.train_labels, images.test, images.test_labels


def best(record: Record, method: str) -> float:
    def error(rate: float) -> float:
        found = record.rows("mnist-tune", method=method, detail=f"rate {rate}")
        return statistics.fmean(row["error"] for row in found)

    return min(RATES, key=error)


def show(record: Record) -> str:
    kinds = dict.fromkeys(
        (r.study, r.method, r.detail)
        for r in record.done
        if r.study.startswith("mnist")
    )
    rows = []
    for study, method, detail in kinds:
        found = record.rows(study, method=method, detail=detail)
        rows.append(
            [
                "test" if study == "mnist" else "validation",
                method,
                detail,
                spread((r["error"] for r in found), places=2),
                spread((r["seconds"] for r in found), places=1),
            ]
        )
    return table(["set", "SGD with", "rate", "error, %", "CPU seconds"], rows)
