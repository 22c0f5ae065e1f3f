"""Table I of the SDAGD paper, with honest controls: MNIST, 784-(width x k)-10.

    python benchmarks/papers/sdagd_table1.py --data-root DIR --seeds 3 --resume
    python benchmarks/papers/sdagd_table1.py --data-root DIR --quick

DIR holds MNIST in torchvision's layout (DIR/MNIST/raw). Every method gets the same
nets (sigmoid and ReLU, k hidden layers, Xavier-uniform weights, zero biases), the
same batches of 100, the same schedule (5 % warm-up, linear decay to 0), and the same
number of settings to choose from. One setting serves all nets of a study: the one
with the lowest geometric mean of the validation errors after training on 55,000
images, measured on the other 5,000. Only then does it train on all 60,000, with
fresh seeds, and meet the test set.

Each finished run is one line of the results file; with --resume, runs that are in
it are not repeated. Depth: --hidden 10 20 50 --width 100 --epochs 3. The paper's
loss: --loss half-squares. Ablations: --methods sdagd sdagd-uncentred sdagd-global …
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.optim import SGD, Adam, Optimizer

from vgaudit.optim import SDAGD, CenteredAdam, warmup_linear_decay

BATCH, VALIDATION, TUNING_SEED = 100, 5000, 1000
ACTIVATIONS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU}

# Student's t for a 95 % interval, by degrees of freedom.
STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31}

Build = Callable[[nn.Module, float, int], Optimizer]


@dataclass(frozen=True)
class Method:
    """A way to train: its settings, best guess first, and how to build it."""

    title: str
    settings: tuple[float, float, float, float]
    build: Build


def sdagd(**options: Any) -> Build:
    """SDAGD with the radius setting / √L for L weight layers."""
    return lambda model, setting, depth: SDAGD(
        model.named_parameters(), lr=setting / math.sqrt(depth), **options
    )


RELATIVE = (0.1, 0.05, 0.2, 0.03)

METHODS = {
    "sdagd": Method("SDAGD", RELATIVE, sdagd()),
    "adam": Method(
        "Adam", (1e-3, 3e-3, 3e-4, 1e-2), lambda m, s, _: Adam(m.parameters(), lr=s)
    ),
    "centred-adam": Method(
        "centred Adam",
        (3e-3, 1e-3, 3e-4, 1e-2),
        lambda m, s, _: CenteredAdam(m.named_parameters(), lr=s),
    ),
    "sgd": Method(
        "SGD, momentum 0.9",
        (0.1, 0.03, 0.3, 0.01),
        lambda m, s, _: SGD(m.parameters(), lr=s, momentum=0.9),
    ),
    "literal": Method(
        "literal formula, R absolute",
        (0.5, 0.25, 1.0, 0.1),
        lambda m, s, _: SDAGD(m.named_parameters(), lr=s, literal=True),
    ),
    "literal-global": Method(
        "literal formula, one global μ",
        (0.5, 0.25, 1.0, 0.1),
        lambda m, s, _: SDAGD(m.named_parameters(), lr=s, literal=True, scope="global"),
    ),
    "sdagd-uncentred": Method("SDAGD, no centring", RELATIVE, sdagd(centring=False)),
    "sdagd-layer": Method("SDAGD, μ by layer", RELATIVE, sdagd(scope="layer")),
    "sdagd-global": Method("SDAGD, global μ", RELATIVE, sdagd(scope="global")),
    "sdagd-curvature": Method("SDAGD, κ = 100", RELATIVE, sdagd(kappa=100.0)),
    "sdagd-trust": Method(
        "SDAGD, κ = 100, trust", RELATIVE, sdagd(kappa=100.0, solve="trust")
    ),
    "sdagd-still": Method("SDAGD, no momentum", RELATIVE, sdagd(momentum=0.0)),
    "sdagd-adapted": Method("SDAGD, adapted radius", RELATIVE, sdagd(adapt=True)),
}
DEFAULT = ("sdagd", "adam", "centred-adam", "sgd", "literal")


@dataclass(frozen=True)
class Run:
    """One training: everything that decides its outcome."""

    stage: str
    method: str
    setting: float
    activation: str
    hidden: int
    width: int
    epochs: int
    loss: str
    seed: int


@dataclass(frozen=True)
class Images:
    """Training and test images ``[N, 784]``, standardised, with labels ``[N]``."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def mnist(root: Path, device: str) -> Images:
    parts = []
    for name in ("train", "t10k"):
        images = idx(root / "MNIST" / "raw" / f"{name}-images-idx3-ubyte")
        labels = idx(root / "MNIST" / "raw" / f"{name}-labels-idx1-ubyte")
        scaled = (images.float().flatten(1) / 255 - 0.1307) / 0.3081
        parts += [scaled.to(device), labels.long().to(device)]
    return Images(*parts)


