"""First causes: what follows from what, by place and by the budget."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vgaudit.causes import FOLLOWS, grouped
from vgaudit.findings import Finding, Level
from vgaudit.flow import Audit, GateFlow
from vgaudit.judge import judge
from vgaudit.reports.json import parse, render
from vgaudit.reports.text import render as text_of
from vgaudit.rules import RULES
from vgaudit.rules.examples import activation, chain, having, layer
from vgaudit.rules.through_time import reader

LOST = (-9.6, -8.0, -6.0, -4.0, -2.0, 0.0)
RAILED = ("layers.1", "layers.3", "layers.5", "layers.7", "layers.9")


def railed(audit: Audit, *paths: str) -> Audit:
    for path in paths:
        audit = activation(audit, path, saturated_high=0.96)
    return audit


def found(audit: Audit, code: str) -> Finding:
    (finding,) = [f for f in judge(audit).findings if f.code == code]
    return finding


def by_weights(audit: Audit) -> Audit:
    """Returns the audit with all of its loss put down to the weights."""
    steps = tuple(replace(step, cause="weights") for step in audit.flow.trunk)
    return having(audit, trunk=steps)


def finding(code: str, *layers: str, level: Level = "error") -> Finding:
    place = layers[0] if layers else ""
    return Finding(
        code=code, name=code, level=level, message="m", layer=place, layers=layers
    )


def test_no_chain_of_causes_leads_back() -> None:
    known = {rule.code for rule in RULES}

    def below(code: str, seen: tuple[str, ...]) -> None:
        assert code not in seen, seen
        for cause, _ in FOLLOWS.get(code, ()):
            assert cause in known
            below(cause, (*seen, code))

    for effect in FOLLOWS:
        below(effect, ())


def test_a_gradient_lost_in_saturated_layers_follows_from_them() -> None:
    audit = railed(chain(LOST), *RAILED)
    report = judge(audit)

    (lost,) = [f for f in report.findings if f.code == "VG101"]
    assert lost.cause is not None
    assert lost.cause.code == "VG301"
    (first,) = [f for f in report.findings if f.consequences]
    assert first.link == lost.cause
    assert first.consequences == (lost.link,)
    # The layer that loses most of those that are saturated.
    gains = {s.layer: s.gain.value for s in audit.flow.trunk}
    assert gains[first.layer] == min(gains[path] for path in RAILED)


def test_a_saturated_layer_that_loses_little_is_no_cause() -> None:
    assert found(railed(chain(LOST), "layers.9"), "VG101").cause is None


def test_a_dead_layer_is_the_cause_of_zeros_below_it_and_not_above() -> None:
    dead = activation(chain(kind="relu"), "layers.5", dead_units=64, units=64)
    below = layer(dead, "layers.2", zero_gradient=True, attenuation=None)
    above = layer(dead, "layers.8", zero_gradient=True, attenuation=None)

    cause = found(below, "VG103").cause
    assert cause is not None
    assert (cause.code, cause.layer) == ("VG302", "layers.5")
    assert found(above, "VG103").cause is None


def test_shut_gates_are_the_cause_of_a_short_memory() -> None:
    audit = reader(-0.5)
    (cell,) = audit.flow.recurrences
    gate = GateFlow(
        name="forget", kind="sigmoid", mean=0.01, saturated_low=0.95, saturated_high=0.0
    )
    audit = having(audit, recurrences=(replace(cell, gates=(gate,)),))

    cause = found(audit, "VG108").cause
    assert cause is not None
    assert cause.layer == "cell forget"


def test_a_chain_of_causes_ends_at_the_first_one() -> None:
    given = [
        finding("VG503"),
        finding("VG203", "layers.1", level="warning"),
        finding("VG301", "layers.3"),
        finding("VG103", "layers.0"),
    ]
    blocking = [replace(f, value=0.99) for f in given]
    one, two, three, four = grouped(blocking, chain().flow)

    assert (one.cause, two.cause, three.cause, four.cause) == (None, *[one.link] * 3)
    assert one.consequences == (two.link, three.link, four.link)
    assert two.consequences == three.consequences == ()


def test_information_is_no_cause() -> None:
    unsure = finding("VG302", "layers.9", level="info")
    one, two = grouped(
        [replace(unsure, value=1.0), finding("VG103", "layers.0")], chain().flow
    )

    assert (one.consequences, two.cause) == ((), None)


def test_grouping_changes_no_verdict_and_no_fingerprint() -> None:
    audit = railed(chain(LOST), *RAILED)
    report = judge(audit)
    bare = [replace(f, cause=None, consequences=()) for f in report.findings]

    assert [f.fingerprint for f in bare] == [f.fingerprint for f in report.findings]
    assert parse(render(report)) == report


def test_the_text_says_what_follows_under_its_cause() -> None:
    audit = railed(chain(LOST), *RAILED)
    lines = text_of(judge(audit)).splitlines()

    (place,) = [i for i, line in enumerate(lines) if "so: ERROR VG101" in line]
    heads = [i for i, line in enumerate(lines) if line.startswith("  ERROR   VG301")]
    assert max(i for i in heads if i < place) + 8 > place
    assert not any(line.startswith("  ERROR   VG101") for line in lines)


# ---------------------------------------------------------------- treatments


@pytest.mark.parametrize(
    ("audit", "command", "reason"),
    [
        (chain(LOST), "--to adact", "activation slopes make 60 % of the loss"),
        (
            railed(chain(LOST), *RAILED),
            "--to ar",
            "97 % of its activations are saturated",
        ),
        (
            having(
                chain(LOST),
                trunk=tuple(
                    replace(s, cause="weights") for s in chain(LOST).flow.trunk
                ),
            ),
            "--to rescale",
            "weights make 100 % of the loss",
        ),
        (
            having(
                chain(LOST),
                trunk=tuple(
                    replace(s, cause="weights") for s in chain(LOST).flow.trunk
                ),
                output_variation=1e-6,
            ),
            "--to rescale",
            "the outputs hardly depend on the input",
        ),
    ],
)
def test_the_treatment_fits_where_the_gradient_went(
    audit: Audit, command: str, reason: str
) -> None:
    fix = found(audit, "VG101").fix

    assert fix is not None
    assert fix.command.endswith(command)
    assert fix.reason.startswith(reason)
