"""Pages of comparisons, conversions and trainings, and the commands that write them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.reports_html.reading import number, read
from vgaudit.compare import Comparison, compare
from vgaudit.conversion import Conversion, ConvertOptions, Edit, Refusal
from vgaudit.findings import Finding, Level
from vgaudit.judge import judge
from vgaudit.reports import comparison as words
from vgaudit.reports import html
from vgaudit.reports.json import render as to_json
from vgaudit.retraining import (
    Against,
    Epoch,
    LayerGradient,
    Retraining,
    RetrainOptions,
    Run,
    Split,
)
from vgaudit.rules.examples import chain

SICK = judge(chain((-9.6, -8.0, -6.0, -4.0, -2.0, 0.0)))
WELL = judge(chain())
FOUND = compare(SICK, WELL)
NASTY = "</td><script>x</script>"


def table(page, label):
    return next(
        x.rows() for x in page.every("table") if x.attributes["aria-label"] == label
    )


def conversion() -> Conversion:
    return Conversion(
        options=ConvertOptions(to="ar"),
        edits=(Edit(path=NASTY, kind="Linear", change="L = 4"),),
        refusals=(Refusal(path="gate", kind="sigmoid", reason=NASTY),),
        max_abs_diff=0.25,
        output_scale=1.5,
        preserved=False,
        before=SICK.audit,
        after=WELL.audit,
        written=("out.safetensors",),
        notes=(NASTY,),
    )


def run(name: str, rate: float) -> Run:
    epochs = tuple(
        Epoch(
            number=i,
            steps=10 * i,
            train_loss=None if i == 0 else 2.0 - rate * i,
            valid_loss=2.1 - rate * i,
            metric=rate * i,
            lr=0.1,
            seconds=1.0,
            attenuation=-9.6 + i,
            layers=(LayerGradient(layer="a", rms=1.0, relative=-1.0, to_weight=0.1),),
        )
        for i in range(5)
    )
    return Run(name=name, epochs=epochs, best=4)


def training() -> Retraining:
    return Retraining(
        options=RetrainOptions(method="sdagd"),
        metric="accuracy",
        loss="cross-entropy",
        split=Split(train=900, valid=100, how="10 % of them, held out by seed 0"),
        run=run("sdagd", 0.2),
        controls=(run(NASTY, 0.1),),
        against=(
            Against(control="adam", outcome="better", difference=0.4, uncertainty=0.05),
        ),
        before=SICK.audit,
        after=WELL.audit,
    )


PAGES = {
    "comparison": lambda: html.compared(FOUND, SICK, WELL),
    "bare comparison": lambda: html.compared(FOUND),
    "conversion": lambda: html.converted(conversion(), FOUND),
    "bare conversion": lambda: html.converted(replace(conversion(), before=None)),
    "training": lambda: html.retrained(training(), FOUND),
    "interrupted training": lambda: html.retrained(
        replace(training(), run=Run(name="x", epochs=(), best=0), controls=())
    ),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_change_is_one_safe_page(name) -> None:
    made = PAGES[name]()
    for text in (made.document(), made.fragment()):
        page = read(text)

        assert not list(page.every("script"))
        assert 1 == len(list(page.every("h1")))
        assert len(text.encode()) <= 300 * 1024


def test_a_comparison_puts_both_sides_beside_each_other() -> None:
    page = read(html.compared(FOUND, SICK, WELL).document())
    rows = table(page, "Before and after")
    profiles = table(page, "Depth profile before and after")
    pair = page.one("div", "pair")

    # The sick chain has one error, VG101; the well one has no finding.
    said = "Healthier: 1 error gone; 9.6 decades lost before, 0.9 after."
    assert said == page.one("h1").text
    assert ["status", "fail", "pass"] == rows[1]
    assert ["attenuation, decades", "−9.60", "−0.90"] == rows[2]
    assert ["before", "after"] == [x.text for x in pair.every("h3")]
    assert [-9.6, -0.9] == [number(x) for x in profiles[1][1:]]
    assert [0.0, 0.0] == [number(x) for x in profiles[-1][1:]]
    gone = [x.text for x in page.every("h2")]
    assert "Findings that are gone" in gone
    assert "New findings" not in gone


def test_a_conversion_says_what_was_and_what_was_not_changed() -> None:
    page = read(html.converted(conversion(), FOUND).document())

    assert [NASTY, "Linear", "L = 4"] == table(page, "Edits")[1]
    refused = table(page, "Left as they were (VG701)")[1]
    assert ["gate", "sigmoid", "–", NASTY] == refused
    lead = page.one("p", "lead").text
    assert "1 edit, 1 activation left alone." in lead
    assert "changed by up to 0.25, where the largest was 1.5" in lead


def test_a_training_has_its_curves_its_heatmap_and_its_controls() -> None:
    page = read(html.retrained(training(), FOUND).document())
    headings = [x.text for x in page.every("h3")]
    against = table(page, "The treatment against each control")

    assert "Learning curves" in headings
    assert "Layers over epochs: sdagd" in headings
    assert ["adam", "better", "40.0", "5.0", "100"] == against[1]
    assert 3 == len(list(page.every("div", "panel")))
    # Both runs are in every panel.
    for panel in page.every("div", "panel"):
        assert 2 == len(list(panel.every("path", "line")))


@pytest.mark.parametrize("name", ["comparison", "conversion", "training"])
def test_the_limits_that_were_judged_by_are_drawn(name) -> None:
    page = read(PAGES[name]().document())
    profiles = page.one("figure", "before-and-after")

    value = FOUND.thresholds["vanishing-gradient.sgd_error"]
    (words,) = {x.text for x in profiles.every("text", "limit-error")}
    assert value == number(words.split()[2])
    assert 1 == len(list(profiles.every("rect", "beyond")))


def test_the_limit_stands_in_the_curve_of_the_trunk_alone() -> None:
    page = read(html.retrained(training(), FOUND).document())
    panels = {x.one("h4").text: x for x in page.every("div", "panel")}

    marked = {
        title: [x.text for x in panel.every("text", "words")]
        for title, panel in panels.items()
    }
    assert ["loss", "accuracy"] == [title for title in marked if not marked[title]]
    assert marked["trunk, decades"][0].startswith("error below")


def test_words_and_pages_come_from_one_function() -> None:
    page = words.render(FOUND, form="html", reports=(SICK, WELL))

    assert html.compared(FOUND, SICK, WELL).document() == page
    assert html.converted(conversion(), FOUND).document() == words.render_conversion(
        conversion(), FOUND, form="html"
    )


def test_comparisons_show_themselves_in_a_notebook() -> None:
    assert "Healthier" in read(FOUND._repr_html_()).one("h1").text


def test_what_the_python_api_returns_shows_itself_in_a_notebook() -> None:
    from torch import nn

    from vgaudit.outcome import Converted, Retrained

    converted = Converted(nn.Identity(), conversion(), FOUND)
    retrained = Retrained(nn.Identity(), training(), FOUND)

    assert html.converted(conversion(), FOUND).fragment() == converted._repr_html_()
    assert html.retrained(training(), FOUND).fragment() == retrained._repr_html_()


@pytest.fixture
def files(tmp_path):
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    before.write_text(to_json(SICK))
    after.write_text(to_json(WELL))
    return str(before), str(after)


def test_compare_writes_html(cli, files, tmp_path) -> None:
    place = tmp_path / "out.html"
    outcome = cli("compare", *files, "--report", f"html={place}")

    assert 0 == outcome.code
    assert "better" in outcome.out
    assert read(place.read_text(encoding="utf-8")).one("div", "pair")


def test_compare_writes_no_file_over_an_input(cli, files) -> None:
    outcome = cli("compare", *files, "--report", f"html={files[0]}", "--force")

    assert 2 != outcome.code != 0
    assert "is an input of this command" in outcome.err


def test_formats_that_know_one_scan_alone_are_refused(cli, files) -> None:
    outcome = cli("compare", *files, "--format", "csv")

    assert 2 == outcome.code
    assert "shows one scan, and no change" in outcome.err


def test_an_archived_report_becomes_a_page(cli, files) -> None:
    outcome = cli("report", files[0], "--to", "html")

    assert 0 == outcome.code
    assert html.render(SICK) == outcome.out


def found_levels(code: str, *levels: Level) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            code=f"{code}{i}",
            name="x",
            level=level,
            message="…",
            layer=f"{code}{i}",
            layers=(f"{code}{i}",),
        )
        for i, level in enumerate(levels)
    )


def between(
    before: tuple[Finding, ...],
    after: tuple[Finding, ...],
    *,
    decades: tuple[float | None, float | None] = (-1.1, -0.8),
) -> Comparison:
    """A comparison of two scans with findings and attenuations of one's own."""
    found = compare(replace(WELL, findings=before), replace(WELL, findings=after))
    old, new = decades
    return replace(
        found,
        before=replace(found.before, attenuation=old),
        after=replace(found.after, attenuation=new),
    )


