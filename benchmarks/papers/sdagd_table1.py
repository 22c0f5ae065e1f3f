"""Table I of the SDAGD paper, with honest controls: MNIST, 784-(width x k)-10.

    python -m benchmarks.papers.sdagd_table1 --data-root DIR --seeds 3 --resume
    python -m benchmarks.papers.sdagd_table1 --data-root DIR --quick

DIR holds MNIST in torchvision's layout (DIR/MNIST/raw). Every method gets the same
nets (sigmoid and ReLU, k hidden layers, Xavier-uniform weights, zero biases), the
same batches of 100, the same schedule (5 % warm-up, linear decay to 0), and the same
number of settings to choose from. One setting serves all nets of a study: the one
with the lowest geometric mean of the validation errors after training on 55,000
images, measured on the other 5,000. Only then does it train on all 60,000, with
fresh seeds, and meet the test set. The selection may be shorter than the study
(--tune-hidden, --tune-epochs); it is the same for all methods.

Each finished run is one line of the results file; with --resume, runs that are in
it are not repeated. Depth: --hidden 10 20 50 --width 100 --epochs 3. The paper's
loss: --loss half-squares. Ablations: --methods sdagd sdagd-uncentred sdagd-global …

--start signal draws the same weights, multiplies them by 4 (the inverse of sigmoid's
slope), and sets the biases to −S/2 for the sum S of the row's weights, so that what
reaches a sigmoid is centred. With it and --start xavier the deepest nets tell what
fails there. The signal is what is left of the images before training: the standard
deviation of the outputs over 500 test images, the largest of ten.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.optim import SGD, Adam, Optimizer

from benchmarks.papers import study
from benchmarks.papers.pictures import Images, mnist
from benchmarks.papers.study import Outcome, Study
from vgaudit.optim import SDAGD, CenteredAdam, warmup_linear_decay

BATCH, VALIDATION, TUNING_SEED = 100, 5000, 1000
DEEP = 50
"""Hidden layers from which on a study tells what is left of the signal."""

PRECISIONS = ("float32", "float64")
ACTIVATIONS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU}

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
    start: str = "xavier"


def network(run: Run) -> nn.Sequential:
    torch.manual_seed(run.seed)
    layers: list[nn.Module] = []
    for index in range(run.hidden):
        before = run.width if index else 784
        layers += [nn.Linear(before, run.width), ACTIVATIONS[run.activation]()]
    model = nn.Sequential(*layers, nn.Linear(run.width, 10))
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    for layer in linear:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    if run.start == "signal":
        _centre(linear[1:])
    return model


@torch.no_grad()
def _centre(layers: list[nn.Linear]) -> None:
    for layer in layers:
        layer.weight.mul_(4)
        layer.bias.copy_(-layer.weight.sum(1) / 2)


def signals(run: Run, data: Images) -> dict[str, float]:
    """Returns what is left of the images before training, by precision."""
    found = {}
    for kind in PRECISIONS:
        dtype = getattr(torch, kind)
        model = network(run).to(data.test.device, dtype)
        with torch.no_grad():
            spread = model(data.test[:500].to(dtype)).std(0)
        found[kind] = float(f"{float(spread.max()):.2e}")
    return found


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


def nets(options: argparse.Namespace, stage: str, method: str) -> Iterator[Run]:
    """Yields one run for each net; setting and seed are still to be filled in."""
    tune = stage == "tune"
    epochs = (options.tune_epochs if tune else None) or options.epochs
    for activation in options.activations:
        for hidden in (options.tune_hidden if tune else None) or options.hidden:
            yield Run(
                stage, method, 0.0, activation, hidden, options.width,
                epochs, options.loss, TUNING_SEED, options.start,
            )  # fmt: skip


def choose(method: str, options: argparse.Namespace, runs: Study[Run]) -> float | None:
    """Returns the setting with the lowest geometric mean of validation errors.

    None while validation runs are missing.
    """
    candidates = METHODS[method].settings[: options.settings]
    if len(candidates) == 1:
        return candidates[0]
    scores = {}
    for setting in candidates:
        wanted = [replace(r, setting=setting) for r in nets(options, "tune", method)]
        done = runs.run(wanted)
        if len(done) == len(wanted):
            errors = [runs.results[run]["error"] + 0.01 for run in done]
            scores[setting] = study.geometric(errors)
    complete = len(scores) == len(candidates)
    return min(scores, key=lambda setting: scores[setting]) if complete else None


Found = dict[str, dict[tuple[str, int], dict[int, float]]]
"""Test errors in percent by method, net and seed."""


def errors_of(
    options: argparse.Namespace, runs: Study[Run]
) -> tuple[Found, list[str], dict[Run, Outcome]]:
    """Runs what is missing: all methods with the first seed, then with the second."""
    chosen: dict[str, float] = {}
    found: Found = {}
    outcomes: dict[Run, Outcome] = {}
    for seed in range(options.seeds):
        for method in options.methods:
            setting = chosen.get(method) or choose(method, options, runs)
            if setting is None:
                continue
            chosen[method] = setting
            untold = nets(options, "test", method)
            wanted = [replace(run, setting=setting, seed=seed) for run in untold]
            for run in runs.run(wanted):
                by_net = found.setdefault(method, {})
                net = by_net.setdefault((run.activation, run.hidden), {})
                outcomes[run] = runs.results[run]
                net[seed] = outcomes[run]["error"]
    return found, [f"{chosen[method]:g}" for method in found], outcomes


def errors_table(found: Found, settings: list[str], options: argparse.Namespace) -> str:
    columns = [(a, k) for a in options.activations for k in options.hidden]
    rows = [
        [
            METHODS[method].title,
            setting,
            *(study.cell(list(errors.get(net, {}).values()), 2) for net in columns),
        ]
        for (method, errors), setting in zip(found.items(), settings, strict=True)
    ]
    head = ["method", "setting", *(f"{a} k={hidden}" for a, hidden in columns)]
    return study.table(head, rows)


def differences_table(found: Found) -> str:
    """Error minus that of the first method, mean over nets, interval over seeds.

    Of each seed only the nets that both have finished.
    """
    if len(found) < 2:
        return ""
    first, *others = found
    rows = []
    for method in others:
        pairs: dict[int, list[float]] = {}
        for net, errors in found[method].items():
            for seed, error in errors.items():
                if seed in found[first].get(net, {}):
                    pairs.setdefault(seed, []).append(error - found[first][net][seed])
        by_seed = [statistics.mean(values) for values in pairs.values()]
        count = sum(map(len, pairs.values()))
        rows.append([METHODS[method].title, study.interval(by_seed), str(count)])
    return study.table(
        ["method", f"minus {METHODS[first].title}, points", "pairs of runs"], rows
    )


def signals_table(outcomes: dict[Run, Outcome]) -> str:
    """What reaches the outputs before training, mean over seeds, where it is known."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for run, outcome in outcomes.items():
        if "signal" in outcome:
            net = f"{run.activation} k={run.hidden}"
            found.setdefault(net, {})[run.seed] = outcome["signal"]
    rows = []
    for net, by_seed in found.items():
        means = (
            statistics.mean(signal[kind] for signal in by_seed.values())
            for kind in PRECISIONS
        )
        rows.append([net, *(f"{mean:.1e}" for mean in means)])
    if not rows:
        return ""
    return "\n" + study.table(["signal before training", *PRECISIONS], rows)


