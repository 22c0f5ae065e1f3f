"""The benchmark's counting, on rows made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.detection.score import wilson
from benchmarks.repairs.controls import healthy
from benchmarks.repairs.run import sick
from benchmarks.repairs.table import explained, learned, render, repairable, stored


def row(name: str, final: float | None, **arms: float):
    """Returns a row of an unseen model; ``arms`` are what each family delivers."""
    made = {
        family: {
            "finalist": f"{family} 1",
            "kept": arms.get(family, 0.4),
            "proofs": [arms.get(family, 0.4)] * 3,
            "first": {f"{family} 1": 0.4},
            "second": {f"{family} 1": arms.get(f"{family}_second", 0.4)},
        }
        for family in ("treatment", "sweep", "random")
    }
    return {
        "name": name,
        "half": "unseen",
        "status": "nothing" if final is None else "repaired",
        "kept": "" if final is None else "treatment 1",
        "kept_family": "treatment",
        "chance": 0.4,
        "final": 0.4 if final is None else final,
        "arms": made,
    }


def test_the_margin_is_a_share_of_what_a_constant_answer_leaves() -> None:
    found = row("a", 0.7)

    assert explained(found, 0.7) == pytest.approx(0.5)
    assert not learned(found, 0.57)  # 0.4 + 0.3 · 0.6 = 0.58
    assert learned(found, 0.59)
    assert not learned(found, None)


def test_one_short_training_makes_a_model_repairable() -> None:
    assert not repairable(row("a", None))
    assert repairable(row("a", None, random_second=0.9))


def test_rates_are_of_what_is_repairable() -> None:
    rows = [
        row("a", 1.0, treatment=1.0),
        row("b", 1.0, treatment=1.0, random=1.0),
        row("c", None, sweep_second=0.9),
        row("d", None),
    ]
    lines = render(rows).splitlines()
    delivered = next(line for line in lines if "as delivered" in line)
    drawn = next(line for line in lines if line.startswith("| random repair alone"))

    assert "4; 3" in lines[2]
    assert "2, 66.7 %" in delivered
    assert "1, 33.3 %" in drawn
    assert f"({100 * wilson(2, 3)[0]:.1f}–{100 * wilson(2, 3)[1]:.1f})" in delivered
    # Of three models, one gains 1, one 1 and one nothing.
    assert "| 0.67 ±" in delivered
    assert "Missed by `fix` (unseen models): `c` (nothing)." in lines


def test_half_a_line_of_a_killed_run_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text('{"name":"a"}\n{"name":"b')

    assert [found["name"] for found in stored(file)] == ["a"]


def test_every_sick_model_is_in_one_half_and_the_order_is_always_the_same() -> None:
    found = sick()

    assert [one.spec.name for one in found] == [one.spec.name for one in sick()]
    halves = [one.half for one in found]
    assert set(halves) == {"develop", "report", "second", "unseen"}
    seen = [half for half in halves if half in ("develop", "report")]
    assert 0.4 < seen.count("report") / len(seen) < 0.6
    assert all(one.optimizers for one in found)


def test_models_treated_for_nothing_are_counted_where_no_finding_fails() -> None:
    def control(name: str, status: str, findings: tuple[str, ...] = ()):
        return {
            "name": name,
            "half": "unseen",
            "optimizer": "sgd",
            "status": status,
            "findings": list(findings),
        }

    rows = [
        control("a", "healthy"),
        control("b", "treated"),
        control("c", "treated", ("VG101",)),
    ]
    text = render([], rows)

    assert "Of 2 models that the suite calls healthy" in text
    assert "1, 50.0 %" in text
    assert "`b` (sgd)." in text
    assert "`c`" not in text


def test_healthy_controls_are_never_among_the_sick() -> None:
    ill = {(one.spec.name, kind) for one in sick() for kind in one.optimizers}
    well = {(one.spec.name, one.optimizer) for one in healthy()}

    assert len(well) > 500
    assert not ill & well


def test_what_a_trial_shows_is_counted_apart_from_what_is_delivered() -> None:
    healthy_row = {**row("a", None, random_second=0.9), "status": "healthy"}
    lines = render([{**healthy_row, "shown": 0.8}, row("b", 1.0, treatment=1.0)])
    delivered, shown = (
        next(line for line in lines.splitlines() if text in line)
        for text in ("as delivered**", "as delivered or as the trial")
    )

    assert "1, 50.0 %" in delivered
    assert "2, 100.0 %" in shown
