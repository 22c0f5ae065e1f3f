"""The page: one file, nothing that runs, nothing that leaves it, nothing too large."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from dataclasses import replace
from typing import get_args

import pytest

from tests.reports_html.reading import Element, number, read
from tests.reports_html.test_reports_html_charts import recurrence
from vgaudit.errors import CannotLoad
from vgaudit.findings import Finding, Fix
from vgaudit.flow import (
    Cause,
    DeepFlow,
    Exponents,
    Histogram,
    NotMeasured,
    ParameterPrecision,
    Source,
    StreamPoint,
)
from vgaudit.judge import failed, judge
from vgaudit.reports import REPORTS, SUITES, html, painting
from vgaudit.rules.examples import activation, chain, having, layer, loaded
from vgaudit.suite import Entry, Suite

LOST = (-9.6, -8.8, -7.7, -6.9, -5.5, -4.4, -3.1, -2.0, -1.0, 0.0)
LIMIT = 300 * 1024


def sick():
    audit = layer(chain(LOST), "layers.0", source=Source(file="/a/mymodel.py", line=42))
    audit = activation(audit, "layers.5", saturated_low=0.3, saturated_high=0.5)
    return having(
        audit,
        not_measured=(NotMeasured(path="rnn", reason="runs inside one fused kernel"),),
        notes=("dropout was switched off",),
    )


REPORT = {
    "sick": judge(sick()),
    "healthy": judge(chain()),
    "inconclusive": judge(having(chain(), mode="eval", uncalibrated=("bn1", "bn2"))),
    "error": failed(CannotLoad("model.pt: empty file", hint="download it again")),
}
EACH = pytest.mark.parametrize("name", REPORT)


def page_of(name: str) -> Element:
    return read(html.render(REPORT[name]))


def table(page: Element, label: str) -> list[list[str]]:
    found = [x for x in page.every("table") if x.attributes["aria-label"] == label]
    return found[0].rows()


@EACH
def test_a_page_is_one_whole_document(name) -> None:
    text = html.render(REPORT[name])
    page = read(text.removeprefix("<!doctype html>\n"))

    assert text.startswith("<!doctype html>\n")
    assert "en" == page.one("html").attributes["lang"]
    assert "utf-8" == next(page.every("meta")).attributes["charset"]
    assert page.one("head").one("title").text.startswith("vgaudit: ")
    assert 1 == len(list(page.every("h1")))
    assert 1 == len(list(page.every("main")))


@EACH
def test_nothing_in_a_page_runs_or_leaves_it(name) -> None:
    page = page_of(name)
    tags = {element.tag for element in page.every()}
    attributes = {key for element in page.every() for key in element.attributes}

    assert not tags & {
        "script",
        "iframe",
        "object",
        "embed",
        "link",
        "img",
        "base",
        "a",
    }
    assert not {key for key in attributes if key.startswith("on")}
    assert not attributes & {"style", "href", "src", "xlink:href", "action"}
    for sheet in page.every("style"):
        assert "url(" not in sheet.text
        assert "@import" not in sheet.text


@EACH
def test_the_policy_allows_the_page_its_own_style_alone(name) -> None:
    page = page_of(name)
    (policy,) = [
        x.attributes["content"]
        for x in page.every("meta")
        if x.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in (policy or "").split(";"))
    sheets = [hashlib.sha256(x.text.encode()).digest() for x in page.every("style")]
    digests = [f"'sha256-{base64.b64encode(sheet).decode()}'" for sheet in sheets]

    assert "'none'" == rules["default-src"]
    assert digests == rules["style-src"].split()
    assert {"default-src", "style-src", "base-uri", "form-action"} == set(rules)


@EACH
def test_the_verdict_comes_first(name) -> None:
    page, report = page_of(name), REPORT[name]
    verdict = page.one("div", "verdict")

    assert report.status == verdict.one("div", "status").text
    assert report.status in (verdict.one("div", "status").attributes["class"] or "")
    assert len(verdict.one("h1").text) > 10


def test_the_headline_of_an_error_tells_the_way_out() -> None:
    verdict = page_of("error").one("div", "verdict")

    assert "Model.pt: empty file." == verdict.one("h1").text
    assert "Download it again." == verdict.one("p").text


def test_every_finding_is_shown_with_its_figures() -> None:
    page, report = page_of("sick"), REPORT["sick"]
    shown = list(page.every("article", "finding"))

    assert [f.code for f in report.findings] == [
        next(x.every("code")).text for x in shown
    ]
    for finding, article in zip(report.findings, shown, strict=True):
        assert finding.message in article.text
        assert f"l-{finding.level}" in (article.attributes["class"] or "")
        assert all(line in article.text for line in finding.evidence)
        if finding.fix is not None:
            assert finding.fix.command in article.text


def test_what_follows_from_a_finding_stands_below_it() -> None:
    cause = Finding(
        code="VG301", name="saturated-activation", level="error", message="a", layer="x"
    )
    rest = tuple(
        Finding(
            code="VG101",
            name="vanishing-gradient",
            level="error",
            message=f"b{i}",
            layer=f"y{i}",
            cause=cause.link,
        )
        for i in range(10)
    )
    first = replace(cause, consequences=tuple(f.link for f in rest))
    page = read(html.render(replace(REPORT["sick"], findings=(first, *rest))))

    (article,) = page.every("article", "finding")
    assert "10 that follow from it" == article.one("summary").text
    assert 10 == len(list(article.one("details").every("li")))


def test_many_findings_of_one_rule_are_told_once() -> None:
    fix = Fix(command="vgaudit explain VG302", text="a leaky activation")
    found = tuple(
        Finding(
            code="VG302",
            name="dead-units",
            level="warning",
            message="m",
            layer=f"l{i}",
            fix=fix,
        )
        for i in range(20)
    )
    page = read(html.render(replace(REPORT["sick"], findings=found)))
    articles = list(page.every("article", "finding"))

    assert 3 == len(articles)
    assert "The same at 17 further places" == articles[-1].one("summary").text
    assert 17 == len(list(articles[-1].one("details").every("li")))


def test_the_tables_hold_the_figures_of_the_flow() -> None:
    page, flow = page_of("sick"), REPORT["sick"].audit.flow
    profile = table(page, "Depth profile")
    layers = table(page, "Layers")
    weighted = [x for x in flow.layers if x.weighted]

    assert ["at the input of", "decades", "from", "to"] == profile[0]
    assert pytest.approx(flow.trunk[0].attenuation.value, abs=0.005) == number(
        profile[-1][1]
    )
    assert [x.path for x in weighted] == [row[0] for row in layers[1:]]
    assert [x.attenuation.value for x in weighted] == pytest.approx(
        [number(row[3]) for row in layers[1:]], abs=0.005
    )
    assert "mymodel.py:42" == layers[1][2]


def test_every_picture_speaks_to_who_cannot_see_it() -> None:
    page = page_of("sick")
    pictures = [x for x in page.every("svg") if x.attributes.get("role") == "img"]

    assert len(pictures) >= 4
    for picture in pictures:
        first, second, *_ = picture.children
        assert "title" == first.tag
        assert "desc" == second.tag
        assert first.text
        assert second.text
    for chart in page.every("figure"):
        assert 1 == len(list(chart.every("table")))


def test_what_is_not_measured_is_said() -> None:
    text = page_of("sick").text

    assert "runs inside one fused kernel" in text
    assert "dropout was switched off" in text


def test_without_calibrated_statistics_no_transport_is_drawn() -> None:
    page = page_of("inconclusive")

    assert "Where the gradient goes" not in [x.text for x in page.every("h2")]


@pytest.mark.parametrize("kind", ["sigmoid", "relu"])
def test_five_hundred_layers_fit(kind) -> None:
    audit = chain([-0.25 * i for i in range(500)][::-1], kind=kind, spread=0.1)
    text = html.render(judge(audit))
    page = read(text)

    assert len(text.encode()) <= LIMIT
    assert 501 == len(table(page, "Layers"))
    assert len(table(page, "Gradient budget")) <= 49


def test_five_hundred_layers_with_all_deep_measurements_fit() -> None:
    audit = chain([-0.25 * i for i in range(500)][::-1], spread=0.1)
    sizes = Exponents(lowest=-60, counts=(100, 1, 30) * 14, zeros=0, nonfinite=0)
    precision = tuple(
        ParameterPrecision(
            name=f"encoder.backbone.layers.{i}.weight",
            elements=sizes.total,
            exponents=sizes,
            formats=(),
            loss_scale=1.0,
            updates=(),
        )
        for i in range(500)
    )
    stream = tuple(
        StreamPoint(
            layer=f"encoder.layers.{i}", size=1.0, variation=0.5, tokens=0.5, rank=9.0
        )
        for i in range(500)
    )
    deep = DeepFlow(precision=precision, stream=stream)
    recurrences = tuple(recurrence(-0.01, 1000) for _ in range(4))
    report = judge(having(audit, deep=deep, recurrences=recurrences))

    assert len(html.render(report).encode()) <= LIMIT


def test_five_thousand_layers_fit_too() -> None:
    audit = chain([-0.01 * i for i in range(5000)][::-1], spread=0.1)
    text = html.render(judge(audit))

    assert len(text.encode()) <= 1.2 * LIMIT
    assert "4,400 layers with more gradient" in text


HOSTILE = [
    "<script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "[red]\x1b[31m\n::error::x",
    "{{ 7*7 }}{% for %}",
    "‮evil",
    "\ud800",
    "</svg></title><script>",
    "x" * 100_000,
    "&lt;b&gt;",
]


BINS = Histogram(start=-1.0, width=1.0, counts=(1, 2), saturated=(1, 0), nonfinite=1)


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_names_cannot_break_out(name) -> None:
    audit = chain(LOST)
    layers = tuple(
        replace(
            item,
            path=name,
            type=name,
            source=Source(file=name, line=1),
            parameters=tuple(replace(p, name=name) for p in item.parameters),
            activation=None
            if item.activation is None
            else replace(item.activation, kind=name, histogram=BINS),
        )
        for item in audit.flow.layers
    )
    steps = tuple(replace(step, name=name, layer=name) for step in audit.flow.trunk)
    audit = having(audit, layers=layers, trunk=steps, notes=(name,))
    report = judge(
        loaded(audit, spec=name, architecture=name, format=name, sha256=name)
    )
    page = html.render(replace(report, command=name))
    tree = read(page)

    page.encode("utf-8")
    assert not list(tree.every("script"))
    assert not list(tree.every("img"))
    assert "49" not in tree.one("h1").text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f‪-‮⁦-⁩]", page)
    assert not re.search(r"^\s*::", page, re.M)
    assert len(page.encode()) <= LIMIT
    if name == "&lt;b&gt;":
        assert "&amp;lt;b" in page


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_figures_that_are_no_numbers_have_a_page(value) -> None:
    odd = replace(
        REPORT["healthy"].audit.flow.attenuation, value=value, lo=value, hi=value
    )
    audit = having(chain(), attenuation=odd)
    page = read(html.render(replace(REPORT["healthy"], audit=audit)))

    assert page.one("h1").text


@pytest.mark.parametrize("values", [(0.0,), (0.0, 0.0), (5.0, 2.0, 0.0)])
def test_nets_of_any_size_have_a_page(values) -> None:
    assert read(html.render(judge(chain(values)))).one("h1").text


def test_the_format_is_in_both_tables() -> None:
    report = REPORT["sick"]
    suite = Suite(
        entries=(
            Entry(name="good", report=REPORT["healthy"]),
            Entry(name="<bad>", report=report),
            Entry(name="broken", report=REPORT["error"]),
        ),
        command="vgaudit check",
    )
    page = read(SUITES["html"](suite))

    assert html.render(report) == REPORTS["html"](report)
    assert "1 of 3 targets passes." == next(page.every("h1")).text
    rows = table(page, "Targets")
    assert ["good", "<bad>", "broken"] == [row[0] for row in rows[1:]]
    assert ["0", "1", "3"] == [row[-1] for row in rows[1:]]
    assert ["<bad>", "broken", "good"] == [
        next(x.every("h2")).text for x in page.every("section", "target")
    ]


def test_a_report_shows_itself_in_a_notebook() -> None:
    shown = REPORT["sick"]._repr_html_()
    page = read(shown)
    sheet = page.one("style").text

    assert not list(page.every("script"))
    assert "Gradient lost" in page.one("div", "vgaudit").one("h1").text
    # Every rule of the style is below .vgaudit, so that it changes nothing else.
    rules = re.sub(r"@(media|container)[^{]*\{", "", sheet)
    selectors = re.findall(r"([^{}]+)\{[^{}]*\}", rules)
    assert len(selectors) > 100
    for selector in selectors:
        for part in re.split(r",(?![^(]*\))", selector):
            assert part.strip().startswith(".vgaudit"), part


def test_a_notebook_s_theme_outranks_the_system_s() -> None:
    sheet = read(REPORT["sick"]._repr_html_()).one("style").text
    light, dark = sheet.index('theme-light="true"'), sheet.index('theme-light="false"')

    assert sheet.count("--paper:") >= 4
    assert "--paper: #fdfdfc" in sheet[light:dark]
    assert "--paper: #14161a" in sheet[dark:]


@pytest.mark.parametrize("cause", get_args(Cause))
def test_every_cause_has_a_colour_by_day_and_by_night(cause: str) -> None:
    page = html.render(REPORT["sick"])
    found = re.findall(rf"--{cause}: (#[0-9a-f]{{6}});", page)
    assert len(found) == 2
    assert painting.COLOURS[cause] == found[0]  # type: ignore[index]
    assert f"fill: var(--{cause})" in page