ERROR, WARNING = found_levels("E", "error"), found_levels("W", "warning")
LOST = "1.1 decades lost before, 0.8 after."
HEADLINES = [
    (
        between((), WARNING),
        "Worse: 1 new warning, though less of the gradient is lost: 1.1 decades "
        "before, 0.8 after.",
    ),
    (
        between((), WARNING, decades=(-0.8, -1.1)),
        "Worse: 1 new warning; 0.8 decades lost before, 1.1 after.",
    ),
    # What one decimal cannot show is no contradiction.
    (
        between((), WARNING, decades=(-0.84, -0.82)),
        "Worse: 1 new warning; 0.8 decades lost before, 0.8 after.",
    ),
    (
        between(ERROR, (), decades=(-0.8, -1.1)),
        "Healthier: 1 error gone, though more of the gradient is lost: 0.8 decades "
        "before, 1.1 after.",
    ),
    (between(ERROR, (), decades=(-1.1, None)), "Healthier: 1 error gone."),
    (
        between(ERROR, (), decades=(1.0, 2.5)),
        "Healthier: 1 error gone, though the gradient changes more over depth: "
        "1.0 decades before, 2.5 after.",
    ),
    (
        between(found_levels("K", "info"), found_levels("K", "error")),
        "Worse: 1 finding rose from info to error, though less of the gradient is "
        "lost: 1.1 decades before, 0.8 after.",
    ),
    (
        between(found_levels("K", "error", "error"), found_levels("K", "info", "info")),
        f"Healthier: 2 findings fell from error to info; {LOST}",
    ),
    (
        between(ERROR, found_levels("N", "error", "error", "warning", "info")),
        "Some better, some worse: 2 new errors, 1 new warning, 1 error gone; " + LOST,
    ),
    # A new error decides; that warnings went is said after it.
    (
        between(WARNING, ERROR, decades=(None, None)),
        "Worse: 1 new error, 1 warning gone.",
    ),
    (
        between(ERROR, WARNING, decades=(None, None)),
        "Healthier: 1 error gone, 1 new warning.",
    ),
    (between(WARNING, WARNING), f"The same findings: {LOST}"),
    (between((), found_levels("N", "info")), f"The same findings: {LOST}"),
]


@pytest.mark.parametrize(("found", "said"), HEADLINES)
def test_the_headline_says_why_and_where_figures_go_the_other_way(found, said) -> None:
    assert read(html.compared(found).document()).one("h1").text == said


def test_a_training_begins_with_what_was_learned() -> None:
    def lead(done: Retraining) -> str:
        return read(html.retrained(done, FOUND).document()).one("p", "lead").text

    # Epochs 0 and 4 at a rate of 0.2: accuracy 0 and 0.8, loss 2.1 and 2.1 − 0.8.
    assert lead(training()).startswith(
        "Accuracy 0.0 % before, 80.0 % after. 4 epochs, 40 steps on 900 samples; "
        "epoch 4 was kept. 10 % of them, held out by seed 0."
    )
    without = replace(training(), metric="")
    assert lead(without).startswith("Validation loss 2.1 before, 1.3 after. 4 epochs")
    blind = run("adam", 0.2)
    unknown = tuple(replace(x, metric=None, valid_loss=None) for x in blind.epochs)
    for metric in ("accuracy", ""):
        done = replace(training(), metric=metric, run=replace(blind, epochs=unknown))
        assert lead(done).startswith("4 epochs, 40 steps")
