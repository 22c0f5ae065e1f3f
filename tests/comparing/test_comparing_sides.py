"""What a comparison says of its sides: names, differences, and what it leaves out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fixing.made import proofs
from tests.reports_html.reading import read
from tests.reports_html.test_reports_html_change import NASTY, SICK, WELL, training
from vgaudit.compare import Comparison, Known, compare
from vgaudit.estimates import accuracies_apart
from vgaudit.findings import Report
from vgaudit.repair.verdict import judged
from vgaudit.reports.comparison import render
from vgaudit.scores import Score, of_repair, of_training

GOOD, FAIR, POOR = (0.90, 0.93, 0.92), (0.70, 0.71, 0.72), (0.10, 0.10, 0.10)


def changed(report: Report, **values: object) -> Report:
    """Returns a report whose target, data or flow has other values."""
    assert report.audit is not None
    audit = report.audit
    parts = {
        part: replace(getattr(audit, part), **own)  # type: ignore[arg-type]
        for part, own in values.items()
    }
    return replace(report, audit=replace(audit, **parts))  # type: ignore[arg-type]


def scored(before: Score | None, after: Score | None) -> Comparison:
    known = (Known(name="a", score=before), Known(name="b", score=after))
    return compare(SICK, WELL, known=known)


RIGHT = Score(metric="accuracy", value=0.5, loss=1.0, loss_name="nll", samples=100)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"target": {"architecture": "CNN"}}, "the architectures differ: "),
        ({"target": {"parameters": 7}}, "the models differ: "),
        ({"flow": {"weight_layers": 77}}, "the models differ: "),
        ({"data": {"spec": "other.npz"}}, "measured on different data: "),
        ({"data": {"kind": "real"}}, "measured on different data: "),
        ({"flow": {"samples": 7}}, "measured on different samples: "),
        ({"flow": {"seed": 7}}, "measured with different seeds: 0 before, 7 after"),
        ({"data": {"loss": "mse"}}, "measured with different losses: "),
        ({"flow": {"mode": "eval"}}, "measured in different modes: train before, "),
    ],
)
def test_same_is_never_said_of_what_differs_without_a_word(values, wanted) -> None:
    found = compare(WELL, changed(WELL, **values))
    text = render(found, form="text")
    page = read(render(found, form="html"))

    assert found.verdict == "same"
    assert len(found.notes) == 1
    assert found.notes[0].startswith(wanted)
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("same: "))
    assert lines[at + 1].startswith(f"note: {wanted}")
    assert f"{wanted[:1].upper()}{wanted[1:]}" in page.one("p", "lead").text


def test_the_same_model_on_the_same_data_has_no_note() -> None:
    assert compare(SICK, SICK).notes == ()
    assert "note:" not in render(compare(SICK, WELL), form="text")


def test_a_failed_run_has_no_side() -> None:
    failed = Report(status="error", exit_code=3, command="")
    found = compare(failed, WELL)

    assert found.before.side is None
    assert found.after.side is not None
    assert found.notes == ()
    assert render(found, form="text").startswith("after   ")


def test_the_page_names_both_sides_and_their_scores() -> None:
    assert WELL.audit is not None
    later = replace(RIGHT, value=0.75, loss=0.5)
    page = read(render(scored(RIGHT, later), form="html"))
    tables = {x.attributes["aria-label"]: x.rows() for x in page.every("table")}

    # 1.96 · √((0.5·0.5 + 0.75·0.25) / 100) = 0.1296
    assert tables["Accuracy and loss"] == [
        ["", "before", "after", "change"],
        ["accuracy", "50.0 %", "75.0 %", "+25.0 points ± 13.0"],
        ["loss, nll", "1", "0.5", "−0.5"],
    ]
    assert ["side", "a", "b"] in tables["What is compared"]
    lead = page.one("p", "lead").text
    assert lead.startswith("Accuracy 50.0 % before, 75.0 % after. ")
    heads = [x.text for x in page.every("h2")]
    assert heads.index("Accuracy and loss") < heads.index("Before and after")


@pytest.mark.parametrize("both", [(RIGHT, None), (None, RIGHT), (None, None)])
def test_a_side_without_a_score_leaves_no_table(both) -> None:
    found = scored(*both)

    assert found.gain is None
    for form in ("text", "html"):
        assert "ccuracy" not in render(found, form=form)


def test_other_metrics_and_other_losses_have_no_change() -> None:
    real = Score(metric="R²", value=0.5, loss=1.0, loss_name="mse", samples=9)

    assert scored(RIGHT, real).gain is None
    other = scored(RIGHT, replace(RIGHT, metric="R²"))
    assert other.gain is not None
    assert (other.gain.metric, other.gain.loss) == (None, 0.0)


def test_scores_on_other_samples_say_so() -> None:
    found = scored(replace(RIGHT, on="x"), replace(RIGHT, samples=25, on="y"))

    assert found.notes == (
        "scored on different samples: 100 samples (x) before, 25 samples (y) after",
    )
    assert found.gain is not None
    # 1.96 · √(0.25/100 + 0.25/25) = 0.2191
    assert found.gain.uncertainty == pytest.approx(0.2191, abs=1e-4)


def test_half_widths_follow_the_binomial() -> None:
    # Certain answers have no variance; 0.5 on one sample has 0.25.
    assert accuracies_apart((0.0, 10), (1.0, 10)) == 0.0
    assert accuracies_apart((0.5, 1), (1.0, 5)) == pytest.approx(1.96 * 0.5)


def test_a_training_without_validation_has_no_score() -> None:
    done = training()
    bare = [replace(e, metric=None, valid_loss=None) for e in done.run.epochs]
    before, after = of_training(done)

    assert before is not None
    assert after is not None
    assert (before.value, after.value) == (0.0, 0.8)
    assert (before.epoch, after.epoch, after.samples) == (0, 4, 100)
    none = replace(done, run=replace(done.run, epochs=tuple(bare)))
    assert of_training(none) == (None, None)
    assert of_training(replace(done, run=replace(done.run, epochs=()))) == (None, None)


def test_a_repair_has_the_score_of_the_weights_that_it_keeps() -> None:
    done = judged(proofs({"treatment": GOOD, "sweep": FAIR, "random": POOR}))
    before, after = of_repair(done)

    assert done.status == "repaired"
    assert before is not None
    assert after is not None
    # The best of the three proofs is kept, not their mean.
    assert (before.value, after.value) == (0.0, 0.93)
    assert after.samples == done.judged
    nothing = judged(proofs({"treatment": POOR, "sweep": POOR, "random": POOR}))
    assert of_repair(nothing)[1] is None
    loss = of_repair(replace(done, metric="loss", base=-2.5))[0]
    assert loss is not None
    assert (loss.metric, loss.value, loss.loss) == ("", None, 2.5)


def test_nothing_hostile_reaches_text_or_page() -> None:
    evil = f"\x1b[31m{NASTY}"
    after = changed(
        WELL,
        target={"spec": evil, "architecture": evil},
        data={"spec": evil, "loss": evil},
    )
    score = replace(RIGHT, loss_name=evil, on=evil)
    known = (Known(name=evil, score=score), Known(name="b", score=score, unscored=evil))
    found = compare(SICK, after, known=known)

    assert "\x1b" not in render(found, form="text")
    page = render(found, form="html")
    assert not list(read(page).every("script"))
    assert "\x1b" not in page
