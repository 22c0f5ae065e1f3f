"""Scans every model of torchvision and says what came of it.

    python benchmarks/coverage.py --results coverage.jsonl

Each model is built with random weights (seed 0), its input is inferred, and it
is scanned as ``vgaudit scan torchvision:NAME`` would, with two batches of two;
detection, video and optical flow with one sample, because they are heavy.
One line of JSON a model; a second call goes on where the first one stopped.
``--table`` prints the Markdown table of ``docs/coverage.md`` from the lines.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vgaudit.errors import VgauditError
from vgaudit.findings import Report
from vgaudit.job import DataOptions, LoadOptions, ProbeOptions, ScanJob

FAMILIES = ("classification", "segmentation", "detection", "video", "optical_flow")


def family(name: str) -> str:
    from torchvision.models import get_model_builder

    if name.startswith("quantized_"):
        return "quantization"
    module = get_model_builder(name).__module__.removeprefix("torchvision.models.")
    head = module.split(".")[0]
    return head if head in FAMILIES else "classification"


def weight(name: str) -> float:
    """Returns billions of multiplications: the light ones are scanned first."""
    from torchvision.models import get_model_weights

    known = [w.meta.get("_ops", 0.0) for w in get_model_weights(name)]
    return min(known, default=0.0)


def scan(name: str, seed: int) -> Report:
    from vgaudit.judge import judge
    from vgaudit.measure import measure

    heavy = family(name) in ("detection", "optical_flow", "video")
    batches, size = (1, 1) if heavy else (2, 2)
    job = ScanJob(
        spec=f"torchvision:{name}",
        load=LoadOptions(seed=seed),
        data=DataOptions(batches=batches, batch_size=size, seed=seed),
        probe=ProbeOptions(seed=seed),
    )
    return judge(measure(job))


def record(name: str, seed: int) -> dict[str, Any]:
    started = time.perf_counter()
    line: dict[str, Any] = {"name": name, "family": family(name), "seed": seed}
    try:
        report = scan(name, seed)
    except VgauditError as error:
        line |= {"status": "refused", "reason": error.message, "hint": error.hint}
    else:
        assert report.audit is not None
        flow = report.audit.flow
        line |= {
            "status": report.status,
            "findings": [f"{f.code} {f.level} {f.layer}" for f in report.findings],
            "attenuation": flow.attenuation.value if flow.attenuation else None,
            "weight_layers": flow.weight_layers,
            "activations": sum(layer.activation is not None for layer in flow.layers),
            "unreached": sum(p.trainable and not p.connected for p in flow.parameters),
            "not_measured": [item.path for item in flow.not_measured],
            "input": report.audit.data.spec,
        }
    line["seconds"] = round(time.perf_counter() - started, 1)
    return line


def todo(results: Path, wanted: list[str], seed: int) -> Iterator[str]:
    done = {(line["name"], line["seed"]) for line in lines(results)}
    yield from (name for name in wanted if (name, seed) not in done)


def lines(results: Path) -> list[dict[str, Any]]:
    if not results.exists():
        return []
    return [json.loads(text) for text in results.read_text().splitlines() if text]


def table(results: Path) -> str:
    rows = [
        "| model | family | verdict | attenuation | weight layers | activations | s |"
    ]
    rows.append("|---|---|---|---|---|---|---|")
    for line in sorted(lines(results), key=lambda item: (item["family"], item["name"])):
        if line["status"] == "refused":
            said = f"refused: {line['reason']}"
            rows.append(f"| {line['name']} | {line['family']} | {said} | | | | |")
            continue
        bad = [f for f in line["findings"] if " info " not in f"{f} "]
        said = line["status"] + (f" ({'; '.join(bad[:2])})" if bad else "")
        value = line["attenuation"]
        rows.append(
            f"| {line['name']} | {line['family']} | {said} | "
            f"{'–' if value is None else f'{value:.1f}'} | {line['weight_layers']} | "
            f"{line['activations']} | {line['seconds']} |"
        )
    counts = Counter((line["family"], line["status"]) for line in lines(results))
    rows.append("")
    rows += [f"- {kind}, {status}: {n}" for (kind, status), n in sorted(counts.items())]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="models; all by default")
    parser.add_argument("--results", type=Path, default=Path("coverage.jsonl"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        print(table(options.results))
        return
    from torchvision.models import list_models

    wanted = options.names or sorted(list_models(), key=weight)
    for name in todo(options.results, wanted, options.seed):
        line = record(name, options.seed)
        print(json.dumps(line)[:240], flush=True)
        with options.results.open("a") as out:
            out.write(json.dumps(line) + "\n")
        gc.collect()


if __name__ == "__main__":
    main()
