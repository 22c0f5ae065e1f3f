"""The grid's figures as tables."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.papers.rai_study.grid import (
    ABLATED,
    CHEAP,
    COSTLY,
    WIDTHS,
    Cell,
    cells,
    chosen,
    each_cells,
)
from benchmarks.papers.rai_study.record import Record, spread, table


def show(record: Record) -> str:
    """The grid as tables."""
    head = [
        "net, noise",
        "RAI",
        "seconds",
        "readout only",
        "Adam",
        "Rprop",
        "label code",
    ]
    rows = []
    for cell in cells():
        found = {
            method: record.rows("grid", method=method, **_at(cell))
            for method in (*CHEAP, *COSTLY)
        }
        scores = {
            method: spread(row["score"] for row in rows_of)
            for method, rows_of in found.items()
        }
        rows.append(
            [
                f"{cell.activation}, {cell.depth} × {cell.width}, {cell.noise}",
                scores["rai"],
                spread(row["seconds"] for row in found["rai"]),
                *(scores[m] for m in ("readout", "adam", "rprop", "label code")),
            ]
        )
    return table(head, rows)


def _at(cell: Cell) -> dict[str, Any]:
    """Returns what the runs of one net have in common."""
    return {
        "activation": cell.activation,
        "depth": cell.depth,
        "width": cell.width,
        "detail": f"noise {cell.noise}",
    }


def show_each(record: Record) -> str:
    """The runs whose ridge was chosen for every net by itself."""
    return _ridged(record, "each", tuple(each_cells()), "tune each")


def show_fresh(record: Record) -> str:
    """The follow-up on fresh seeds."""
    return _ridged(record, "fresh", tuple(cells()), "tune")


def _ridged(record: Record, study: str, nets: tuple[Cell, ...], tuning: str) -> str:
    rows = []
    for cell in nets:
        words = [f"{cell.activation}, {cell.depth} × {cell.width}, {cell.noise}"]
        for method in ("rai", "label code"):
            found = record.rows(study, method=method, **_at(cell))
            words.append(spread(row["score"] for row in found))
            words.append(f"{chosen(record, cell, method, study=tuning):g}")
        rows.append(words)
    return table(["net, noise", "RAI", "ridge", "label code", "ridge"], rows)


def show_ablations(record: Record) -> str:
    head = ["sigmoid, 101 ×", "full recipe", *ABLATED, "relaxed loss", "its gap"]
    rows = []
    for width in WIDTHS:
        at = _at(Cell("sigmoid", 101, width))
        found = [
            record.rows("grid", method=method, **at) for method in ("rai", *ABLATED)
        ]
        bare = found[-1]
        rows.append(
            [
                str(width),
                *(spread(row["score"] for row in part) for part in found),
                spread((row["relaxed"] for row in bare), places=4),
                spread((row["gap"] for row in bare), places=2),
            ]
        )
    return table(head, rows)


def show_tuning(record: Record) -> str:
    settings: dict[tuple[str, str, int], dict[str, None]] = {}
    for run in record.done:
        if run.study == "tune":
            net_of = (run.method, run.activation, run.width)
            settings.setdefault(net_of, {})[run.detail] = None
    rows = []
    for (method, name, width), details in settings.items():
        at = {"method": method, "activation": name, "width": width}
        scores = []
        for detail in details:
            found = [r["score"] for r in record.rows("tune", detail=detail, **at)]
            scores.append(f"{detail}: {statistics.fmean(found):.1f}")
        rows.append([method, f"{name} {width}", "; ".join(scores)])
    return table(["tuned", "net", "mean score by setting"], rows)
