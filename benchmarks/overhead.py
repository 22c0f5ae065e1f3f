"""What a measured step costs against a plain one, for vgaudit and its peers.

    python benchmarks/overhead.py --estimate
    python benchmarks/overhead.py --pairs 50 --peer-pairs 8 --results overhead.jsonl
    python benchmarks/overhead.py --results overhead.jsonl --write docs/performance.md

A process for each workload runs rounds of plain steps (forward and backward) and
measured ones: by vgaudit, by naive hooks, and by nothing (A/A, the control), each on a
model of its own, each in turn the first of a round. Each further tool has a process of
its own with the plain step. The ratio of CPU times is taken round by round; the table
has the median, its 95 % interval by order statistics, and the memory that a measured
step adds to the peak of a plain one. A second call goes on where the first one stopped,
and asks for no more than ``--only`` names; tools that cannot be imported are named.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import ctypes
import gc
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

# The default heap gives memory back and takes it again: a ratio of 1.15 in A/A.
HEAP = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    "MALLOC_TOP_PAD_": str(1 << 26),
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
WARM_UP = 3
CORE = ("A/A", "vgaudit", "naive hooks")
# The most that a default scan may cost, and what it should cost.
LIMITS = {
    "resnet18": (1.12, 1.05),
    "vgg": (1.10, 1.05),
    "mlp50": (1.18, 1.12),
    "gpt6": (1.07, 1.04),
    "lstm2": (1.06, 1.04),
}
# About what a plain step takes on one core, to say how long a run will take.
STEPS_MS = {"resnet18": 1000, "vgg": 600, "mlp50": 140, "gpt6": 450, "lstm2": 140}
BEGIN, END = "<!-- overhead: begin -->", "<!-- overhead: end -->"


class Job(NamedTuple):
    """One process: a workload, the tools that take turns, and rounds."""

    workload: str
    tools: list[str]
    pairs: int


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


def trimmed_peak(step: Callable[[], object]) -> int:
    """Returns the largest resident memory during ``step``, in bytes.

    What malloc keeps is given back before, and the kernel's mark is set back.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    step()
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def seconds(step: Callable[[], None], parameters: Sequence[Any]) -> float:
    """Returns the CPU time of one step that starts without gradients."""
    for parameter in parameters:
        parameter.grad = None
    start = time.process_time()
    step()
    return time.process_time() - start


class Arm:
    """One tool on a model of its own, opened in ``stack``."""

    def __init__(self, work: Any, tool: str, stack: contextlib.ExitStack) -> None:
        import peers

        own = copy.copy(work)
        object.__setattr__(own, "model", copy.deepcopy(work.model))
        self._parameters = list(own.model.parameters())
        self._step = peers.step_of(own)
        for _ in range(WARM_UP):
            self.seconds()
        before = trimmed_peak(self.seconds)
        start = time.process_time()
        self._step = stack.enter_context(peers.ARMS[tool][0](own))
        self.opening = time.process_time() - start
        for _ in range(WARM_UP):
            self.seconds()
        self.added = trimmed_peak(self.seconds) - before
        self.ratios: list[float] = []

    def seconds(self) -> float:
        """Returns the CPU time of one step."""
        return seconds(self._step, self._parameters)


def compare(name: str, tools: Sequence[str], pairs: int) -> list[dict[str, Any]]:
    """Returns what tools cost on one workload; runs in a process of its own."""
    import torch
    from workloads import workload

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    work = workload(name)
    base = []
    with contextlib.ExitStack() as stack:
        arms = {tool: Arm(work, tool, stack) for tool in tools}
        plain = Arm(work, "A/A", stack)
        everyone = [plain, *arms.values()]
        gc.collect()
        for turn in range(pairs):
            first = turn % len(everyone)
            taken = {arm: arm.seconds() for arm in everyone[first:] + everyone[:first]}
            base.append(taken[plain])
            for arm in arms.values():
                arm.ratios.append(taken[arm] / taken[plain])
    shared = {
        "pairs": pairs,
        "plain_ms": 1e3 * statistics.median(base),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
    }
    return [{"tool": tool, **figures(arm), **shared} for tool, arm in arms.items()]


def figures(arm: Arm) -> dict[str, float]:
    """Returns what one arm showed."""
    low, high = interval(arm.ratios)
    return {
        "ratio": statistics.median(arm.ratios),
        "low": low,
        "high": high,
        "least": min(arm.ratios),
        "most": max(arm.ratios),
        "opening_ms": 1e3 * arm.opening,
        "added_mb": arm.added / 1e6,
    }


def answer(name: str, tools: Sequence[str], pairs: int) -> list[dict[str, Any]]:
    """Returns the lines of one process, also where there is nothing to measure."""
    try:
        lines = compare(name, tools, pairs)
    except ImportError as error:
        lines = [{"tool": tool, "absent": str(error)} for tool in tools]
    except Exception as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        lines = [{"tool": tool, "failed": said} for tool in tools]
    common = {"workload": name, "python": platform.python_version()}
    return [{**common, **line} for line in lines]


def in_a_process(name: str, tools: Sequence[str], pairs: int) -> list[dict[str, Any]]:
    asked = json.dumps([name, list(tools), pairs])
    command = [sys.executable, __file__, "--one", asked]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        tail = done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"]
        return [{"workload": name, "tool": t, "failed": tail[0][:200]} for t in tools]
    lines: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return lines


