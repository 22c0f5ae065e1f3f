"""Runs as lines of a file: what is done is not done again."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """Everything that decides the outcome of one training."""

    study: str
    method: str
    activation: str
    depth: int
    width: int
    seed: int
    detail: str = ""


class TimeIsUp(Exception):
    """The minutes given are over; what is done is in the file."""


class Record:
    """A file of JSON lines, one for each finished run."""

    def __init__(
        self, path: Path, *, resume: bool, minutes: float | None = None
    ) -> None:
        self._path = path
        self._end = None if minutes is None else time.monotonic() + 60 * minutes
        self.done: dict[Run, dict[str, float]] = {}
        if resume and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    # Half a line of a run that was killed while writing.
                    continue
                self.done[Run(**row["run"])] = row["figures"]
        elif path.exists():
            path.unlink()

    def run(self, run: Run, work: Callable[[], dict[str, float]]) -> None:
        """Does the work unless it is done, and writes it down."""
        if run in self.done:
            return
        if self._end is not None and time.monotonic() >= self._end:
            raise TimeIsUp
        figures = {k: float(f"{v:.6g}") for k, v in work().items()}
        self.done[run] = figures
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"run": asdict(run), "figures": figures}) + "\n")
        print(*asdict(run).values(), figures, file=sys.stderr, flush=True)

    def tuned_first(self) -> None:
        """Ends a study whose settings are not known yet."""
        print("run --study tune first: the grid takes its ridge there", file=sys.stderr)
        raise TimeIsUp

    def rows(self, study: str, **wanted: object) -> list[dict[str, float]]:
        """The figures of the runs of a study that have these attributes."""
        return [
            figures
            for run, figures in self.done.items()
            if run.study == study
            and all(getattr(run, key) == value for key, value in wanted.items())
        ]


def spread(values: Iterable[float], *, places: int = 1) -> str:
    """``mean [min–max]``, with the number of seeds where it is not ten."""
    found = list(values)
    if not found:
        return "–"
    mean = statistics.fmean(found)
    text = f"{mean:.{places}f} [{min(found):.{places}f}–{max(found):.{places}f}]"
    return text if len(found) == 10 else f"{text} ({len(found)})"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
