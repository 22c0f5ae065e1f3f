"""How the cost of measuring grows: with depth, width, batch and weights, and at start.

    python benchmarks/scale.py --repeats 9
    python benchmarks/scale.py --tables memory --processes 7
    python benchmarks/scale.py --tables weights

``cost``: for sigmoid networks of growing depth, width and batch, the CPU time that a
measured step adds to a plain one for each observed tensor (a call of an activation, a
parameter, a gradient), by the median of differences taken pair by pair.
``weights``: the same for networks of a million to a billion parameters, with the peak
of resident memory of a plain step, of the first measured batch and of a later one.
``memory``: what a measured step adds to the peak of a plain one for each layer; the
peak is set back and the heap trimmed before each, beside controls that keep a clone of
every output, or of every weight. ``start``: CPU time of whole commands beside that of
``import torch``. Each size in processes of its own. Markdown on standard output.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from overhead import HEAP, WARM_UP, Arm, seconds, trimmed_peak

DEPTHS, WIDTHS, BATCHES = (50, 100, 200, 500), (128, 256, 1024), (8, 32, 512)
SMALL = (64, 64)
"""Width and samples of the networks whose memory is measured: outputs of 16 KB."""
PEAKS = 5
LAYERS, SAMPLES = 16, 32
WEIGHTS = (
    ("float32", 256),
    ("float32", 792),
    ("float32", 2504),
    ("bfloat16", 256),
    ("bfloat16", 792),
    ("bfloat16", 2504),
    ("bfloat16", 7912),
)
"""Type and width of networks of 1, 10, 100 and 1000 million weights."""
FIXTURES = Path(__file__).parents[1] / "fixtures"
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "vgaudit --help": ["-m", "vgaudit", "--help"],
    "vgaudit scan": [
        *("-m", "vgaudit", "scan", str(FIXTURES / "deep_sigmoid_mlp.safetensors")),
        *("--arch", f"{FIXTURES / 'models.py'}:deep_sigmoid_mlp", "--exit-zero"),
    ],
}

Found = dict[str, float]


@contextlib.contextmanager
def keeping_clones(work: Any) -> Iterator[Any]:
    """A control: a step after which a clone of every output is still there."""
    import peers

    kept: list[Any] = []
    hooks = [
        module.register_forward_hook(lambda _, __, out: kept.append(out.clone()))
        for module in peers.leaves(work.model)
    ]

    def step() -> None:
        kept.clear()
        peers.step_of(work)()

    yield step
    for hook in hooks:
        hook.remove()


@contextlib.contextmanager
def cloning_weights(work: Any) -> Iterator[Any]:
    """A control: a plain step beside a clone of every weight."""
    import peers

    kept = [parameter.detach().clone() for parameter in work.model.parameters()]
    yield peers.step_of(work)
    kept.clear()


def small(size: Sequence[int], repeats: int) -> Found:
    """Returns the milliseconds that a measured step adds; runs in its own process."""
    from workloads import mlp, prepared

    work = prepared(lambda: mlp(*size))
    with contextlib.ExitStack() as stack:
        plain, arm = Arm(work, "A/A", stack), Arm(work, "vgaudit", stack)
        pairs = [(plain.seconds(), arm.seconds()) for _ in range(repeats)]
    return {
        "plain_ms": 1e3 * statistics.median(a for a, _ in pairs),
        "added_ms": 1e3 * statistics.median(b - a for a, b in pairs),
    }


def growth(size: Sequence[int], tool: str) -> Found:
    """Returns what a step with a tool adds to the peak of memory of a plain one."""
    import peers
    from workloads import mlp, prepared

    arms = {**peers.ARMS, "clones": (keeping_clones,), "weights": (cloning_weights,)}
    work = prepared(lambda: mlp(*size))
    parameters = list(work.model.parameters())

    def peak(step: Callable[[], None]) -> float:
        for _ in range(WARM_UP):
            seconds(step, parameters)
        found = [trimmed_peak(lambda: seconds(step, parameters)) for _ in range(PEAKS)]
        return statistics.median(found)

    before = peak(peers.step_of(work))
    with arms[tool][0](work) as step:
        return {"bytes": peak(step) - before}


def large(dtype: str, width: int, repeats: int) -> Found:
    """Returns what one net costs that is too large for several models beside it.

    Plain steps come before and after the measured ones, on the same weights.
    """
    import peers
    from workloads import wide

    work = wide(dtype, width, layers=LAYERS, samples=SAMPLES)
    parameters = list(work.model.parameters())
    plain = peers.step_of(work)

    def times(step: Callable[[], None]) -> list[float]:
        for _ in range(WARM_UP):
            seconds(step, parameters)
        return [seconds(step, parameters) for _ in range(repeats)]

    before = times(plain)
    peak = trimmed_peak(lambda: seconds(plain, parameters))
    with contextlib.ExitStack() as stack:
        seconds(lambda: None, parameters)
        opened: list[Any] = []
        arm = peers.vgaudit(work)
        first = trimmed_peak(lambda: opened.append(stack.enter_context(arm)))
        measured = times(opened[0])
        later = trimmed_peak(lambda: seconds(opened[0], parameters))
    base = statistics.median(before + times(plain))
    return {
        "parameters": sum(p.numel() for p in parameters),
        "plain_ms": 1e3 * base,
        "added_ms": 1e3 * (statistics.median(measured) - base),
        "plain_peak": peak,
        "first_peak": first,
        "later_peak": later,
    }


KINDS: dict[str, Callable[..., Found]] = {
    "small": small,
    "growth": growth,
    "large": large,
}


def in_a_process(kind: str, *asked: Any) -> Found:
    command = [sys.executable, __file__, "--one", json.dumps([kind, *asked])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{kind} {asked} failed:\n{done.stderr[-2000:]}")
    line: Found = json.loads(done.stdout.splitlines()[-1])
    return line


def cost(given: argparse.Namespace) -> Iterator[str]:
    """Yields the table of added time."""
    yield "| depth | width | batch | plain, ms | added, ms | added per tensor, µs |"
    yield "|---|---|---|---|---|---|"
    sizes = [(depth, 128, 32) for depth in DEPTHS]
    sizes += [(50, width, 32) for width in WIDTHS]
    sizes += [(50, 256, batch) for batch in BATCHES]
    for depth, width, batch in dict.fromkeys(sizes):
        found = in_a_process("small", (depth, width, batch), given.repeats)
        # Activations, gradients at weights and activations, parameters.
        tensors = depth + (2 * depth + 1) + 2 * (depth + 1)
        yield (
            f"| {depth} | {width} | {batch} | {found['plain_ms']:.1f} "
            f"| {found['added_ms']:.1f} | {1e3 * found['added_ms'] / tensors:.0f} |"
        )


def weights(given: argparse.Namespace) -> Iterator[str]:
    """Yields the table of cost and memory against the number of parameters."""
    yield (
        "| parameters, millions | type | plain, ms | added, ms | added per million, ms "
        "| plain peak, MB | first batch, MB | later batches, MB |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for dtype, width in WEIGHTS:
        found = in_a_process("large", dtype, width, given.repeats)
        millions = found["parameters"] / 1e6
        peaks = (found[f"{when}_peak"] / 1e6 for when in ("plain", "first", "later"))
        yield (
            f"| {millions:.1f} | {dtype} | {found['plain_ms']:.1f} "
            f"| {found['added_ms']:.1f} | {found['added_ms'] / millions:.2f} | "
            + " | ".join(f"{peak:.0f}" for peak in peaks)
            + " |"
        )


def memory(given: argparse.Namespace) -> Iterator[str]:
    """Yields the table of memory added for each layer, whose output takes 16 KB."""
    yield "| | added at 50 layers, MB | at 500, MB | KB a layer |"
    yield "|---|---|---|---|"
    for tool, name in (
        ("A/A", "plain, the control"),
        ("vgaudit", "vgaudit"),
        ("naive hooks", "naive hooks"),
        ("weights", "a clone of each weight, a control"),
        ("clones", "a clone of each output, a control"),
    ):
        runs = [
            [in_a_process("growth", (n, *SMALL), tool)["bytes"] for n in (50, 500)]
            for _ in range(given.processes)
        ]
        few, many = ([run[place] / 1e6 for run in runs] for place in (0, 1))
        each = [(last - first) / 450 / 1e3 for first, last in runs]
        yield f"| {name} | {spread(few)} | {spread(many)} | {spread(each)} |"


def spread(values: Sequence[float]) -> str:
    """Returns the median with the least and the largest value."""
    return f"{statistics.median(values):.1f} [{min(values):.1f}–{max(values):.1f}]"


def start_up(given: argparse.Namespace) -> Iterator[str]:
    """Yields the table of the CPU time of whole commands, children included."""
    yield "| command | CPU, s |"
    yield "|---|---|"
    for name, arguments in COMMANDS.items():
        times = []
        for _ in range(given.processes):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                [sys.executable, *arguments], capture_output=True, check=True
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            user = after.ru_utime - before.ru_utime
            times.append(user + after.ru_stime - before.ru_stime)
        yield f"| `{name}` | {statistics.median(times):.2f} |"


TABLES = {"cost": cost, "weights": weights, "memory": memory, "start": start_up}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=9, help="steps of each kind")
    parser.add_argument(
        "--processes", type=int, default=5, help="for each figure of memory and start"
    )
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    if any(os.environ.get(name) != value for name, value in HEAP.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **HEAP})
    given = parser.parse_args()
    if given.one:
        import torch

        torch.set_num_threads(1)
        kind, *asked = json.loads(given.one)
        print(json.dumps(KINDS[kind](*asked)))
        return
    for name in given.tables:
        for line in TABLES[name](given):
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