def idx(path: Path) -> Tensor:
    """Returns the array of an IDX file, packed or not."""
    packed = Path(f"{path}.gz")
    raw = path.read_bytes() if path.exists() else gzip.decompress(packed.read_bytes())
    dimensions = raw[3]
    shape = [
        int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions)
    ]
    values = torch.frombuffer(bytearray(raw[4 + 4 * dimensions :]), dtype=torch.uint8)
    return values.view(shape)


def network(run: Run) -> nn.Sequential:
    torch.manual_seed(run.seed)
    layers: list[nn.Module] = []
    for index in range(run.hidden):
        before = run.width if index else 784
        layers += [nn.Linear(before, run.width), ACTIVATIONS[run.activation]()]
    model = nn.Sequential(*layers, nn.Linear(run.width, 10))
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return model


def loss_of(run: Run, output: Tensor, labels: Tensor) -> Tensor:
    if run.loss == "cross-entropy":
        return cross_entropy(output, labels)
    return 0.5 * (output - one_hot(labels, 10)).square().sum(1).mean()


def observe(run: Run, optimizer: SDAGD, output: Tensor) -> None:
    if run.loss == "cross-entropy":
        optimizer.observe(output, "cross-entropy")
    else:
        squares = nn.MSELoss(reduction="sum")
        optimizer.observe(output, squares, scale=0.5 / len(output))


