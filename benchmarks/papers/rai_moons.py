"""RAI on two moons: 31 to 200 layers, with every control beside it.

    python benchmarks/papers/rai_moons.py --seeds 10 --resume
    python benchmarks/papers/rai_moons.py --study ablations questions --resume
    python benchmarks/papers/rai_moons.py --study mnist --data-root DIR --resume
    python benchmarks/papers/rai_moons.py --study landscapes --figures DIR
    python benchmarks/papers/rai_moons.py --tables

100 training points with noise 0.1, 1000 fresh points for the verdict, the ordinary
forward pass. Hyper-parameters are chosen on seeds of their own (--study tune). Each
finished run is one line of the results file; with --resume, runs that are in it are
not repeated. DIR of --data-root holds MNIST in torchvision's layout (DIR/MNIST/raw).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from rai_study import grid, landscapes, mnist, questions
from rai_study.record import Record, TimeIsUp

STUDIES = (
    "tune",
    "grid",
    "ablations",
    "questions",
    "landscapes",
    "mnist",
    "tune-controls",
    "controls",
)


def main() -> int:
    options = parse()
    torch.set_num_threads(1)
    record = Record(
        options.results,
        resume=options.resume or options.tables,
        minutes=options.minutes,
    )
    if not options.tables:
        try:
            for study in options.study:
                work(options, record)[study]()
        except TimeIsUp:
            return 75
    print("\n\n".join([grid.show(record), questions.show(record), mnist.show(record)]))
    return 0


def work(options: argparse.Namespace, record: Record) -> dict[str, Callable[[], None]]:
    return {
        "tune": lambda: grid.tune(record),
        "tune-controls": lambda: grid.tune_controls(record),
        "questions": lambda: questions.run_all(record, options.seeds),
        "landscapes": lambda: landscapes.draw_all(options.figures),
        "mnist": lambda: mnist.run_all(record, options.data_root),
        "grid": lambda: grid.run_grid(record, options.seeds, grid.CHEAP),
        "ablations": lambda: grid.run_ablations(record, options.seeds),
        "controls": lambda: grid.run_grid(record, options.seeds, grid.COSTLY),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", nargs="+", choices=STUDIES, default=["tune", "grid"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--minutes", type=float, help="then stop with status 75")
    parser.add_argument("--tables", action="store_true", help="only show what is there")
    parser.add_argument(
        "--results", type=Path, default=Path(__file__).with_name("rai_moons.jsonl")
    )
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"))
    parser.add_argument("--data-root", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
