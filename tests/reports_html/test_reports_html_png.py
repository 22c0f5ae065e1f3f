"""The charts as files: what is written, where, and when it is refused."""

from __future__ import annotations

import importlib.util
import math
import struct
from dataclasses import replace

import pytest

from tests.reports_html.test_reports_html_charts import recurrence, run
from vgaudit.cli import pictures as command
from vgaudit.errors import BadConfig, CannotLoad, CannotWrite
from vgaudit.flow import Histogram
from vgaudit.judge import failed, judge
from vgaudit.reports import painting, png
from vgaudit.reports.charts import histograms
from vgaudit.reports.png import pictures, training
from vgaudit.rules.examples import activation, chain, having

REPORT = judge(chain((-9.6, -8.0, -6.0, -4.0, -2.0, 0.0)))


@pytest.fixture(autouse=True)
def matplotlib():
    return pytest.importorskip("matplotlib")


def size(data: bytes) -> tuple[int, int]:
    """Width and height, from the header of a PNG file."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", data[16:24])


def test_there_is_a_picture_for_each_chart() -> None:
    audit = having(REPORT.audit, recurrences=(recurrence(-0.1),))
    found = pictures(replace(REPORT, audit=audit))

    assert {
        "activations",
        "depth-profile",
        "gradient-against-lag",
        "gradient-budget",
    } == set(found)
    wanted = tuple(round(png.DOTS * inches) for inches in png.SIZE)
    assert {wanted} == {size(data) for data in found.values()}


def test_histograms_have_a_picture_too() -> None:
    found = Histogram(
        start=-2.0, width=1.0, counts=(1, 5, 2, 1), saturated=(1, 0, 0, 1)
    )
    audit = activation(REPORT.audit, "layers.1", histogram=found)
    data = pictures(replace(REPORT, audit=audit))["histograms"]

    assert size(data)[0] == round(png.DOTS * png.SIZE[0])


def test_the_bars_of_a_histogram_are_its_counts() -> None:
    from matplotlib.figure import Figure

    found = Histogram(start=-2.0, width=0.5, counts=(4, 9), saturated=(4, 0))
    flow = activation(REPORT.audit, "layers.1", histogram=found).flow
    axes = Figure().add_subplot()
    painting.histograms_of(histograms.smalls(flow))(axes)
    (small,) = axes.child_axes
    bars = [(x.get_x(), x.get_width(), x.get_height()) for x in small.patches]

    assert [(-2.0, 0.5, 4), (-1.5, 0.5, 9), (-2.0, 0.5, 4), (-1.5, 0.5, 0)] == bars


def test_the_bars_stand_where_the_budget_says() -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    painting.budget_of(REPORT.audit.flow)(axes)
    heights: dict[str, float] = {}
    for bar in axes.patches:
        colour = "#" + "".join(f"{round(255 * x):02x}" for x in bar.get_facecolor()[:3])
        heights[colour] = heights.get(colour, 0.0) + bar.get_height()
    lowest = min(bar.get_y() + bar.get_height() for bar in axes.patches)

    assert pytest.approx(-9.6) == lowest
    assert {
        painting.COLOURS[cause]: value
        for cause, value in REPORT.audit.flow.budget().items()
    } == pytest.approx(heights)


def test_a_training_has_its_curves() -> None:
    found = training([run("sdagd", {0: (), 1: ()}), run("adam", {0: (), 1: ()})])

    assert {"loss", "trunk"} == set(found)


@pytest.mark.parametrize("value", [math.nan, -math.inf, math.inf])
def test_figures_that_are_no_numbers_are_drawn(value) -> None:
    steps = tuple(
        replace(step, gain=replace(step.gain, value=value))
        for step in REPORT.audit.flow.trunk
    )

    assert pictures(replace(REPORT, audit=having(REPORT.audit, trunk=steps)))


def test_a_name_is_no_formula() -> None:
    layers = tuple(replace(x, path=r"$\frac{") for x in REPORT.audit.flow.layers)
    steps = tuple(
        replace(x, layer=r"$\frac{", name=r"$x^") for x in REPORT.audit.flow.trunk
    )
    audit = having(REPORT.audit, layers=layers, trunk=steps)

    assert pictures(replace(REPORT, audit=audit))


def test_nothing_is_drawn_of_a_run_that_failed() -> None:
    assert {} == pictures(failed(CannotLoad("no such file")))


def test_files_are_written_and_never_over_others(tmp_path) -> None:
    written = command.save(tmp_path, REPORT, force=False)

    assert sorted(written) == sorted(tmp_path.iterdir())
    assert {".png"} == {path.suffix for path in written}
    with pytest.raises(CannotWrite, match="exists already"):
        command.save(tmp_path, REPORT, force=False)
    assert written == command.save(tmp_path, REPORT, force=True)
    assert () == command.save(None, REPORT, force=False)


def test_a_folder_and_the_extra_are_asked_for_first(tmp_path, monkeypatch) -> None:
    command.check(None)
    command.check(tmp_path)
    with pytest.raises(CannotWrite, match="is no folder"):
        command.check(tmp_path / "none")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadConfig) as refused:
        command.check(tmp_path)

    assert "python -m pip install 'vgaudit[plots]'" == refused.value.hint