def train(run: Run, data: Images) -> float:
    """Returns the error in percent, on validation or test images."""
    cut = len(data.train) - (VALIDATION if run.stage == "tune" else 0)
    x, y = data.train[:cut], data.train_labels[:cut]
    held = (
        (data.train[cut:], data.train_labels[cut:])
        if run.stage == "tune"
        else (data.test, data.test_labels)
    )
    model = network(run).to(x.device)
    optimizer = METHODS[run.method].build(model, run.setting, run.hidden + 1)
    scheduler = warmup_linear_decay(optimizer, run.epochs * (cut // BATCH))
    order = torch.Generator().manual_seed(run.seed)
    for _ in range(run.epochs):
        shuffled = torch.randperm(cut, generator=order).to(x.device)
        for chosen in shuffled.split(BATCH):
            optimizer.zero_grad()
            output = model(x[chosen])
            if isinstance(optimizer, SDAGD):
                observe(run, optimizer, output)
            loss_of(run, output, y[chosen]).backward()
            optimizer.step()
            scheduler.step()
    with torch.no_grad():
        wrong = model(held[0]).argmax(1) != held[1]
    return 100 * float(wrong.float().mean())


class Results:
    """The results file: one line for each run, found again by what decided it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._errors: dict[Run, float] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            # A run that was killed while writing leaves half a line: it is repeated.
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            self._errors[Run(**record["run"])] = record["error"]

    def __contains__(self, run: Run) -> bool:
        return run in self._errors

    def __getitem__(self, run: Run) -> float:
        return self._errors[run]

    def add(self, run: Run, error: float, seconds: float, device: str) -> None:
        self._errors[run] = error
        record = {
            "run": asdict(run),
            "error": error,
            "seconds": round(seconds, 1),
            "torch": torch.__version__,
            "device": device,
        }
        half = self._path.exists() and not self._path.read_bytes().endswith(b"\n")
        with self._path.open("a") as file:
            file.write(("\n" if half else "") + json.dumps(record) + "\n")


def nets(options: argparse.Namespace, stage: str, method: str) -> Iterator[Run]:
    """Yields one run for each net; setting and seed are still to be filled in."""
    for activation in options.activations:
        for hidden in options.hidden:
            yield Run(
                stage, method, 0.0, activation, hidden, options.width,
                options.epochs, options.loss, TUNING_SEED,
            )  # fmt: skip


def finish(runs: Iterable[Run], options: argparse.Namespace, results: Results) -> None:
    for run in runs:
        if run in results:
            continue
        start = time.perf_counter()
        error = train(run, options.data)
        seconds = time.perf_counter() - start
        results.add(run, error, seconds, options.device)
        print(
            f"{run.stage} {run.method} {run.setting:g} {run.activation} "
            f"k={run.hidden} seed {run.seed}: {error:.2f} % in {seconds:.0f} s",
            file=sys.stderr,
            flush=True,
        )


def choose(method: str, options: argparse.Namespace, results: Results) -> float:
    """Returns the setting with the lowest geometric mean of validation errors."""
    candidates = METHODS[method].settings[: options.settings]
    if len(candidates) == 1:
        return candidates[0]
    scores = {}
    for setting in candidates:
        runs = [replace(r, setting=setting) for r in nets(options, "tune", method)]
        finish(runs, options, results)
        scores[setting] = statistics.mean(math.log(results[r] + 0.01) for r in runs)
    return min(scores, key=lambda setting: scores[setting])


def study(options: argparse.Namespace, results: Results) -> str:
    """Runs what is missing; returns two tables in Markdown."""
    errors: dict[str, dict[tuple[str, int], list[float]]] = {}
    chosen: dict[str, float] = {}
    for method in options.methods:
        chosen[method] = choose(method, options, results)
        errors[method] = {}
        for net in nets(options, "test", method):
            runs = [
                replace(net, setting=chosen[method], seed=seed)
                for seed in range(options.seeds)
            ]
            finish(runs, options, results)
            found = [results[run] for run in runs]
            errors[method][net.activation, net.hidden] = found
    return errors_table(errors, chosen) + "\n" + differences_table(errors)


def errors_table(
    errors: dict[str, dict[tuple[str, int], list[float]]], chosen: dict[str, float]
) -> str:
    columns = list(next(iter(errors.values())))
    head = " | ".join(f"{activation} k={hidden}" for activation, hidden in columns)
    lines = [f"| method | setting | {head} |", "|---" * (len(columns) + 2) + "|"]
    for method, found in errors.items():
        cells = [
            f"{statistics.mean(values):.2f} [{min(values):.2f}-{max(values):.2f}]"
            for values in found.values()
        ]
        title = METHODS[method].title
        lines.append(f"| {title} | {chosen[method]:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def differences_table(
    errors: dict[str, dict[tuple[str, int], list[float]]],
) -> str:
    """Error minus that of the first method, mean over nets, interval over seeds."""
    first, *others = errors
    lines = [f"| method | minus {METHODS[first].title}, points |", "|---|---|"]
    for method in others:
        by_seed = [
            statistics.mean(a - b for a, b in zip(own, reference, strict=True))
            for own, reference in zip(
                zip(*errors[method].values(), strict=True),
                zip(*errors[first].values(), strict=True),
                strict=True,
            )
        ]
        middle = f"{statistics.mean(by_seed):+.2f}"
        if len(by_seed) > 1:
            student = STUDENT.get(len(by_seed) - 1, 2.26)
            half = student * statistics.stdev(by_seed) / math.sqrt(len(by_seed))
            middle += f" ± {half:.2f}"
        lines.append(f"| {METHODS[method].title} | {middle} |")
    return "\n".join(lines) + "\n"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("sdagd_table1.jsonl"))
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=DEFAULT)
    parser.add_argument("--hidden", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument(
        "--activations", nargs="+", choices=ACTIVATIONS, default=list(ACTIVATIONS)
    )
    parser.add_argument("--width", type=int, default=700)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument(
        "--loss", choices=["cross-entropy", "half-squares"], default="cross-entropy"
    )
    parser.add_argument("--settings", type=int, choices=[1, 2, 3, 4], default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--quick",
        action="store_true",
        help="width 100, k = 1 and 5, 1 epoch, 1 seed, 2 settings: shows that it works",
    )
    options = parser.parse_args()
    if options.quick:
        vars(options).update(width=100, hidden=[1, 5], epochs=1, seeds=1, settings=2)
    if options.out.exists() and not options.resume:
        parser.error(f"{options.out} exists: pass --resume, or another --out")
    return options


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    options.data = mnist(options.data_root, options.device)
    tables = study(options, Results(options.out))
    print(
        f"width {options.width}, {options.epochs} epochs, {options.loss}, "
        f"{options.seeds} seeds; test error in %, mean [lowest-highest]\n\n{tables}"
    )


if __name__ == "__main__":
    main()
