"""``vgaudit demo``: the tour tells the truth, and says where it could not."""

from __future__ import annotations

import csv
import math
import time

import pytest

from vgaudit.cli import tour


def test_the_tour_goes_from_a_failing_scan_to_a_passing_one(shell, tmp_path) -> None:
    place = tmp_path / "demo"
    started = time.perf_counter()
    outcome = shell("demo", "--keep", str(place))
    seconds = time.perf_counter() - started

    assert 0 == outcome.code, outcome.err
    fail, done = outcome.out.index("FAIL"), outcome.out.rindex("PASS")
    assert fail < outcome.out.index("converted to ar") < done
    typed = outcome.out.replace(" \\\n    ", " ")
    for step in tour.STEPS:
        assert f"$ vgaudit {step.arguments}\n" in typed
    assert [] == [line for line in outcome.out.splitlines() if len(line) > 80]
    # Training leaves nothing to complain of.
    assert "same: 0 findings gone, 0 findings new" in outcome.out
    assert "0 errors, 0 warnings, 0 info" in outcome.out[done:]
    assert (place / "trained.safetensors").is_file()
    assert seconds < 240


def test_the_data_are_two_spheres(tmp_path) -> None:
    with tour.folder(tmp_path / "demo") as place:
        rows = list(csv.reader((place / "points.csv").open()))[1:]

    assert tour.SAMPLES == len(rows)
    for row in rows:
        radius = math.hypot(*map(float, row[:-1]))
        assert (radius < 2.0) == (row[-1] == "1")


def test_a_folder_that_exists_is_left_alone(cli, tmp_path) -> None:
    outcome = cli("demo", "--keep", str(tmp_path))

    assert (3, "") == (outcome.code, outcome.out)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [0, 3])
def test_a_step_that_goes_otherwise_ends_the_tour(cli, monkeypatch, code) -> None:
    monkeypatch.setattr(tour, "_run", lambda step, place: code)
    outcome = cli("demo")

    assert 3 == outcome.code
    assert f"step 1 of the tour exited with {code} and not 1" in outcome.err
