"""RAI on two moons: 31 to 200 layers, with every control beside it.

    python -m benchmarks.papers.rai_moons --resume
    python -m benchmarks.papers.rai_moons --resume --study ablations questions
    python -m benchmarks.papers.rai_moons --resume --study mnist --data-root DIR
    python -m benchmarks.papers.rai_moons --study landscapes --plots DIR
    python -m benchmarks.papers.rai_moons --resume --minutes 0

100 training points with noise 0.1, 1000 fresh points for the verdict, the ordinary
forward pass. Hyper-parameters are chosen on seeds of their own (--study tune). Each
finished run is one line of the results file; with --resume, runs that are in it are
not repeated. --minutes ends it early, with status 3; --minutes 0 shows the tables of
what is there. DIR of --data-root holds MNIST in torchvision's layout (DIR/MNIST/raw).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.papers.rai_study import grid, landscapes, mnist, questions, tables
from benchmarks.papers.rai_study.record import Record, TimeIsUp

UNFINISHED = 3
STUDIES = (
    "tune",
    "grid",
    "fresh",
    "each",
    "ablations",
    "questions",
    "mnist",
    "tune-controls",
    "controls",
    "landscapes",
)


def studies(
    options: argparse.Namespace, record: Record
) -> dict[str, tuple[Callable[[], None], Callable[[Record], str]]]:
    """What each study runs, and what it shows."""
    seeds = options.seeds
    return {
        "tune": (lambda: grid.tune(record), tables.show_tuning),
        "grid": (lambda: grid.run_grid(record, seeds, grid.CHEAP), tables.show),
        "fresh": (lambda: grid.run_fresh(record, seeds), tables.show_fresh),
        "each": (lambda: grid.run_each(record, seeds), tables.show_each),
        "ablations": (lambda: grid.run_ablations(record, seeds), tables.show_ablations),
        "questions": (lambda: questions.run_all(record, seeds), questions.show),
        "mnist": (lambda: mnist.run_all(record, options.data_root), mnist.show),
        "tune-controls": (lambda: grid.tune_controls(record), tables.show_tuning),
        "controls": (lambda: grid.run_grid(record, seeds, grid.COSTLY), tables.show),
    }


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.study == ["landscapes"]:
        landscapes.draw_all(options.plots)
        return
    record = Record(options.out, resume=options.resume, minutes=options.minutes)
    unfinished = False
    for name in options.study:
        work, show = studies(options, record)[name]
        try:
            work()
        except TimeIsUp:
            unfinished = True
        print(show(record), end="\n\n")
    if unfinished:
        sys.exit(UNFINISHED)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", nargs="+", choices=STUDIES, default=["tune", "grid"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--out", type=Path, default=Path("rai_moons.jsonl"))
    parser.add_argument("--plots", type=Path, default=Path("docs/images"))
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.out.exists() and not options.resume and options.study != ["landscapes"]:
        parser.error(f"{options.out} exists: pass --resume, or another --out")
    return options


if __name__ == "__main__":
    main()
