"""What a measured step costs against a plain one, for vgaudit and its peers.

    python benchmarks/overhead.py --pairs 50 --results overhead.jsonl
    python benchmarks/overhead.py --results overhead.jsonl --table

One process for each pair of a workload and a tool. In it a plain forward and backward
pass and a measured one take turns, each first every other time; the ratio of their CPU
times is taken pair by pair. The table has the median, its 95 % interval by order
statistics, and the memory that the measured steps add to the peak of the plain ones.
The row A/A compares the plain step with itself. A second call goes on where the first
one stopped; tools that cannot be imported are named.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# The default heap gives memory back and takes it again: a ratio of 1.15 in A/A.
HEAP = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    "MALLOC_TOP_PAD_": str(1 << 26),
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
WARM_UP = 3


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % interval of the median, by order statistics.

    The number of values below the median is binomial with p = ½, whatever the
    distribution.
    """
    count, ordered = len(values), sorted(values)
    below, rank = 0.0, 0
    while rank < count // 2:
        below += math.comb(count, rank) / 2**count
        if below > 0.025:
            break
        rank += 1
    rank = max(rank, 1)
    return ordered[rank - 1], ordered[count - rank]


def peak() -> int:
    """Returns the largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def seconds(step: Callable[[], None], parameters: Sequence[Any]) -> float:
    """Returns the CPU time of one step that starts without gradients."""
    for parameter in parameters:
        parameter.grad = None
    start = time.process_time()
    step()
    return time.process_time() - start


def compare(name: str, tool: str, pairs: int) -> dict[str, Any]:
    """Returns what one tool costs on one workload; runs in a process of its own."""
    import peers
    import torch
    from workloads import workload

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    work = workload(name)
    other = copy.copy(work)
    object.__setattr__(other, "model", copy.deepcopy(work.model))
    ours, theirs = list(work.model.parameters()), list(other.model.parameters())
    plain = peers.step_of(work)
    for _ in range(WARM_UP):
        seconds(plain, ours)
        seconds(peers.step_of(other), theirs)
    before, start = peak(), time.process_time()
    with peers.ARMS[tool][0](other) as measured:
        opening = time.process_time() - start
        for _ in range(WARM_UP):
            seconds(measured, theirs)
        added = peak() - before
        gc.collect()
        ratios, base = [], []
        for pair in range(pairs):
            first = pair % 2 == 0
            a = seconds(plain, ours) if first else 0.0
            b = seconds(measured, theirs)
            a = a if first else seconds(plain, ours)
            ratios.append(b / a)
            base.append(a)
    low, high = interval(ratios)
    return {
        "ratio": statistics.median(ratios),
        "low": low,
        "high": high,
        "least": min(ratios),
        "most": max(ratios),
        "pairs": pairs,
        "plain_ms": 1e3 * statistics.median(base),
        "opening_ms": 1e3 * opening,
        "added_mb": added / 1e6,
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
    }


def answer(name: str, tool: str, pairs: int) -> dict[str, Any]:
    """Returns the line of one pair, also where there is nothing to measure."""
    try:
        line = compare(name, tool, pairs)
    except ImportError as error:
        line = {"absent": str(error)}
    except Exception as error:
        line = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    return {"workload": name, "tool": tool, **line, "python": platform.python_version()}


def in_a_process(name: str, tool: str, pairs: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--pairs", str(pairs), "--one", name, tool]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        tail = done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"]
        return {"workload": name, "tool": tool, "failed": tail[0][:200]}
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return line


def table(lines: Sequence[dict[str, Any]], tools: dict[str, Any]) -> str:
    """Returns the Markdown of ``docs/performance.md``."""
    names = list(dict.fromkeys(line["workload"] for line in lines))
    found = {(line["tool"], line["workload"]): line for line in lines}
    rows = [
        "| | " + " | ".join([*names, "delivers"]) + " |",
        "|---" * (len(names) + 2) + "|",
    ]
    for tool in tools:
        cells = [cell(found.get((tool, name))) for name in names]
        rows.append(f"| {tool} | " + " | ".join([*cells, tools[tool][1]]) + " |")
    return "\n".join(rows)


def cell(line: dict[str, Any] | None) -> str:
    if line is None:
        return "–"
    if "ratio" not in line:
        return "absent" if "absent" in line else "fails"
    bounds = f"{line['low']:.2f}–{line['high']:.2f}"
    return f"{line['ratio']:.2f} [{bounds}], {line['added_mb']:+.0f} MB"


def main() -> None:
    if any(os.environ.get(name) != value for name, value in HEAP.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **HEAP})
    import peers
    from workloads import WORKLOADS

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--results", type=Path, default=Path("overhead.jsonl"))
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS))
    parser.add_argument("--tools", nargs="+", default=list(peers.ARMS))
    parser.add_argument("--table", action="store_true", help="print what is there")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(answer(*given.one, given.pairs)))
        return
    text = given.results.read_text() if given.results.exists() else ""
    lines = [json.loads(line) for line in text.splitlines()]
    done = {(line["workload"], line["tool"]) for line in lines}
    for name in [] if given.table else given.workloads:
        for tool in given.tools:
            if (name, tool) in done:
                continue
            line = in_a_process(name, tool, given.pairs)
            lines.append(line)
            with given.results.open("a") as file:
                file.write(json.dumps(line) + "\n")
            shown = cell(line) if "ratio" in line else line
            print(name, tool, shown, file=sys.stderr, flush=True)
    print(table(lines, peers.ARMS))


if __name__ == "__main__":
    main()
