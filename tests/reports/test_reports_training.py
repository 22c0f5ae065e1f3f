"""Reports on trainings: what follows from the recorded flow, in every format."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.reports_html.reading import Element, number, read
from tests.training.courses import net, options, record
from vgaudit.compare import compare
from vgaudit.judge import judge
from vgaudit.reports import retraining as words
from vgaudit.retraining import Against, Epoch, LayerGradient, Retraining, Run


@pytest.fixture(scope="module")
def done() -> Retraining:
    return record(net(depth=4), options("sdagd", controls=("adam",)))


def epoch(number: int, *sizes: float) -> Epoch:
    layers = tuple(
        LayerGradient(layer=str(i), rms=x, relative=None, to_weight=None)
        for i, x in enumerate(sizes)
    )
    return Epoch(
        number=number,
        steps=number,
        train_loss=1.0,
        valid_loss=1.0,
        metric=None,
        lr=0.1,
        seconds=1.0,
        layers=layers,
    )


def logs(record: dict[str, Any]) -> list[float]:
    return [math.log10(layer["rms"]) for layer in record["layers"]]


def table(page: Element, label: str) -> list[list[str]]:
    return next(
        x.rows() for x in page.every("table") if x.attributes["aria-label"] == label
    )


def test_uniformity_is_the_deviation_over_layers() -> None:
    # log10: 0, 1, 2, with deviation √(2/3).
    assert epoch(1, 1.0, 10.0, 100.0).uniformity == pytest.approx((2 / 3) ** 0.5)
    assert epoch(1, 3.0, 3.0).uniformity == 0.0
    assert epoch(1, 1.0, 0.0).uniformity == math.inf
    assert epoch(1, 1.0).uniformity is None
    assert epoch(1).uniformity is None


def test_json_has_what_follows_from_its_layers(done) -> None:
    text = words.render(done, None, form="json")
    written = json.loads(text)["retraining"]

    for run in (written["run"], *written["controls"]):
        tracks = []
        for entry in run["epochs"]:
            sizes = logs(entry)
            assert entry["spread"] == pytest.approx(max(sizes) - min(sizes))
            assert entry["uniformity"] == pytest.approx(statistics.pstdev(sizes))
            tracks.append(sizes)
        wander = [statistics.pstdev(track) for track in zip(*tracks[1:], strict=True)]
        assert run["wander"] == pytest.approx(statistics.median(wander))
    assert words.parse(written) == done


def test_figures_that_are_not_finite_stay_json(done) -> None:
    dead = replace(done, run=Run(name="x", epochs=(epoch(0, 1.0, 0.0),), best=0))
    written = json.loads(words.render(dead, None, form="json"))["retraining"]["run"]

    assert written["epochs"][0]["uniformity"] == "inf"
    assert written["wander"] is None


def test_text_and_html_show_the_same_figures_of_the_kept_epochs(done) -> None:
    text = words.render(done, None, form="text").splitlines()
    page = read(words.render(done, None, form="html"))
    heads, *rows = table(page, "The kept epoch of each run")

    assert ["", "before", "sdagd", "adam"] == heads
    for label, *cells in rows:
        line = next(line for line in text if line.startswith(f"{label} "))
        assert line.split(label)[1].split() == " ".join(cells).split()
    found = {label: cells for label, *cells in rows}
    runs = (done.run, done.controls[0])
    for cell, run in zip(found["gradient wander, decades"][1:], runs, strict=True):
        assert number(cell) == pytest.approx(run.wander, abs=0.005)
    for cell, run in zip(found["gradient uniformity, decades"][1:], runs, strict=True):
        sizes = [math.log10(layer.rms) for layer in run.kept.layers]
        assert number(cell) == pytest.approx(statistics.pstdev(sizes), abs=0.05)


def test_uniformity_has_a_curve_of_its_own(done) -> None:
    page = read(words.render(done, None, form="html"))
    titles = [x.one("h4").text for x in page.every("div", "panel")]

    assert "uniformity, decades" in titles


def test_the_phases_of_sdagd_stand_in_every_format(done) -> None:
    kept = done.run.kept
    text = words.render(done, None, form="text")
    page = read(words.render(done, None, form="html"))
    rows = table(page, "What sdagd reports of itself")

    assert [f"epoch {kept.number} (kept)"] == rows[0][1:2]
    cells = {name: number(first) for name, first, *_ in rows[1:]}
    assert cells == {n: pytest.approx(x, rel=0.01) for n, x in kept.figures.items()}
    assert all(f"  {name}" in text for name in kept.figures)
    assert "Figures of its own: sdagd" in [x.text for x in page.every("h3")]


@pytest.mark.parametrize("mode", ["table", "infer", "reference"])
def test_no_report_on_a_relaxed_training_is_without_its_gap(mode: str) -> None:
    asked = options("rai", epochs=4, settings={"mode": mode})
    done = record(net(), asked)
    last = done.run.epochs[-1]
    text = words.render(done, None, form="text")
    page = read(words.render(done, None, form="html"))
    curves = table(page, "Figures of its own: rai")

    for name in ("relaxed loss", "forward loss", "relaxation gap", "largest residual"):
        assert f"  {name} " in text
        column = curves[0].index(name)
        assert number(curves[-1][column]) == pytest.approx(
            last.figures[name], rel=0.01, abs=1e-9
        )
    assert [str(e.number) for e in done.run.epochs[1:]] == [
        row[0] for row in curves[1:]
    ]
    written = json.loads(words.render(done, None, form="json"))
    figures = written["retraining"]["run"]["epochs"][-1]["figures"]
    assert figures["relaxation gap"] == last.figures["relaxation gap"]


def test_a_failed_control_says_so_in_html(done) -> None:
    failed = replace(done.controls[0], failed="20 steps in a row could not be taken")
    said = "the control adam failed: 20 steps in a row could not be taken"
    done = replace(done, controls=(failed,), notes=(said,))
    page = read(words.render(done, None, form="html"))
    rows = table(page, "The kept epoch of each run")

    assert "failed" in {row[3] for row in rows[1:]}
    notes = [x.text for x in page.every("li")]
    assert sum("20 steps in a row" in note for note in notes) == 1


def test_json_fits_its_schema(cli, done) -> None:
    printed = json.loads(cli("schema", "retrain").out)
    check = Draft202012Validator(printed)
    check.check_schema(printed)
    both = compare(judge(done.before), judge(done.after))
    dead = Run(name="x", epochs=(epoch(0, 1.0, 0.0),), best=0)
    cases = [(done, both), (done, None), (replace(done, run=dead), None)]
    for case in cases:
        check.validate(json.loads(words.render(*case, form="json")))

    properties = printed["$defs"]["Epoch"]["properties"]
    assert {"spread", "uniformity", "figures", "layers"} <= set(properties)
    assert "wander" in printed["$defs"]["Run"]["properties"]
    record = json.loads(words.render(done, None, form="json"))
    record["retraining"]["run"]["epochs"][0]["spread"] = "wide"
    assert not check.is_valid(record)


@pytest.mark.parametrize(
    ("difference", "outcome", "plain", "cells"),
    [
        (-0.2125, "worse", "worse than", ["worse", "−21.2", "4.8", "400"]),
        (0.0, "same", "no better than", ["no better", "0.0", "4.8", "400"]),
        (0.30, "better", "better than", ["better", "30.0", "4.8", "400"]),
    ],
)
def test_the_page_says_plainly_how_the_treatment_stands(
    done, difference, outcome, plain, cells
) -> None:
    judged = Against(
        control="adam",
        outcome=outcome,
        difference=difference,
        uncertainty=0.048,
        samples=400,
    )
    told = replace(done, against=(judged,))
    page = read(words.render(told, None, form="html"))
    text = words.render(told, None, form="text")

    (sentence,) = (x for x in text.splitlines() if f"sdagd is {plain} adam: " in x)
    assert "points of accuracy (± 4.8 on 400 samples)" in sentence
    assert ("train with adam instead" in sentence) == (outcome == "worse")
    head = [x.text for x in page.every("p", "said")]
    assert f"{sentence}." in head
    assert f"{sentence}." in [x.text for x in page.every("p", "place")]
    heads, row = table(page, "The treatment against each control")
    assert "difference in points of accuracy" in heads
    assert ["adam", *cells] == row


def test_a_page_names_losses_and_failures_without_points(done) -> None:
    lost = Against(control="adam", outcome="worse", difference=0.5, uncertainty=None)
    by_loss = replace(done, metric="", against=(lost,))
    page = read(words.render(by_loss, None, form="html"))
    heads, row = table(page, "The treatment against each control")

    assert "difference in validation loss" in heads
    assert ["adam", "worse", "0.5000", "–", "12"] == row
    assert any("+0.5000 of validation loss" in x.text for x in page.every("p", "said"))

    failed = replace(done.controls[0], failed="it diverged")
    none = Against(control="adam", outcome="", difference=None, uncertainty=None)
    page = read(
        words.render(
            replace(done, controls=(failed,), against=(none,)), None, form="html"
        )
    )
    said = "adam failed, and nothing can be compared with it: it diverged."
    assert said in [x.text for x in page.every("p", "said")]
    assert table(page, "The treatment against each control")[1][1] == "not comparable"


@pytest.mark.parametrize(
    "controls",
    [
        ("adam",),
        ("adam", "readout"),
        ("adam", "readout", "centred-adam", "sgd", "adamw"),
        ("adam:lr=0.003,beta1=0.8", "sgd:lr=0.05", "adam:lr=1e-06,beta2=0.9999999999"),
    ],
)
def test_tables_of_any_number_of_runs_fit_80_columns(done, controls) -> None:
    several = tuple(replace(done.controls[0], name=name) for name in controls)
    told = replace(done, controls=several, against=())
    text = words.render(told, None, form="text").split("\n\n")
    blocks = [b.splitlines() for b in text if "gradient wander, decades" in b]

    assert all(len(line) <= 80 for block in blocks for line in block)
    names = [name for block in blocks for name in block[0].split()]
    shown = [n for n in controls if len(n) < 26]
    assert ["before", "sdagd", *shown] == [n for n in names if "…" not in n]
    assert len(names) == 2 + len(controls)
    page = read(words.render(told, None, form="html"))
    rows = {label: cells for label, *cells in table(page, "The kept epoch of each run")}
    for label in ("accuracy", "epoch", "gradient wander, decades", "seconds"):
        lines = [line for b in blocks for line in b if line.startswith(f"{label} ")]
        cells = " ".join(line.removeprefix(label) for line in lines).split()
        assert cells == " ".join(rows[label]).split()


def test_what_a_method_does_in_the_end_is_no_epoch() -> None:
    asked = options("rai", epochs=2, valid_split=0.5, settings={"mode": "reference"})
    done = record(net(), asked)
    last = done.run.epochs[-1]
    kept = "end" if last.number == done.run.best else str(done.run.best)
    text = words.render(done, None, form="text").splitlines()
    page = read(words.render(done, None, form="html"))

    assert [False, False, False, True] == [e.finish for e in done.run.epochs]
    assert last.steps == 2
    assert text[0].startswith("trained with rai: 2 epochs, 2 steps")
    table_of = text.index("  end: what rai does after the last epoch")
    rows = [line.lstrip("* ").split()[0] for line in text[table_of - 4 : table_of]]
    assert ["0", "1", "2", "end"] == rows
    row = next(line for line in text if line.startswith("epoch "))
    assert ["epoch", "0", kept] == row.split()[:3]
    lead = page.one("p", "lead").text
    assert "2 epochs, 2 steps on 60 samples; what rai does after them was kept" in lead
    columns, *_ = table(page, "What rai reports of itself")
    assert ["", "end (kept)"] == columns
