"""Tries scan, trace and conversion on every model of three libraries.

    python benchmarks/coverage.py --results coverage.jsonl
    python benchmarks/coverage.py --results coverage.jsonl --table

Each model runs in a process of its own with a limit on time and memory, with random
weights, on two small samples of made-up input. One line of JSON a model; a second
call goes on where the first one stopped. ``--table`` prints the Markdown of
``docs/coverage.md``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from coverage_models import PARTS, Entry, entries
from coverage_table import lines, markdown

PRELOADED = ["torch", "torchvision", "timm", "transformers", "coverage_checks"]


def work(entry: Entry, place: Path, memory: int) -> None:
    """Checks one model; runs in a process of its own."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    import warnings

    import torch
    from coverage_checks import check

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)

    def say(line: dict[str, Any]) -> None:
        # Whole or not at all: the process may be ended at any moment.
        part = place.with_suffix(".part")
        part.write_text(json.dumps(line))
        part.replace(place)

    check(entry, say)


def tried(entry: Entry, *, seconds: float, memory: int) -> dict[str, Any]:
    """Returns the record of a model, also of one that hangs or dies."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "line.json"
        process = multiprocessing.get_context("forkserver").Process(
            target=work, args=(entry, place, memory)
        )
        process.start()
        process.join(seconds)
        ended = process.exitcode
        if ended is None:
            process.kill()
            process.join()
        line = {"part": entry.part, "name": entry.name}
        if place.exists():
            line = json.loads(place.read_text())
    line["seconds"] = round(time.perf_counter() - started, 1)
    if ended != 0:
        why = f"stopped after {seconds:g} s" if ended is None else f"died: {ended}"
        line["ended"] = f"{why} in {line.pop('at', 'building')}"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="models; all by default")
    parser.add_argument("--results", type=Path, default=Path("coverage.jsonl"))
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--seconds", type=float, default=300.0, help="per model")
    parser.add_argument("--total", type=float, default=1e9, help="begin none after it")
    parser.add_argument("--memory", type=float, default=12.0, help="GiB per model")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        listed = {part: [entry.name for entry in entries(part)] for part in PARTS}
        print(markdown(options.results, listed))
        return
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    started = time.perf_counter()
    done = {(line["part"], line["name"]) for line in lines(options.results)}
    for entry in (e for part in options.parts for e in entries(part)):
        wanted = not options.names or entry.name in options.names
        if not wanted or (entry.part, entry.name) in done:
            continue
        if time.perf_counter() - started > options.total:
            break
        memory = int(options.memory * 2**30)
        line = tried(entry, seconds=options.seconds, memory=memory)
        print(json.dumps(line)[:400], flush=True)
        with options.results.open("a") as out:
            out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