def missing(given: argparse.Namespace, done: set[tuple[str, str]]) -> Iterator[Job]:
    """Yields the processes that are still to be run, the tools of ``CORE`` first."""
    for name in given.workloads:
        core = [t for t in CORE if t in given.only and (name, t) not in done]
        if core:
            yield Job(name, core, given.pairs)
    for tool in given.only:
        for name in given.workloads:
            if tool not in CORE and (name, tool) not in done:
                yield Job(name, [tool], given.peer_pairs)


def estimate(jobs: Sequence[Job]) -> float:
    """Returns about how many minutes the jobs take on an idle machine.

    A process starts in 5 s; a step takes 1.1 plain ones, of other tools 1.6.
    """
    total = 0.0
    for job in jobs:
        each = 1.1 if job.tools[0] in CORE else 1.6
        steps = (job.pairs + 2 * WARM_UP + 4) * (1 + each * len(job.tools))
        total += 5 + steps * STEPS_MS[job.workload] / 1e3
    return total / 60


def table(lines: Sequence[dict[str, Any]], tools: dict[str, Any]) -> str:
    """Returns the Markdown of ``docs/performance.md``."""
    names = [name for name in LIMITS if any(x["workload"] == name for x in lines)]
    found = {(line["tool"], line["workload"]): line for line in lines}
    rows = [
        "| | " + " | ".join([*names, "delivers"]) + " |",
        "|---" * (len(names) + 2) + "|",
    ]
    for tool in tools:
        cells = [cell(found.get((tool, name))) for name in names]
        rows.append(f"| {tool} | " + " | ".join([*cells, tools[tool][1]]) + " |")
    limits = [f"{LIMITS[name][0]:.2f}, {LIMITS[name][1]:.2f}" for name in names]
    rows.append("| limit, goal | " + " | ".join([*limits, "for vgaudit"]) + " |")
    met = [verdict(found.get(("vgaudit", name)), LIMITS[name]) for name in names]
    rows.append("| met | " + " | ".join([*met, "upper end ≤ limit + 0.03"]) + " |")
    measured = [line for line in lines if "ratio" in line]
    if measured:
        load = statistics.median(line["load"] for line in measured)
        core = [line["pairs"] for line in measured if line["tool"] in CORE]
        others = [line["pairs"] for line in measured if line["tool"] not in CORE]
        rounds = f"{min(core or others)} rounds"
        if others and core:
            rounds += f" for {', '.join(CORE)}; {min(others)} for the others"
        plain = ", ".join(
            f"{name} {found['vgaudit', name]['plain_ms']:.0f}"
            for name in names
            if "plain_ms" in found.get(("vgaudit", name), {})
        )
        rows += [
            "",
            f"{rounds}. torch {measured[0]['torch']}, load {load:.1f} (median). "
            f"The plain step takes, in ms: {plain}.",
        ]
    return "\n".join(rows)


def cell(line: dict[str, Any] | None) -> str:
    if line is None:
        return "–"
    if "ratio" not in line:
        return "absent" if "absent" in line else "fails"
    bounds = f"{line['low']:.2f}–{line['high']:.2f}"
    return f"{line['ratio']:.2f} [{bounds}], {line['added_mb']:+.0f} MB"


def verdict(line: dict[str, Any] | None, limits: tuple[float, float]) -> str:
    if line is None or "high" not in line:
        return "–"
    limit, goal = limits
    if line["high"] <= goal + 0.03:
        return "the goal"
    return "the limit" if line["high"] <= limit + 0.03 else "no"


def write(path: Path, text: str) -> None:
    """Puts the table between its marks in a document."""
    before, rest = path.read_text().split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")


def parsed(tools: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--results", type=Path, default=Path("overhead.jsonl"))
    parser.add_argument(
        "--pairs", type=int, default=50, help="rounds of the first four"
    )
    parser.add_argument("--peer-pairs", type=int, default=8, help="of the other tools")
    parser.add_argument("--workloads", nargs="+", default=list(LIMITS))
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=list(tools),
        help="names of tools with commas: vgaudit,A/A",
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--estimate", action="store_true", help="say how long it takes")
    parser.add_argument("--table", action="store_true", help="print what is there")
    parser.add_argument("--write", type=Path, help="put the table into a document")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    if any(os.environ.get(name) != value for name, value in HEAP.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **HEAP})
    import peers

    given = parsed(list(peers.ARMS))
    if given.one:
        print(json.dumps(answer(*json.loads(given.one))))
        return
    text = given.results.read_text() if given.results.exists() else ""
    lines = [json.loads(line) for line in text.splitlines()]
    todo = list(missing(given, {(line["workload"], line["tool"]) for line in lines}))
    if given.estimate:
        minutes = estimate(todo) / given.jobs
        print(f"{len(todo)} processes, about {minutes:.0f} minutes when idle")
        return
    if not given.table and given.write is None:
        with ThreadPoolExecutor(given.jobs) as pool:
            for found in pool.map(lambda job: in_a_process(*job), todo):
                lines += found
                with given.results.open("a") as file:
                    file.writelines(json.dumps(line) + "\n" for line in found)
                for line in found:
                    shown = cell(line) if "ratio" in line else line
                    told = (line["workload"], line["tool"], shown)
                    print(*told, file=sys.stderr, flush=True)
    done = table(lines, peers.ARMS)
    if given.write is not None:
        write(given.write, done)
    print(done)


if __name__ == "__main__":
    main()
