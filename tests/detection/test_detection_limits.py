"""Limits by the kind of net: closed forms, and what ships against what is stored."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.detection import limits
from benchmarks.detection.grid import half
from benchmarks.detection.limits import Kind

STORED = Path(limits.__file__).with_name("results.jsonl")


def row(
    label: str, kind: str, lost: float, *, steps: int = 5, longer: float | None = None
) -> dict[str, Any]:
    """Returns a recurrent net that loses so much over its steps."""
    truth = {"label": label, "longer": longer}
    features = {
        "attenuation": 0.0,
        "through_time": [[kind, steps, lost - 0.1, lost]],
    }
    return {
        "name": f"{label}{lost}",
        "oracle": {"sgd": truth, "adam": truth},
        "ours": {"features": features, "findings": {"sgd": [], "adam": []}},
    }


def kinds_of(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], Kind]:
    return {(k.rule, k.name, k.optimizer): k for k in limits.kinds(rows)}


def test_every_kind_of_cell_has_the_middle_of_its_own_gap() -> None:
    rows = [row("vanishing", "sigmoid-cell", -4.0), row("healthy", "sigmoid-cell", -2)]
    rows += [row("vanishing", "gru", -7.0), row("healthy", "gated-cell", -5.0)]
    found = kinds_of(rows)

    sigmoid, gated = (found["VG108", name, "adam"].fit for name in ("sigmoid", "gated"))
    assert sigmoid is not None
    assert gated is not None
    assert (sigmoid.limit, gated.limit) == (-3.0, -6.0)
    assert found["VG108", "plain", "adam"].fit is None


def test_what_learns_late_is_well_and_what_is_unclear_is_neither() -> None:
    rows = [
        row("vanishing", "lstm", -8.0),
        row("unclear", "lstm", -6.0, longer=0.5),
        row("unclear", "lstm", -7.0, longer=0.1),
        row("unclear", "lstm", -7.5),
    ]
    gated = kinds_of(rows)["VG108", "gated", "sgd"]

    assert (gated.sick, gated.well) == ((-8.0,), (-6.0,))
    assert limits.errors(gated, -7.0) == 0
    assert (limits.errors(gated, -5.0), limits.errors(gated, -9.0)) == (1, 1)


@pytest.mark.parametrize(
    ("steps", "name"), [(4, "plain, small weights"), (40, "plain")]
)
def test_weights_are_small_where_each_step_loses_much(steps: int, name: str) -> None:
    found = kinds_of([row("healthy", "rnn-tanh", -6.0, steps=steps)])

    assert found["VG108", name, "sgd"].well == (-6.0,)


def test_what_is_left_out_is_judged_by_the_others() -> None:
    rows = [row("vanishing", "lstm", x) for x in (-9.0, -8.0, -3.0)]
    rows += [row("healthy", "lstm", x) for x in (-4.0, -2.0)]
    fit = kinds_of(rows)["VG108", "gated", "sgd"].fit
    alone = limits.left_out(rows, lambda one: str(one["name"]))

    assert fit is not None
    assert (fit.limit, fit.errors) == (-6.0, 1)
    # Without −3 the limit is −6, and without −4 it is −2.5: both are misjudged then,
    # under either optimizer.
    assert alone == 2 * 2


def test_nets_that_differ_from_the_nearest_one_are_counted() -> None:
    # In order: sick −9 −8 −5, well −4.8 −2: −5 and −4.8 are nearest to each other.
    rows = [row("vanishing", "lstm", x) for x in (-9.0, -8.0, -5.0)]
    rows += [row("healthy", "lstm", x) for x in (-4.8, -2.0)]
    kind = kinds_of(rows)["VG108", "gated", "sgd"]

    assert limits.disagreeing(kind) == 2


@pytest.mark.parametrize("best", [0.0, 0.02, 0.1, 0.5])
def test_the_nearest_neighbour_bounds_the_best_rule(best: float) -> None:
    """Where every figure has the label of the majority with 1 − e."""
    assert limits.least(round(2e6 * best * (1 - best)), 10**6) == pytest.approx(
        best * 10**6, abs=2.0
    )


def test_no_limit_that_ships_makes_more_errors_than_the_fitted_one() -> None:
    """But for one that could only pass between two nets less than 0.1 apart."""
    stored = [json.loads(line) for line in STORED.read_text().splitlines()]
    rows = [r for r in stored if half(r["name"]) != "report"]
    worse, threaded = {}, {}
    for kind in limits.kinds(rows):
        limit = limits.shipped(kind)
        if limit is not None and kind.fit is not None:
            found = threaded if kind.fit.hi - kind.fit.lo < 0.1 else worse
            more = limits.errors(kind, limit) - kind.fit.errors
            found[kind.rule, kind.name, kind.optimizer] = more

    assert len(worse) + len(threaded) > 15
    assert {name: more for name, more in worse.items() if more > 0} == {}
    assert max(threaded.values()) <= 1
