"""Labels the suites, scans them, runs the peers on them, and prints the table.

    python benchmarks/detection/run.py [--part fit] [--resume FILE] [--workers N]

Results go to a file of JSON lines, one a model, as they come; a run that was
stopped goes on from it. Progress is on stderr, the table on stdout. Labels do not
depend on vgaudit: ``--labels`` makes them and the peers' verdicts alone, so that
models can be labelled before limits are frozen and scanned after; ``--rescan`` keeps
them where a rule or the probe has changed, and takes only our own side anew.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from benchmarks.detection import measure, oracle
from benchmarks.detection.build import Spec
from benchmarks.detection.grid import digest, half, load
from benchmarks.detection.observe import Observer
from benchmarks.detection.peers import PEERS
from benchmarks.detection.report import render, written

Row = dict[str, object]
RESULTS = Path(__file__).with_name("results.jsonl")


def labelled(spec: Spec) -> Row:
    """Returns the oracle's and the peers' verdicts on one model, as plain data."""
    torch.set_num_threads(1)
    started = time.process_time()
    labels: dict[str, dict[str, object]] = {}
    flags: dict[str, dict[str, object]] = {name: {} for name in PEERS}
    for kind in measure.OPTIMIZERS:
        observer = Observer()
        labels[kind] = asdict(oracle.label(spec, kind, observer.look))
        located = labels[kind]["label"] in ("vanishing", "dead")
        for name, peer in PEERS.items():
            said = asdict(peer(observer.snapshots))
            flags[name][kind] = _brief(said, located=located)
    return {
        "name": spec.name,
        "spec": digest(spec),
        "half": half(spec.name),
        "oracle": labels,
        "peers": flags,
        "seconds": round(time.process_time() - started, 1),
    }


def _brief(
    said: dict[str, tuple[str, ...] | None], *, located: bool
) -> dict[str, object]:
    """Drops groups that are not flagged; keeps one layer where none is compared."""
    raised = {group: names for group, names in said.items() if names != ()}
    kept = None if located else 1
    return {group: names and names[:kept] for group, names in raised.items()}


def scan(spec: Spec) -> Row:
    """Returns our own side alone."""
    torch.set_num_threads(1)
    return {"ours": measure.ours(spec), "with_loss": measure.disguised(spec)}


def scanned(
    rows: Sequence[Row], specs: Sequence[Spec], file: Path, workers: int
) -> None:
    """Adds our own side to rows of the file, and writes them at the end."""
    stored = {str(row["name"]): row for row in _stored(file)}
    names = {str(row["name"]) for row in rows}
    wanted = [spec for spec in specs if spec.name in names]
    for spec, ours in zip(wanted, _each(scan, wanted, workers), strict=True):
        stored[spec.name].update(ours)
    whole = file.with_suffix(".new")
    whole.write_text("".join(_line(row) + "\n" for row in stored.values()))
    whole.replace(file)


def _each(
    work: Callable[[Spec], Row], specs: Sequence[Spec], workers: int
) -> Iterator[Row]:
    """Yields what is made of each spec, in order, and shows the progress."""
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers) as pool:
        for count, row in enumerate(pool.imap(work, specs), 1):
            yield row
            _progress(count, len(specs), specs[count - 1].name, started)


def collect(specs: Sequence[Spec], file: Path, workers: int) -> list[Row]:
    """Returns the rows of all specs; labels that the file holds are not made anew."""
    known = _known(specs, file)
    # In the order of their digests, so that a part of a run is a fair sample.
    left = sorted((s for s in specs if s.name not in known), key=digest)
    with file.open("a") as out:
        for row in _each(labelled, left, workers):
            out.write(_line(row) + "\n")
            out.flush()
    rows = _known(specs, file) if left else known
    return [rows[spec.name] for spec in specs]


def _known(specs: Sequence[Spec], file: Path) -> dict[str, Row]:
    """Returns the rows of the file that belong to the specs, by name."""
    wanted = {spec.name: digest(spec) for spec in specs}
    rows = {str(row["name"]): row for row in _stored(file)}
    known = {n: row for n, row in rows.items() if wanted.get(n) == row["spec"]}
    for name, row in known.items():
        row["half"] = half(name)
    return known


def _stored(file: Path) -> list[Row]:
    if not file.exists():
        return []
    rows = []
    for line in file.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:  # the line at which a run was stopped
            continue
    return rows


def _line(row: object) -> str:
    def short(value: object) -> object:
        if isinstance(value, float):
            return float(f"{value:.4g}")
        if isinstance(value, dict):
            return {k: short(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [short(v) for v in value]
        return value

    return json.dumps(short(row), ensure_ascii=False, separators=(",", ":"))


def _progress(count: int, total: int, name: str, started: float) -> None:
    seconds = time.monotonic() - started
    left = seconds / count * (total - count)
    sys.stderr.write(f"{count}/{total} {seconds:.0f} s, {left:.0f} s left: {name}\n")


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--part", choices=("fit", "seen", "report"), help="only these models"
    )
    parser.add_argument("--limit", type=int, help="only so many models, evenly spread")
    parser.add_argument("--stored", action="store_true", help="only what is labelled")
    parser.add_argument("--resume", type=Path, default=RESULTS, help="results file")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--labels", action="store_true", help="no scan, no table")
    parser.add_argument("--page", type=Path, help="its tables are made anew")
    parser.add_argument("--rescan", action="store_true", help="labels are kept")
    options = parser.parse_args()
    specs = [s for s in load() if options.part in (None, half(s.name))]
    if options.limit:
        specs = specs[:: max(1, len(specs) // options.limit)][: options.limit]
    if options.stored:
        known = _known(specs, options.resume)
        specs = [spec for spec in specs if spec.name in known]
    started = time.monotonic()
    rows = collect(specs, options.resume, options.workers)
    if not options.labels:
        missing = [r for r in rows if options.rescan or "ours" not in r]
        scanned(missing, specs, options.resume, options.workers)
        tables = render(collect(specs, options.resume, options.workers))
        sys.stdout.write(tables)
        if options.page:
            options.page.write_text(written(options.page.read_text(), tables))
    sys.stderr.write(f"{time.monotonic() - started:.0f} s in all\n")


if __name__ == "__main__":
    main()