def parse() -> argparse.Namespace:
    parser = study.parser(__doc__ or "", "sdagd_table1")
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
    parser.add_argument("--start", choices=["xavier", "signal"], default="xavier")
    parser.add_argument("--settings", type=int, choices=[1, 2, 3, 4], default=4)
    parser.add_argument("--tune-hidden", type=int, nargs="+", help="default: --hidden")
    parser.add_argument("--tune-epochs", type=int, help="default: --epochs")
    # width 100, k = 1 and 5, 1 epoch, 1 seed, 2 settings
    return study.parse(parser, width=100, hidden=[1, 5], epochs=1, seeds=1, settings=2)


def main() -> None:
    options = parse()
    data = functools.cache(lambda: mnist(options.data_root, options.device))

    def outcome(run: Run) -> Outcome:
        signal = {"signal": signals(run, data())} if run.hidden >= DEEP else {}
        return {"error": train(run, data())} | signal

    runs = Study(options, Run, outcome)
    found, settings, outcomes = errors_of(options, runs)
    print(
        f"Width {options.width}, {options.epochs} epochs, {options.loss}; test error "
        f"in %, mean [lowest–highest] of up to {options.seeds} seeds.\n\n"
        f"{errors_table(found, settings, options)}\n{differences_table(found)}"
        f"{signals_table(outcomes)}"
    )
    runs.close()


if __name__ == "__main__":
    main()
