"""Runs ``fix`` on the sick models of the detection suite, and prints what came of it.

    python -m benchmarks.repairs.run [--half develop|report|second|unseen] [--minutes N]

One line of JSON a model, as they come; a run that was stopped goes on from them. The
order is that of a hash, so what is finished is a random sample of each half. The
method was settled on the develop half, and later changed with models of the report
half in view; no choice of a repair has looked at the suite's second draw, and on the
``unseen`` part of it no limit of the scan was fitted either. Every training has as many
steps on every machine: time plays no part.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
import time
import zlib
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.detection.run import RESULTS as LABELS
from benchmarks.repairs.measure import SICK, Row, Sick, eligible, repaired
from benchmarks.repairs.table import HALVES, RESULTS, render, stored

KINDS = ("sgd", "adam")


def sick() -> list[Sick]:
    """Returns the models that are labelled as not learning, in a random order."""
    specs = eligible()
    found = []
    for line in LABELS.read_text().splitlines():
        row = json.loads(line)
        kinds = tuple(k for k in KINDS if row["oracle"][k]["label"] in SICK)
        if kinds and row["name"] in specs:
            found.append(Sick(spec=specs[row["name"]], optimizers=kinds))
    return sorted(found, key=lambda one: zlib.crc32(one.spec.name.encode()))


def collect(wanted: list[Sick], file: Path, minutes: float, workers: int) -> None:
    """Repairs what the file does not hold, as long as there is time."""
    known = {row["name"] for row in stored(file)}
    left = [one for one in wanted if one.spec.name not in known]
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    # A pool hands out one model after the other; leaving the block ends its processes.
    with context.Pool(workers) as pool:
        for number, row in enumerate(pool.imap_unordered(repaired, left), start=1):
            add(file, row)
            spent = time.monotonic() - began
            sys.stderr.write(
                f"{number}/{len(left)} {spent:.0f} s, "
                f"{spent / number * (len(left) - number):.0f} s left: {row['name']} "
                f"{row['status']} {row['kept']} {row['final']}\n"
            )
            sys.stderr.flush()
            if spent >= 60 * minutes:
                sys.stderr.write(f"{len(left) - number} models are missing\n")
                return


def add(file: Path, row: Row) -> None:
    """Adds a row to a file; one that is half written there is left behind."""
    file.parent.mkdir(parents=True, exist_ok=True)
    broken = file.exists() and not file.read_bytes().endswith(b"\n")
    line = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    with file.open("a") as out:
        # What was killed while it wrote leaves half a line.
        out.write(("\n" if broken else "") + line + "\n")


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=HALVES)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="names of models")
    options = parser.parse_args()
    wanted = [one for one in sick() if options.half in (None, one.half)]
    if options.only:
        wanted = [one for one in wanted if one.spec.name in options.only]
    collect(wanted, options.out, options.minutes, options.workers)
    sys.stdout.write(render(stored(options.out)))


if __name__ == "__main__":
    main()
