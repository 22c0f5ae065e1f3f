"""How the cost of measuring grows: with depth, width and batch, and at the start.

    python benchmarks/scale.py --repeats 9

For sigmoid networks of growing depth, width and batch: the CPU time that a measured
step adds to a plain one for each observed tensor (a call of an activation, a
parameter, a gradient), by the median of differences taken pair by pair. Then the
memory that a measured step adds to the peak of a plain one for each layer: the peak is
set back and the heap trimmed before each, beside a control that keeps a clone of every
output. Last, the CPU time of whole commands
beside that of ``import torch``. Markdown tables on standard output.
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from overhead import HEAP, Arm

DEPTHS, WIDTHS, BATCHES = (50, 100, 200, 500), (128, 256, 1024), (8, 32, 512)
SMALL = (64, 64)
FIXTURES = Path(__file__).parents[1] / "fixtures"
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "vgaudit --help": ["-m", "vgaudit", "--help"],
    "vgaudit scan": [
        *("-m", "vgaudit", "scan", str(FIXTURES / "deep_sigmoid_mlp.safetensors")),
        *("--arch", f"{FIXTURES / 'models.py'}:deep_sigmoid_mlp", "--exit-zero"),
    ],
}


@contextlib.contextmanager
def keeping_clones(work: Any) -> Iterator[Any]:
    """The control: a step after which a clone of every output is still there."""
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


def one(size: Sequence[int], tool: str, repeats: int) -> dict[str, float]:
    """Returns added milliseconds and bytes of one net; runs in its own process."""
    import peers
    import torch
    from workloads import mlp, prepared

    torch.set_num_threads(1)
    peers.ARMS["clones"] = keeping_clones, "the control"
    work = prepared(lambda: mlp(*size))
    with contextlib.ExitStack() as stack:
        plain, arm = Arm(work, "A/A", stack), Arm(work, tool, stack)
        pairs = [(plain.seconds(), arm.seconds()) for _ in range(repeats)]
    return {
        "plain_ms": 1e3 * statistics.median(a for a, _ in pairs),
        "added_ms": 1e3 * statistics.median(b - a for a, b in pairs),
        "bytes": arm.added,
        "weights": sum(4 * p.numel() for p in work.model.parameters()),
    }


def in_a_process(size: Sequence[int], tool: str, repeats: int) -> dict[str, float]:
    asked = json.dumps([list(size), tool, repeats])
    command = [sys.executable, __file__, "--one", asked]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    line: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return line


def cost(repeats: int) -> Iterator[str]:
    """Yields the table of added time."""
    yield "| depth | width | batch | plain, ms | added, ms | added per tensor, µs |"
    yield "|---|---|---|---|---|---|"
    sizes = [(depth, 128, 32) for depth in DEPTHS]
    sizes += [(50, width, 32) for width in WIDTHS]
    sizes += [(50, 256, batch) for batch in BATCHES]
    for depth, width, batch in sizes:
        found = in_a_process((depth, width, batch), "vgaudit", repeats)
        # Activations, gradients at weights and activations, parameters.
        tensors = depth + (2 * depth + 1) + 2 * (depth + 1)
        yield (
            f"| {depth} | {width} | {batch} | {found['plain_ms']:.1f} "
            f"| {found['added_ms']:.1f} | {1e3 * found['added_ms'] / tensors:.0f} |"
        )


def memory() -> Iterator[str]:
    """Yields the table of memory added for each layer, whose output takes 16 KB.

    The copy of the weights that stands in for the user's is named by itself: it
    grows with the weights, not with what is measured.
    """
    yield "| | added at 50 layers, MB | at 500, MB | KB a layer | without the copy |"
    yield "|---|---|---|---|---|"
    for tool, name in (
        ("A/A", "plain, the control"),
        ("vgaudit", "vgaudit"),
        ("naive hooks", "naive hooks"),
        ("clones", "a clone of each output, the control"),
    ):
        few, many = (in_a_process((n, *SMALL), tool, 1) for n in (50, 500))
        each = (many["bytes"] - few["bytes"]) / 450 / 1e3
        copied = (many["weights"] - few["weights"]) / 450 / 1e3
        rest = each - copied if tool == "vgaudit" else each
        sizes = f"{few['bytes'] / 1e6:.1f} | {many['bytes'] / 1e6:.1f}"
        yield f"| {name} | {sizes} | {each:.1f} | {rest:.1f} |"


def start_up() -> Iterator[str]:
    """Yields the table of the CPU time of whole commands, children included."""
    yield "| command | CPU, s |"
    yield "|---|---|"
    for name, arguments in COMMANDS.items():
        times = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                [sys.executable, *arguments], capture_output=True, check=True
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            user = after.ru_utime - before.ru_utime
            times.append(user + after.ru_stime - before.ru_stime)
        yield f"| `{name}` | {statistics.median(times):.2f} |"


TABLES = {"memory": memory, "start": start_up}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--tables", nargs="+", default=["cost", *TABLES])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    if any(os.environ.get(name) != value for name, value in HEAP.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **HEAP})
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(*json.loads(given.one))))
        return
    for name in given.tables:
        lines = cost(given.repeats) if name == "cost" else TABLES[name]()
        for line in lines:
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
