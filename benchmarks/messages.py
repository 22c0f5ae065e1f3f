"""What a scan measures in each block of a transformer, and what crosses between ranks.

    python benchmarks/messages.py

For decoders and sigmoid networks of growing depth: the tensors that one batch observes
(activations, gradients, parameters) and the bytes in which its figures, and once for
each rank the description of its graph, go to the other ranks. A Markdown table on
standard output, with the growth for each block.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from billion import Decoder
from torch import Tensor, nn

from vgaudit.data.batch import Batch
from vgaudit.distributed.wire import packed
from vgaudit.job import ProbeOptions
from vgaudit.probe import spread
from vgaudit.probe.passes import Scan, measure_all

DEPTHS = (2, 6)
Build = Callable[[int], tuple[nn.Module, Tensor]]


def decoder(depth: int) -> tuple[nn.Module, Tensor]:
    """Returns a small decoder with so many blocks, and a batch."""
    return Decoder(32, depth, 64, 4), torch.randint(0, 32_000, (2, 8))


def sigmoid(depth: int) -> tuple[nn.Module, Tensor]:
    """Returns a sigmoid network as ``scale.py`` times it, and a batch."""
    layers = [m for _ in range(depth) for m in (nn.Linear(8, 8), nn.Sigmoid())]
    return nn.Sequential(*layers, nn.Linear(8, 8)), torch.randn(2, 8)


def measured(build: Build, depth: int) -> dict[str, int]:
    """Returns tensors and bytes of a network with so many blocks."""
    torch.manual_seed(0)
    model, given = build(depth)
    batches = [Batch(args=(given,), size=2)] * 2
    scan = Scan(model, batches, None, ProbeOptions(), lambda _phase: None)
    done = measure_all(scan, None).batches
    last = done.measured[-1]
    names = {id(p): name for name, p in done.weights.parameters.items()}

    def bytes_of(count: int) -> int:
        graphs = [done.blueprint] * count
        own = spread.share(range(count), done.measured[-count:], graphs, names)
        return int(packed(spread._RECORDS.plain(own)).numel())

    gradients = len(last.at) + len(last.through)
    one, two = bytes_of(1), bytes_of(2)
    return {
        "activations": len(last.activations),
        "gradients": gradients,
        "parameters": len(last.parameters),
        "tensors": len(last.activations) + gradients + len(last.parameters),
        "bytes of a batch": two - one,
        "bytes of the graph": 2 * one - two,
    }


def main() -> None:
    for place, build in enumerate((decoder, sigmoid)):
        found = {depth: measured(build, depth) for depth in DEPTHS}
        few, many = (found[depth] for depth in DEPTHS)
        if not place:
            print("| | " + " | ".join(few) + " |")
            print("|" + "---|" * (1 + len(few)))
        name = build.__name__
        for depth, row in found.items():
            cells = " | ".join(map(str, row.values()))
            print(f"| {name}, {depth} blocks | {cells} |")
        each = [(many[key] - few[key]) / (DEPTHS[1] - DEPTHS[0]) for key in few]
        print(f"| {name}, each | " + " | ".join(f"{value:g}" for value in each) + " |")


if __name__ == "__main__":
    main()
