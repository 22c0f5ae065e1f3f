"""What the papers' studies share: results that outlive a kill, intervals, tables."""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path

import pytest
from scipy import stats

from benchmarks.papers import study
from benchmarks.papers.study import Outcome, Results, Study

DOCS = Path(__file__).resolve().parents[2] / "docs"


@dataclass(frozen=True)
class Run:
    arm: str
    seed: int


def options(path: Path, *, minutes: float = 1.0) -> argparse.Namespace:
    return argparse.Namespace(out=path, device="cpu", minutes=minutes)


def test_results_are_found_again_and_half_a_line_is_repeated(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    Results(path, Run).add(Run("a", 0), {"error": 1.5}, seconds=3)
    with path.open("a") as file:
        file.write('{"run": {"arm": "a", "se')
    again = Results(path, Run)
    assert again[Run("a", 0)] == {"error": 1.5}
    assert Run("a", 1) not in again
    again.add(Run("a", 1), {"error": 2.5})
    both = Results(path, Run)
    assert both[Run("a", 0)] == {"error": 1.5}
    assert both[Run("a", 1)] == {"error": 2.5}


def test_a_study_runs_what_is_missing_once(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    trained: list[Run] = []

    def train(run: Run) -> Outcome:
        trained.append(run)
        return {"error": run.seed}

    wanted = [Run("a", seed) for seed in range(3)]
    assert Study(options(path), Run, train).run(wanted[:2]) == wanted[:2]
    second = Study(options(path), Run, train)
    assert second.run(wanted) == wanted
    second.close()
    assert trained == wanted


def test_a_study_without_time_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.jsonl"
    Results(path, Run).add(Run("a", 0), {})
    runs = Study(options(path, minutes=0), Run, lambda run: {})
    assert runs.run([Run("a", 0), Run("a", 1)]) == [Run("a", 0)]
    with pytest.raises(SystemExit) as ended:
        runs.close()
    assert ended.value.code == study.UNFINISHED
    assert capsys.readouterr().err == "1 runs are missing: go on with --resume\n"


def test_student_is_student() -> None:
    for freedom, value in enumerate(study.STUDENT, 1):
        assert value == pytest.approx(stats.t.ppf(0.975, freedom), abs=0.005)


def test_interval_is_that_of_scipy() -> None:
    values = [0.3, -0.1, 0.5, 0.2]
    low, high = stats.t.interval(
        0.95, 3, loc=statistics.mean(values), scale=stats.sem(values)
    )
    text = study.interval(values)
    middle, half = (float(part) for part in text.split(" ± "))
    assert middle - half == pytest.approx(low, abs=0.011)
    assert middle + half == pytest.approx(high, abs=0.011)


def test_cells_and_tables() -> None:
    assert study.cell([]) == "–"
    assert study.cell([1.25], 2) == "1.25"
    assert study.cell([1.0, 3.0]) == "2.0 [1.0–3.0]"
    assert study.interval([0.5]) == "+0.50"
    assert study.table(["a", "b"], [["1", "2"]]) == (
        "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    )
    assert study.geometric([1.0, 4.0]) == pytest.approx(2.0)


def test_the_tables_of_the_results_page_are_those_of_the_stored_results() -> None:
    page = (DOCS / "results.md").read_text(encoding="utf-8")
    names = {name for _, name, *_ in study.BLOCK.findall(page)}
    assert names >= {
        *("sdagd_table1", "arnn_limits", "arnn_architectures", "arnn_regression"),
        "adact_classic",
    }
    assert study.renewed(page) == page
