"""Intervals, fits and counts against second implementations."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.detection import measure, score
from benchmarks.detection.grid import load
from vgaudit.rules.dead_units import DeadUnits
from vgaudit.rules.exploding_gradient import ExplodingGradient
from vgaudit.rules.vanishing_gradient import VanishingGradient


@pytest.mark.parametrize(("hits", "total"), [(0, 5), (3, 7), (95, 100), (12, 12)])
def test_wilson_is_scipys(hits: int, total: int) -> None:
    ends = binomtest(hits, total).proportion_ci(method="wilson")

    assert score.wilson(hits, total) == pytest.approx((ends.low, ends.high), abs=1e-6)


def row(label: str, attenuation: float, *, flagged: bool = False) -> dict[str, Any]:
    findings = [["VG101", "error", ["0"]]] if flagged else []
    features = {"hi": attenuation, "lo": attenuation, "branch_hi": None, "dead": 0.0}
    truth = {"label": label, "groups": [["0"], ["2"]], "learns": [False, True]}
    return {
        "name": f"{label}{attenuation}",
        "oracle": {"sgd": truth},
        "ours": {"findings": {"sgd": findings}, "features": features},
    }


def test_a_separable_half_is_split_in_the_middle_of_the_gap() -> None:
    rows = [row("vanishing", x) for x in (-9.0, -5.0)]
    rows += [row("healthy", x) for x in (-2.0, -0.5, 0.1)]
    fit = score.fit(rows, "sgd", "vanishing")

    assert fit is not None
    assert (fit.limit, fit.lo, fit.hi, fit.errors) == (-3.5, -5.0, -2.0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_makes_fewer_errors_than_the_fitted_one(seed: int) -> None:
    draw = random.Random(seed)
    rows = [row("vanishing", draw.gauss(-5, 1.5)) for _ in range(30)]
    rows += [row("healthy", draw.gauss(-2, 1.5)) for _ in range(30)]
    fit = score.fit(rows, "sgd", "vanishing")

    def errors(limit: float) -> int:
        lost = [(score.lost(r), r["oracle"]["sgd"]["label"]) for r in rows]
        return sum((x < limit) != (name == "vanishing") for x, name in lost)

    assert fit is not None
    inside = (fit.lo + fit.hi) / 2
    assert errors(inside) == fit.errors
    assert fit.errors == min(errors(x / 100) for x in range(-900, 200))


def test_counts_leave_out_what_is_unclear_or_sick_otherwise() -> None:
    rows = [
        row("vanishing", -6, flagged=True),
        row("vanishing", -7),
        row("healthy", -1),
        row("healthy", -2, flagged=True),
        row("unclear", -3, flagged=True),
        row("dead", -4, flagged=True),
    ]
    counts = score.tally(rows, "sgd", "vanishing", score.ours(("error",), None))

    assert counts is not None
    assert (counts.recall, counts.precision, counts.false_alarms) == (
        (1, 2),
        (1, 2),
        (1, 2),
    )
    assert counts.missed == ["vanishing-7 (sgd)"]


def test_a_rule_alone_is_counted_by_its_own_findings() -> None:
    both, other = row("vanishing", -6, flagged=True), row("vanishing", -7)
    other["ours"]["findings"]["sgd"] = [["VG108", "error", ["0"]]]

    for code, hits in (("VG101", 1), ("VG108", 1), ("VG201", 0)):
        judge = score.ours(("error",), None, (code,))
        counts = score.tally([both, other], "sgd", "vanishing", judge)
        assert counts is not None
        assert counts.recall == (hits, 2)
    expected = {"VG108": "vanishing", "VG204": "exploding", "VG302": "dead"}
    expected |= {"VG103": "any", "VG301": "any"}
    assert {code: score.group_of(code) for code in expected} == expected


def test_places_compare_named_layers_with_the_frozen_control() -> None:
    rows = [row("vanishing", -6, flagged=True), row("vanishing", -7)]
    found = score.places(rows, "sgd", score.ours(("error",), None))

    assert (found.models, found.first, found.right, found.named) == (1, 1, 1, 1)
    assert (found.found, found.stuck) == (1, 1)


def test_the_stated_defaults_are_those_of_the_rules() -> None:
    vanishing, exploding, dead = VanishingGradient(), ExplodingGradient(), DeadUnits()

    assert score.DEFAULTS["sgd"]["vanishing"] == vanishing.sgd_error
    assert score.DEFAULTS["adam"]["vanishing"] == vanishing.adam_offset_error
    assert score.DEFAULTS["sgd"]["exploding"] == exploding.error
    assert score.DEFAULTS["adam"]["exploding"] == exploding.adam_error
    assert {score.DEFAULTS[k]["dead"] for k in ("sgd", "adam")} == {dead.real_error}


@pytest.mark.parametrize(
    "name", ["mlp-d6-w64-sigmoid", "mlp-d4-w64-tanh", "mlp-d3-w64-relu-dead"]
)
def test_features_with_default_limits_give_the_verdict_of_judge(name: str) -> None:
    spec = next(s for s in load() if s.name == name)
    stored: dict[str, Any] = {"name": name, "ours": measure.ours(spec)}
    for kind in measure.OPTIMIZERS:
        direct = score.ours(("error",), None)(stored, kind)
        again = score.ours(("error",), score.DEFAULTS)(stored, kind)
        assert set(direct.flags) == set(again.flags)
        assert direct.anything == again.anything


def test_a_scaled_loss_changes_no_verdict() -> None:
    spec = next(s for s in load() if s.name == "mlp-d5-w64-sigmoid")
    told: Any = measure.disguised(spec)

    assert told["verdict"]["sgd"] == [["VG101", "error"]]
    assert {tuple(kinds) for kinds in told["changed"].values()} == {()}
