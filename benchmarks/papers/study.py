"""What the papers' studies share: results that outlive a kill, intervals, tables.

A study is a list of runs, most telling first. Each run is a frozen dataclass of plain
values that decide its outcome; each finished one is a line of the results file, and
with --resume it is not repeated. --minutes ends a study early; --minutes 0 makes the
tables from what is finished, without data.

    python -m benchmarks.papers.study docs/results.md [--check]

renews the tables between ``<!-- begin NAME OPTIONS -->`` and ``<!-- end -->`` from
benchmarks/papers/results/NAME.jsonl; with --check it only says which are out of date.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import math
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from benchmarks.page import renew

STORED = Path(__file__).resolve().parent / "results"
UNFINISHED = 3

# Student's t for a 95 % interval, by degrees of freedom.
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)

Outcome = dict[str, Any]
R = TypeVar("R")


class Results(Generic[R]):
    """The results file: one line for each run, found again by what decided it."""

    def __init__(self, path: Path, kind: type[R]) -> None:
        self._path = path
        self._outcomes: dict[R, Outcome] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            # A run that was killed while writing leaves half a line: it is repeated.
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            self._outcomes[kind(**record["run"])] = record["outcome"]

    def __contains__(self, run: R) -> bool:
        return run in self._outcomes

    def __getitem__(self, run: R) -> Outcome:
        return self._outcomes[run]

    def add(self, run: R, outcome: Outcome, **facts: Any) -> None:
        """Writes one line; ``facts`` (seconds, versions) do not tell runs apart."""
        self._outcomes[run] = outcome
        record = {"run": asdict(run), "outcome": outcome, **facts}  # type: ignore[call-overload]
        half = self._path.exists() and not self._path.read_bytes().endswith(b"\n")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(("\n" if half else "") + json.dumps(record) + "\n")


class Study(Generic[R]):
    """Runs what is missing, as long as there is time."""

    def __init__(
        self,
        options: argparse.Namespace,
        kind: type[R],
        train: Callable[[R], Outcome],
    ) -> None:
        self.results = Results(options.out, kind)
        self.missing = 0
        self._train = train
        self._device = options.device
        self._until = time.monotonic() + 60 * options.minutes

    def run(self, runs: Iterable[R]) -> list[R]:
        """Returns those of ``runs`` that are finished, after finishing them in turn."""
        done = []
        for run in runs:
            if run not in self.results:
                if time.monotonic() >= self._until:
                    self.missing += 1
                    continue
                self._finish(run)
            done.append(run)
        return done

    def close(self) -> None:
        """Exits with a code of its own if runs are missing."""
        if self.missing:
            note = f"{self.missing} runs are missing: go on with --resume"
            print(note, file=sys.stderr)
            sys.exit(UNFINISHED)

    def _finish(self, run: R) -> None:
        start = time.perf_counter()
        outcome = self._train(run)
        seconds = round(time.perf_counter() - start, 1)
        self.results.add(
            run,
            outcome,
            seconds=seconds,
            torch=torch.__version__,
            device=self._device,
        )
        shown = {k: v for k, v in outcome.items() if isinstance(v, int | float | str)}
        print(f"{run} {shown} in {seconds:.0f} s", file=sys.stderr, flush=True)


def parser(description: str, name: str) -> argparse.ArgumentParser:
    """Returns the options that every study has."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.papers.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--data-root", type=Path, help="needed while runs are missing")
    made.add_argument("--out", type=Path, default=Path(f"{name}.jsonl"))
    made.add_argument("--resume", action="store_true")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--minutes", type=float, default=math.inf)
    made.add_argument("--device", default="cpu")
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    made.add_argument("--plots", type=Path, help="folder for SVG files")
    made.add_argument("--quick", action="store_true", help="shows that it works")
    return made


def parse(made: argparse.ArgumentParser, **quick: Any) -> argparse.Namespace:
    """Returns the options; ``quick`` are those that --quick overrides."""
    options = made.parse_args()
    if options.quick:
        vars(options).update(quick)
    if options.out.exists() and not options.resume:
        made.error(f"{options.out} exists: pass --resume, or another --out")
    torch.set_num_threads(options.threads)
    return options


def cell(values: Sequence[float], digits: int = 1) -> str:
    """Returns the mean, with the range where there is more than one value."""
    if not values:
        return "–"
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} [{min(values):.{digits}f}–{max(values):.{digits}f}]"


def interval(differences: Sequence[float], digits: int = 2) -> str:
    """Returns the mean with the half-width of its 95 % interval over seeds."""
    if not differences:
        return "–"
    middle = f"{statistics.mean(differences):+.{digits}f}"
    freedom = len(differences) - 1
    if not freedom:
        return middle
    student = STUDENT[min(freedom, len(STUDENT)) - 1]
    half = student * statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{middle} ± {half:.{digits}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def geometric(values: Iterable[float]) -> float:
    """Returns the geometric mean of positive values."""
    return math.exp(statistics.mean(math.log(value) for value in values))


def plot(
    path: Path | None, draw: Callable[[Any], None], size: tuple[float, float]
) -> None:
    """Writes one figure as SVG; does nothing without a folder or matplotlib.

    Args:
        path: the file, or None for no plots.
        draw: gets a matplotlib Figure.
        size: in inches.
    """
    if path is None:
        return
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        print(f"no {path.name}: matplotlib is not installed", file=sys.stderr)
        return
    # The same numbers give the same file.
    with matplotlib.rc_context({"svg.hashsalt": path.name, "font.size": 8}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})


BLOCK = re.compile(r"(<!-- begin (\S+)([^>]*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def renewed(page: str) -> str:
    """Returns ``page`` with its tables made anew from the stored results."""

    def block(match: re.Match[str]) -> str:
        first, name, options, _, last = match.groups()
        return f"{first}\n{tables(name, shlex.split(options)).strip()}\n\n{last}"

    return BLOCK.sub(block, page)


def tables(name: str, options: Sequence[str]) -> str:
    """Returns what a study prints of its stored results."""
    stored = ["--resume", "--minutes", "0", "--out", str(STORED / f"{name}.jsonl")]
    before, printed = sys.argv, io.StringIO()
    sys.argv = [name, *stored, *options]
    try:
        with contextlib.redirect_stdout(printed):
            importlib.import_module(f"benchmarks.papers.{name}").main()
    except SystemExit as end:
        if end.code != UNFINISHED:
            raise
    finally:
        sys.argv = before
    return printed.getvalue()


def main() -> None:
    renew(__doc__, renewed)


if __name__ == "__main__":
    main()
