"""The terminal report: goldens that obey laws, and names that cannot break out."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgaudit.errors import CannotLoad
from vgaudit.flow import NotMeasured, Source
from vgaudit.judge import Policy, failed, judge
from vgaudit.reports.look import BLOCKS, Look, ascii_only, bar, binned, heights
from vgaudit.reports.text import render
from vgaudit.rules.examples import activation, around, chain, having, layer, loaded
from vgaudit.rules.wording import decades

LOST = (-9.6, -8.8, -7.7, -6.9, -5.5, -4.4, -3.1, -2.0, -1.0, 0.0)


def sick():
    audit = layer(chain(LOST), "layers.0", source=Source(file="/a/mymodel.py", line=42))
    audit = activation(audit, "layers.5", saturated_low=0.3, saturated_high=0.5)
    return having(
        audit,
        not_measured=(NotMeasured(path="rnn", reason="runs inside one fused kernel"),),
        notes=("dropout was switched off",),
    )


REPORTS = {
    "sick": judge(sick()),
    "healthy": judge(chain()),
    "warned": judge(chain((-2.5, -2.0, -1.5, -1.0, -0.5, 0.0))),
    "inconclusive": judge(having(chain(), mode="eval", uncalibrated=("bn1", "bn2"))),
    "error": failed(CannotLoad("model.pt: empty file", hint="download it again")),
}


@pytest.mark.parametrize("name", REPORTS)
def test_goldens(name: str, golden) -> None:
    golden(f"{name}.txt", render(REPORTS[name]))


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("verbose", [False, True])
def test_every_report_obeys_the_laws(name: str, verbose: bool) -> None:
    report = REPORTS[name]
    text = render(report, Look(verbose=verbose))
    words = " ".join(text.split())

    assert all(len(line) <= 80 for line in text.splitlines())
    assert not any(line != line.rstrip() for line in text.splitlines())
    assert report.status.upper() in text
    assert f"exit {report.exit_code}" in text
    heads = re.findall(r"^  (?:ERROR|WARNING|INFO) ", text, re.M)
    assert len(report.findings) == len(heads)
    for finding in report.findings:
        assert f"{finding.code} {finding.name}" in text
        assert finding.message in words
    if report.audit:
        counts = [report.count("error"), report.count("warning"), report.count("info")]
        assert counts == [
            int(n) for n in re.findall(r"(\d+) (?:error|warning|info)", text)[-3:]
        ]


def test_the_profile_has_a_bar_for_each_layer() -> None:
    (profile,) = re.findall(f"depth profile +([{BLOCKS}]+)", render(REPORTS["sick"]))

    assert len(LOST) == len(profile)
    assert sorted(profile) == list(profile)
    assert (BLOCKS[0], BLOCKS[-1]) == (profile[0], profile[-1])


def test_the_bars_of_the_budget_are_their_shares() -> None:
    text = render(REPORTS["sick"])
    rows = re.findall(r"(█*)(░*) +(\d+) %", text)

    assert [60, 40] == [int(percent) for _, _, percent in rows[:2]]
    for filled, empty, percent in rows[:2]:
        assert len(filled) == pytest.approx(
            int(percent) / 100 * len(filled + empty), abs=0.5
        )


@pytest.mark.parametrize("status", ["sick", "healthy"])
def test_colour_changes_nothing_but_colour(status: str) -> None:
    plain = render(REPORTS[status])
    coloured = render(REPORTS[status], Look(color=True))

    assert "\x1b[" in coloured
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert plain == "\n".join(line.rstrip() for line in stripped.split("\n"))


@pytest.mark.parametrize("name", REPORTS)
def test_ascii_is_ascii(name: str) -> None:
    text = render(REPORTS[name], Look(unicode=False, verbose=True))

    assert text.isascii()
    assert "\\u" not in text


@pytest.mark.parametrize(
    "name",
    [
        "[red]x[/red]",
        "[link=file:///etc/passwd]x[/link]",
        "\x1b[2J\x1b]0;title\x07",
        "a\r\nb\n::error::c",
        "\u202egnp.exe",
        pytest.param("x" * 100_000, id="long"),
        "\udcff\x00",
        ":smiley:",
    ],
)
def test_hostile_names_are_shown_as_text(name: str) -> None:
    audit = chain(LOST)
    renamed = (
        replace(item, path=item.path.replace("layers", name))
        for item in audit.flow.layers
    )
    audit = having(audit, layers=tuple(renamed))
    audit = loaded(audit, spec=name, architecture=name, notes=(name,))
    text = render(judge(audit), Look(verbose=True))

    assert all(ch.isprintable() or ch == "\n" for ch in text)
    assert "\x1b" not in text
    assert len(text) < 30_000
    if name.isprintable() and len(name) < 100:
        assert name in text


def test_thousands_of_layers_are_cut_to_the_worst() -> None:
    depth = 2_000
    audit = chain([-12 * (1 - i / depth) for i in range(depth)])
    saturated = tuple(_saturated(item) for item in audit.flow.layers)
    audit = having(audit, layers=saturated)
    report = judge(audit)
    text = render(report)

    assert len(report.findings) > 1_900
    assert len(text.splitlines()) < 40
    more = sum(finding.cause is None for finding in report.findings) - 20
    assert f"… and {more:,} more findings: --report json=PATH lists them all" in text


def _saturated(item):
    if item.activation is None:
        return item
    return replace(item, activation=replace(item.activation, saturated_high=0.9))


def test_findings_that_differ_in_place_alone_are_told_together() -> None:
    audit = chain()
    for index in (1, 3, 5, 7, 9):
        audit = activation(audit, f"layers.{index}", saturated_high=0.9)
    report = judge(audit)
    text = render(report)

    assert 5 == len(report.findings)
    assert 2 == text.count("91 % of the sigmoid")
    assert "VG301 saturated-activation  at 3 further places" in text
    assert "layers.5, layers.7, layers.9" in text
    assert 5 == render(report, Look(verbose=True)).count("91 % of the sigmoid")


def test_where_skips_leave_few_layers_the_profile_follows_the_trunk() -> None:
    audit = chain()
    layers = tuple(replace(item, trunk=item.order == 0) for item in audit.flow.layers)
    text = render(judge(having(audit, layers=layers)))
    (profile,) = re.findall(f"depth profile +([{BLOCKS}]+)", text)

    assert len(audit.flow.trunk) + 1 == len(profile)


def test_top_cuts_the_findings() -> None:
    text = render(REPORTS["sick"], Look(top=1))

    assert "VG101" in text
    assert "… and 1 more finding" in text


def test_width_is_kept() -> None:
    for width in (40, 60, 100, 120):
        lines = render(REPORTS["sick"], Look(width=width, verbose=True)).splitlines()
        assert max(map(len, lines)) <= width


# --- the drawing ------------------------------------------------------------------

DECADES = st.lists(
    st.floats(-300, 300) | st.sampled_from([math.inf, -math.inf, math.nan]), min_size=1
)


@given(DECADES)
def test_heights_keep_the_order(values) -> None:
    found = heights(values)

    assert all(0 <= height < len(BLOCKS) for height in found)
    pairs = sorted(
        (v, h) for v, h in zip(values, found, strict=True) if not math.isnan(v)
    )
    assert [h for _, h in pairs] == sorted(h for _, h in pairs)


def test_a_healthy_profile_is_flat_and_high() -> None:
    assert min(heights([-0.9, -0.7, -0.5, -0.4, -0.2, 0.0])) >= 5


@given(st.lists(st.floats(-20, 0), min_size=1, max_size=500), st.integers(1, 80))
def test_bins_keep_the_lowest(values, most) -> None:
    found = binned(values, most)

    assert len(found) == min(len(values), most)
    assert min(values) == min(found)


@given(st.floats(-1, 2))
def test_bars_have_one_width(share) -> None:
    assert 20 == len(bar(share))


def test_ascii_only_spells_what_it_has_no_mark_for() -> None:
    assert "-9.6 ... 0 \\u65e5" == ascii_only("−9.6 … 0 日")


def test_a_policy_s_command_is_no_part_of_the_text() -> None:
    assert render(judge(chain(), Policy(command="vgaudit scan x"))) == render(
        judge(chain())
    )


def test_the_budget_of_a_net_that_loses_little_is_one_sentence() -> None:
    gains = {"branches": 3.7, "activation": -1.4, "weights": -0.2, "merge": 0.04}
    (first, *_) = chain().flow.trunk
    steps = tuple(
        replace(first, name=cause, layer=None, cause=cause, gain=around(value))
        for cause, value in gains.items()
    )
    audit = having(chain(), trunk=steps, attenuation=around(sum(gains.values())))

    said = " ".join(render(judge(audit, Policy())).split())
    assert (
        "budget blocks with branches +3.7, activation slopes −1.4, weights −0.2: "
        "together +2.1 decades" in said
    )


def test_nothing_has_no_sign() -> None:
    assert ["0.0", "0.0", "−0.1", "9.6"] == [
        decades(value) for value in (-0.01, 0.0, -0.06, 9.6)
    ]
