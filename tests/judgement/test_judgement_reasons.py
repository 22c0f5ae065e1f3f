"""Every way out says why it fits: by a figure of the finding that it belongs to."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from vgaudit.findings import Finding, Fix, Report
from vgaudit.flow import Audit, Cause, GateFlow, TrunkStep
from vgaudit.judge import Policy, judge
from vgaudit.reports import markdown, text
from vgaudit.rules import RULES, Rule, Training
from vgaudit.rules.examples import activation, around, chain, fed, having, layer
from vgaudit.rules.rule import GateRule
from vgaudit.rules.selection import PAGES, find
from vgaudit.rules.through_time import reader

SAID = [(rule, example) for rule in RULES for example in rule.FIRES]
GATES = [
    (page, example)
    for page in PAGES
    if isinstance(page, GateRule)
    for example in page.FIRES
]


def told(finding: Finding) -> Fix:
    assert finding.fix is not None, finding
    return finding.fix


def fix_of(code: str, audit: Audit) -> Fix:
    (rule,) = find(code)
    assert isinstance(rule, Rule)
    (finding, *_) = rule.check(audit, Training())
    return told(finding)


@pytest.mark.parametrize(("rule", "example"), SAID)
def test_a_finding_that_counts_names_a_way_out_and_a_figure(rule, example) -> None:
    for finding in rule.check(example.audit, example.training):
        if finding.level == "info" and finding.fix is None:
            continue
        fix = told(finding)
        assert fix.text
        assert re.search(r"\d", fix.reason), fix.reason
        assert fix.text.isprintable()
        assert fix.reason.isprintable()
        # One clause, which follows “because”.
        assert not fix.reason.endswith(".")
        assert len(fix.text) + len(fix.reason) < 260
        if fix.command.startswith("vgaudit explain"):
            assert f"vgaudit explain {finding.code}" == fix.command


@pytest.mark.parametrize(("rule", "example"), GATES)
def test_so_do_the_findings_of_the_gate(rule, example) -> None:
    for finding in rule.decide(example.report, example.terms):
        assert re.search(r"\d", told(finding).reason)


# ----------------------------------------------- the reason follows the figures


def paid(*causes: tuple[Cause, float]) -> Audit:
    """Returns a net whose trunk gains or loses by these causes, in decades."""
    steps = tuple(
        TrunkStep(
            name=f"layers.{place}",
            layer=f"layers.{place}",
            op="op",
            cause=cause,
            depth=place,
            attenuation=around(0.0),
            gain=around(value),
        )
        for place, (cause, value) in enumerate(causes)
    )
    total = sum(value for _, value in causes)
    return having(chain((total, 0.0)), trunk=steps, attenuation=around(total))


@pytest.mark.parametrize(
    ("audit", "command", "words", "reason"),
    [
        (
            paid(("weights", 1.5), ("weights", 1.5), ("normalization", 1.0)),
            "vgaudit convert model.safetensors --to rescale",
            "rescale the weights",
            "weights make 75 % of the growth, a factor of 31.6 in each of 2 steps",
        ),
        (
            paid(("weights", 0.5), ("normalization", 2.0), ("normalization", 1.5)),
            "vgaudit explain VG201",
            "larger weights in front of the norm",
            "normalization make 88 % of the growth, 1.8 decades a step",
        ),
        (
            paid(*[("branches", 0.4)] * 9),
            "vgaudit explain VG201",
            "scale each branch down",
            "blocks with branches make 100 % of the growth, 0.4 decades a step",
        ),
    ],
)
def test_growth_is_treated_where_it_comes_from(audit, command, words, reason) -> None:
    fix = fix_of("VG201", audit)

    assert (command, reason) == (fix.command, fix.reason)
    assert fix.text.startswith(words)
    assert "clip the gradient" in fix.text


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        ("attention", "a skip around attention"),
        ("branches", "a skip around each block"),
        ("normalization", "less signal in front of the norm"),
        ("pooling", "pool over fewer values"),
        ("scale", "leave the constant factor out"),
        ("merge", "normalise before each activation"),
    ],
)
def test_loss_elsewhere_is_treated_there(cause: Cause, words: str) -> None:
    fix = fix_of("VG101", paid((cause, -5.0), ("weights", -1.0)))

    assert fix.text.startswith(words)
    assert "make 83 % of the loss, −5.0 decades a step" in fix.reason


def test_a_steady_decay_has_the_treatment_of_its_loss() -> None:
    lost = tuple(-0.35 * place for place in range(9, -1, -1))
    assert fix_of("VG102", chain(lost)).command.endswith("--to adact")
    weights = tuple(replace(s, cause="weights") for s in chain(lost).flow.trunk)
    fix = fix_of("VG102", having(chain(lost), trunk=weights))
    assert fix.command.endswith("--to rescale")
    assert fix.reason.startswith("weights make 100 % of the loss")


def railed(**fields: object) -> Audit:
    return activation(
        chain(), "layers.5", saturated_low=0.5, saturated_high=0.45, **fields
    )


def test_saturation_is_treated_by_what_drives_it() -> None:
    (stats,) = [x.activation for x in railed().flow.layers if x.path == "layers.5"]
    wide = replace(stats.input, std=12.0)
    shifted = replace(stats.input, mean=-9.0, std=2.0)

    shallow = fix_of("VG301", railed(input=wide))
    assert shallow.command.endswith("--to ar")
    assert shallow.reason.startswith("its input deviates by 12, and it takes ")
    deep = fix_of("VG301", having(railed(input=wide), weight_layers=11))
    assert deep.command.endswith("--to rescale")
    bias = fix_of("VG301", railed(input=shifted))
    assert bias.text.startswith("a smaller bias")
    assert "mean −9 at a deviation of 2" in bias.reason
    last = fix_of("VG301", layer(railed(), "layers.5", depth=0))
    assert last.text.startswith("the logits")


def test_the_share_of_a_saturated_layer_is_that_of_the_budget() -> None:
    audit = railed()
    own = sum(s.gain.value for s in audit.flow.trunk if s.layer == "layers.5")
    whole = sum(s.gain.value for s in audit.flow.trunk if s.gain.value < 0)
    said = re.search(r"takes ([\d.]+) % of", fix_of("VG301", audit).reason)

    assert said is not None
    assert 100 * own / whole == pytest.approx(float(said[1]), abs=0.5)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.95, 0.0, "a larger bias"),
        (0.0, 0.95, "a smaller bias"),
        (0.5, 0.45, "smaller weights"),
    ],
)
def test_a_gate_is_moved_off_its_rail(low: float, high: float, words: str) -> None:
    gate = GateFlow(
        name="forget", kind="sigmoid", mean=0.5, saturated_low=low, saturated_high=high
    )
    audit = reader(-0.1)
    (cell,) = audit.flow.recurrences
    fix = fix_of("VG301", having(audit, recurrences=(replace(cell, gates=(gate,)),)))

    assert fix.text.startswith(words)


def test_memory_is_explained_by_the_gate_that_keeps_it() -> None:
    gate = GateFlow(
        name="forget", kind="sigmoid", mean=0.31, saturated_low=0, saturated_high=0
    )
    audit = reader(-0.5)
    (cell,) = audit.flow.recurrences
    fix = fix_of("VG108", having(audit, recurrences=(replace(cell, gates=(gate,)),)))

    assert "a step passes 32 % of the gradient on, its forget gate open by 31 %" == (
        fix.reason
    )


def test_zeros_are_put_down_to_what_stands_in_the_way() -> None:
    audit = chain(kind="relu")
    starved = layer(audit, "layers.0", attenuation=None, zero_gradient=True)
    dead = activation(starved, "layers.3", units=64, dead_units=63)
    railed = activation(
        layer(chain(), "layers.0", attenuation=None, zero_gradient=True),
        "layers.3",
        saturated_low=0.99,
        saturated_high=0.0,
    )

    assert fix_of("VG103", starved).text == (
        "look between them and layers.2 for a multiplication by zero"
    )
    assert "layers.3" in fix_of("VG103", dead).text
    assert "63 of its 64 units" in fix_of("VG103", dead).reason
    assert "99 % of its values are on the rails" == fix_of("VG103", railed).reason


def test_dead_units_are_put_down_to_their_bias_or_their_weights() -> None:
    audit = activation(chain(kind="relu"), "layers.5", units=64, dead_units=64)
    (stats,) = [x.activation for x in audit.flow.layers if x.path == "layers.5"]
    low = activation(audit, "layers.5", input=replace(stats.input, mean=-3.0))

    assert fix_of("VG302", low).text.startswith("a less negative bias")
    assert fix_of("VG302", audit).text.startswith("a leaky activation")


def test_a_growing_signal_is_put_down_to_each_layer_on_its_way() -> None:
    audit = chain(kind="relu")
    for place, size in ((1, 2.0), (3, 200.0), (5, 2e4), (7, 2e6)):
        (stats,) = [
            x.activation for x in audit.flow.layers if x.path == f"layers.{place}"
        ]
        wide = replace(stats.input, std=size)
        audit = activation(audit, f"layers.{place}", input=wide)

    # layers.2, .4 and .6 lie between the first activation and the largest.
    reason = fix_of("VG203", audit).reason
    assert reason.startswith("each of 3 weight layers since the first activation")
    assert reason.endswith("multiplies the signal by 100")


def test_the_input_is_put_down_to_its_mean_or_its_size() -> None:
    real = fed(chain(), kind="real", spec="imagefolder:photos")
    far = fix_of("VG503", having(real, input_mean=120.0, input_std=60.0))
    wide = fix_of("VG503", having(real, input_mean=0.0, input_std=80.0))

    assert far.reason.startswith("its mean lies 2 deviations from 0")
    assert "80 times" in wide.reason


# --------------------------------------------------------------------- reports


def test_markdown_says_what_to_try_once() -> None:
    audit = railed()
    for path in ("layers.1", "layers.3"):
        audit = activation(audit, path, saturated_low=0.5, saturated_high=0.45)
    report: Report = judge(audit, Policy())
    said = markdown.render(report)

    tries = [line for line in said.splitlines() if line.startswith("- VG301")]
    assert 3 <= report.count("error")
    assert 1 == len(tries)
    assert "because its input deviates by 1" in tries[0]
    assert "--to ar" in tries[0].replace("\\", "")


def test_nothing_to_try_needs_no_lines() -> None:
    assert "What to try" not in markdown.render(judge(chain((0.0, 0.0)), Policy()))


def test_the_text_says_it_in_one_sentence() -> None:
    said = " ".join(text.render(judge(paid(("weights", 4.0)), Policy())).split())
    assert (
        "try: rescale the weights, or clip the gradient until they are, because "
        "weights make 100 % of the growth, a factor of 1e4 in each of 1 step "
        "(vgaudit convert model.safetensors --to rescale)" in said
    )
