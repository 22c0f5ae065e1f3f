"""How often ``fix`` treats a model for nothing: models that the suite calls healthy.

    python -m benchmarks.repairs.controls [--half develop|second|unseen] [--models N]

One line of JSON a model and optimizer that the suite says it learns under, and for
which no finding fails: does the trial say so too? In a random order, always the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from benchmarks.detection.build import Spec
from benchmarks.detection.run import RESULTS as LABELS
from benchmarks.repairs.measure import Row, Sick, asked, eligible
from benchmarks.repairs.run import KINDS, add
from benchmarks.repairs.table import CONTROLS, HALVES, stored
from vgaudit.findings import Optimizer
from vgaudit.fixing import Fixing
from vgaudit.repair import fix as repair
from vgaudit.repair.ledger import Ledger
from vgaudit.training.campaign import Surroundings


@dataclass(frozen=True, kw_only=True)
class Healthy:
    """A model of the suite that learns under an optimizer.

    Attributes:
        spec: the model. optimizer: under which the suite says so.
        explained: what the suite's own training reached. rate: at which rate.
    """

    spec: Spec
    optimizer: Optimizer
    explained: float
    rate: float

    @property
    def half(self) -> str:
        """As of a sick model."""
        return Sick(spec=self.spec, optimizers=(self.optimizer,)).half


def healthy() -> list[Healthy]:
    """Returns the models that learn and that no finding fails, in a random order."""
    specs = eligible()
    found = []
    for line in LABELS.read_text().splitlines():
        row = json.loads(line)
        for kind in KINDS:
            said = row["oracle"][kind]
            fails = any(
                level == "error" for _, level, _ in row["ours"]["findings"][kind]
            )
            if said["label"] == "healthy" and not fails and row["name"] in specs:
                found.append(
                    Healthy(
                        spec=specs[row["name"]],
                        optimizer=kind,
                        explained=said["explained"],
                        rate=said["rate"],
                    )
                )
    return sorted(found, key=_drawn)


def _drawn(one: Healthy) -> int:
    return zlib.crc32(f"healthy:{one.optimizer}:{one.spec.name}".encode())


def tried(one: Healthy) -> Row:
    """Returns what ``fix`` says of a healthy model, as plain data."""
    torch.set_num_threads(1)
    began = time.thread_time()
    wanted = asked(one.spec, one.optimizer)
    done = repair.tried(wanted, Ledger(None), Surroundings())
    return {
        "name": one.spec.name,
        "half": one.half,
        "optimizer": one.optimizer,
        "explained": one.explained,
        "rate": one.rate,
        "findings": list(done.findings),
        "status": done.status if done.reason else "treated",
        "reason": done.reason,
        "trial": _trainings(done),
        "seconds": round(time.thread_time() - began, 1),
    }


def _trainings(done: Fixing) -> list[Row]:
    if done.trial is None:
        return []
    return [
        {"arm": attempt.arm, "score": attempt.score, "explained": share}
        for attempt, share in zip(
            done.trial.attempts, done.trial.explained, strict=True
        )
    ]


def collect(wanted: Sequence[Healthy], file: Path) -> None:
    """Tries what the file does not hold."""
    known = {(row["name"], row["optimizer"]) for row in stored(file)}
    for number, one in enumerate(wanted, start=1):
        if (one.spec.name, one.optimizer) not in known:
            row = tried(one)
            add(file, row)
            sys.stderr.write(
                f"{number}/{len(wanted)}: {row['name']} {row['optimizer']} "
                f"{row['status']} {row['seconds']} s\n"
            )
            sys.stderr.flush()


def main() -> None:
    """Runs the controls."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=HALVES, default="develop")
    parser.add_argument("--models", type=int, default=40)
    parser.add_argument("--out", type=Path, default=CONTROLS)
    options = parser.parse_args()
    wanted = [one for one in healthy() if one.half == options.half]
    collect(wanted[: options.models], options.out)


if __name__ == "__main__":
    main()
