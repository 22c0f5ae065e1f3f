"""Labels the suite, scans it, runs the peers on it, and prints the table.

    python benchmarks/detection/run.py [--limit N] [--resume FILE] [--workers N]

Results go to a file of JSON lines, one a model, as they come; a run that was
stopped goes on from it. Progress is on stderr, the table on stdout. Labels do not
depend on vgaudit: where a rule or the probe has changed, ``--rescan`` keeps them
and takes only our own side anew.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from benchmarks.detection import measure, oracle
from benchmarks.detection.build import Spec
from benchmarks.detection.grid import half, load
from benchmarks.detection.observe import Observer
from benchmarks.detection.peers import PEERS
from benchmarks.detection.report import render

RESULTS = Path(__file__).with_name("results.jsonl")


def examine(spec: Spec) -> dict[str, object]:
    """Returns everything about one model, as plain data."""
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
        "spec": _digest(spec),
        "half": half(spec.name),
        "oracle": labels,
        **scan(spec),
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


def scan(spec: Spec) -> dict[str, object]:
    """Returns our own side alone."""
    torch.set_num_threads(1)
    return {"ours": measure.ours(spec), "with_loss": measure.disguised(spec)}


def rescan(specs: Sequence[Spec], file: Path, workers: int) -> None:
    """Replaces our own side in the results of the specs, and keeps the labels."""
    rows = {str(row["name"]): row for row in _stored(file)}
    known = [spec for spec in specs if spec.name in rows]
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers) as pool:
        for count, (spec, ours) in enumerate(
            zip(known, pool.imap(scan, known), strict=True), 1
        ):
            rows[spec.name].update(ours)
            _progress(count, len(known), spec.name, started)
    whole = file.with_suffix(".new")
    whole.write_text("".join(_line(row) + "\n" for row in rows.values()))
    whole.replace(file)


def _digest(spec: Spec) -> int:
    return zlib.crc32(json.dumps(asdict(spec), sort_keys=True).encode())


def collect(specs: Sequence[Spec], file: Path, workers: int) -> list[dict[str, object]]:
    """Returns the results of all specs; those that the file holds are not made anew."""
    wanted = {spec.name: _digest(spec) for spec in specs}
    rows = [row for row in _stored(file) if wanted.get(str(row["name"])) == row["spec"]]
    for row in rows:
        row["half"] = half(str(row["name"]))
    done = {row["name"] for row in rows}
    # In the order of their digests, so that a part of a run is a fair sample.
    left = sorted((s for s in specs if s.name not in done), key=_digest)
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with file.open("a") as out, context.Pool(workers) as pool:
        for count, row in enumerate(pool.imap_unordered(examine, left), 1):
            out.write(_line(row) + "\n")
            out.flush()
            rows.append(row)
            _progress(count, len(left), str(row["name"]), started)
    order = {name: i for i, name in enumerate(wanted)}
    return sorted(rows, key=lambda row: order[str(row["name"])])


def _stored(file: Path) -> list[dict[str, object]]:
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
    parser.add_argument("--limit", type=int, help="only so many models, evenly spread")
    parser.add_argument("--resume", type=Path, default=RESULTS, help="results file")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rescan", action="store_true", help="labels are kept")
    options = parser.parse_args()
    specs = load()
    if options.limit:
        specs = specs[:: max(1, len(specs) // options.limit)][: options.limit]
    started = time.monotonic()
    if options.rescan:
        rescan(specs, options.resume, options.workers)
    rows = collect(specs, options.resume, options.workers)
    sys.stdout.write(render(rows))
    sys.stderr.write(f"{time.monotonic() - started:.0f} s in all\n")


if __name__ == "__main__":
    main()
