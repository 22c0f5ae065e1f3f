"""Every rule against its own examples, and the laws that bind them all."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import pytest

from vgaudit import rules as rules_package
from vgaudit.explain import HEADINGS, sections
from vgaudit.findings import LEVELS
from vgaudit.flow import BranchFlow, LossFlow, Source
from vgaudit.rules import RULES, Example, Rule, Training, table
from vgaudit.rules.examples import (
    HEALTHY,
    activation,
    around,
    chain,
    having,
    layer,
    loaded,
    parameter,
)
from vgaudit.rules.selection import find, thresholds

RULES_FOLDER = Path(rules_package.__file__).parent
EXAMPLES = [
    pytest.param(rule, example, id=f"{rule.code}-{example.shows}")
    for rule in RULES
    for example in (*rule.FIRES, *rule.QUIET)
]
ONE_OF_EACH = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)


def worst(rule: Rule, example: Example) -> str | None:
    found = rule.check(example.audit, example.training)
    return min((f.level for f in found), key=LEVELS.index, default=None)


def only(code: str, audit):
    (rule,) = find(code)
    (finding,) = rule.check(audit, Training())
    return finding


@pytest.mark.parametrize(("rule", "example"), EXAMPLES)
def test_examples(rule: Rule, example: Example) -> None:
    assert example.level == worst(rule, example)


@ONE_OF_EACH
def test_a_rule_has_examples_of_both_kinds(rule: Rule) -> None:
    assert all(example.level is not None for example in rule.FIRES)
    assert all(example.level is None for example in rule.QUIET)
    assert rule.FIRES
    assert rule.QUIET


@ONE_OF_EACH
def test_names_of_file_class_and_slug_are_one_name(rule: Rule) -> None:
    module = type(rule).__module__.rpartition(".")[2]
    words = re.findall("[A-Z][a-z]*", type(rule).__name__)

    assert module == "_".join(word.lower() for word in words)
    assert module == rule.name.replace("-", "_").replace("non_finite", "nonfinite")
    assert re.fullmatch(r"VG\d{3}", rule.code)


def test_every_rule_file_is_in_the_table() -> None:
    shared = {"__init__", "budget", "examples", "rule", "selection", "wording"}
    shared |= {"examples_deep", "first_steps"}
    shared |= {"nets", "through_time", "treatment"}
    files = {path.stem for path in RULES_FOLDER.glob("*.py")} - shared

    assert files == {type(rule).__module__.rpartition(".")[2] for rule in RULES}


@ONE_OF_EACH
def test_a_page_has_the_fixed_headings(rule: Rule) -> None:
    written = [heading for heading in HEADINGS if heading != "Thresholds"]

    assert written == list(sections(rule))
    assert all(text for text in sections(rule).values())


@ONE_OF_EACH
def test_a_threshold_says_what_it_limits(rule: Rule) -> None:
    for field in dataclasses.fields(rule):
        assert field.metadata["meaning"]
        assert isinstance(field.default, int | float)
        assert math.isfinite(field.default)


@pytest.mark.parametrize("attribute", ["code", "name"])
def test_two_rules_with_one_name_are_refused(attribute: str) -> None:
    first, second = RULES[0], RULES[1]
    own = {"code": "VG999", "name": "twin", attribute: getattr(first, attribute)}
    twin = type("Twin", (type(second),), own)()

    with pytest.raises(ValueError, match=f"have the same {attribute}: "):
        table((first, second, twin))


@ONE_OF_EACH
def test_findings_carry_the_rule_and_a_way_out(rule: Rule) -> None:
    for example in rule.FIRES:
        for finding in rule.check(example.audit, example.training):
            assert (rule.code, rule.name) == (finding.code, finding.name)
            assert finding.message
            assert "\n" not in finding.message
            if finding.level == "error":
                assert finding.fix is not None
            if finding.unclear:
                assert finding.level == "info"


@ONE_OF_EACH
def test_hostile_names_do_not_reach_a_message(rule: Rule) -> None:
    for example in rule.FIRES:
        text = _renamed(
            example.audit, "layers", "\x1b[31m\n::error::\u202e" + "x" * 9999
        )
        for finding in rule.check(text, example.training):
            fix = finding.fix
            said = (fix.text, fix.reason) if fix is not None else ()
            for words in (finding.message, *finding.evidence, *said):
                assert words.isprintable()
                assert len(words) < 2000


def _renamed(value, old: str, new: str):
    """Returns the value with every name in it changed."""
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, tuple):
        return tuple(_renamed(item, old, new) for item in value)
    if dataclasses.is_dataclass(value):
        fields = {
            f.name: _renamed(getattr(value, f.name), old, new)
            for f in dataclasses.fields(value)
        }
        return dataclasses.replace(value, **fields)
    return value


# --- VG101: the limits, from both sides -------------------------------------------

LIMITS = [("sgd", -3.6, "error"), ("adam", -3.6, "warning"), ("adam", -8.1, "error")]


@pytest.mark.parametrize(("optimizer", "limit", "level"), LIMITS)
def test_vanishing_gradient_at_its_limits(optimizer, limit, level) -> None:
    (rule,) = find("VG101")
    inside, beyond = limit + 0.01, limit - 0.01

    below = list(rule.check(chain((beyond, -1.0, 0.0)), Training(optimizer)))
    above = list(rule.check(chain((inside, -1.0, 0.0)), Training(optimizer)))

    assert [level] == [f.level for f in below]
    assert level not in [f.level for f in above]


def test_vanishing_gradient_says_where_and_why() -> None:
    audit = layer(
        chain((-9.6, -8.0, -6.1, -4.0, -2.0, 0.0)),
        "layers.0",
        source=Source(file="mymodel.py", line=42),
    )
    finding = only("VG101", audit)

    assert (
        "9.6 decades are lost between the output and layers.0 (limit 3.6 under sgd): "
        "4 of 6 weight layers starved"
    ) == finding.message
    assert ("layers.0", "layers.2", "layers.4", "layers.6") == finding.layers
    assert "layers.0 … layers.6" == finding.layer
    assert (
        "where it went: sigmoid slopes 60 %, weights 40 %",
        "worst step: layers.5 (−1.3 decades)",
    ) == finding.evidence
    assert (-9.6, -3.6, "decades") == (finding.value, finding.limit, finding.unit)
    assert Source(file="mymodel.py", line=42) == finding.source


def test_vanishing_gradient_that_is_unclear_is_information() -> None:
    finding = only("VG101", chain((-3.7, -2.0, -1.0, 0.0), spread=0.3))

    assert ("info", True) == (finding.level, finding.unclear)
    assert (
        "unclear: −3.7 [−4.0, −3.4] decades reach across the limit of −3.6 under sgd; "
        "more batches would narrow it"
    ) == finding.message


def test_forward_collapse_is_said() -> None:
    audit = having(chain((-9.0, -5.0, -2.0, 0.0)), output_variation=2e-17)

    assert (
        "the outputs hardly depend on the input (relative spread 2e−17): the forward "
        "signal has collapsed too, so a larger step alone will not help"
    ) == only("VG101", audit).evidence[-1]


@pytest.mark.parametrize(
    ("layers", "decay", "fires"), [(4, -5.0, True), (3, -5.0, False), (4, -3.0, False)]
)
def test_a_branch_is_judged_by_its_decay(layers, decay, fires) -> None:
    names = tuple(f"block.{i}" for i in range(layers))
    branch = BranchFlow(
        name=f"{names[0]} … {names[-1]}",
        entry="stem",
        exit="add",
        layers=names,
        offset=around(-6.0),
        decay=around(decay),
    )
    (rule,) = find("VG101")
    found = list(rule.check(having(chain(HEALTHY), branches=(branch,)), Training()))

    assert fires == bool(found)
    if fires:
        assert (
            "5.0 decades are lost inside the branch block.0 … block.3 "
            "(limit 3.6 under sgd)"
        ) == found[0].message


# --- the other rules, by the sentences they say ------------------------------------


def test_nonfinite_weight_names_them() -> None:
    names = tuple(f"layers.{i}.weight" for i in range(7))

    assert (
        "7 tensors with NaN or inf: layers.0.weight, layers.1.weight, layers.2.weight, "
        "layers.3.weight, layers.4.weight and 2 more"
    ) == only("VG001", loaded(chain(), nonfinite_weights=names)).message


def test_incomplete_weights_tell_both_sides() -> None:
    audit = loaded(chain(), missing_keys=("a", "b"), unexpected_keys=("c",))

    assert ("2 keys missing, left at random: a, b; 1 key without a place: c") == only(
        "VG002", audit
    ).message


def test_vanishing_decay_projects_ten_layers() -> None:
    assert (
        "the gradient loses 0.50 decades per weight layer, steadily (−2.5 over 6 "
        "layers); ten more layers would lose 5 more"
    ) == only("VG102", chain((-2.5, -2.0, -1.5, -1.0, -0.5, 0.0))).message


def test_disconnected_parameters_are_grouped() -> None:
    audit = parameter(chain(), "layers.4.weight", connected=False)
    audit = parameter(audit, "layers.4.bias", connected=False)
    audit = parameter(audit, "layers.6.weight", connected=False)
    finding = only("VG104", audit)

    assert (
        "3 trainable parameters (8,256 numbers) of layers.4 … layers.6 disconnected: "
        "its forward pass ran, but no gradient comes back (detach, no_grad, or a "
        "non-differentiable operation)"
    ) == finding.message
    assert ("layers.4", "layers.6") == finding.layers


def test_stalled_update_is_relative_to_the_median() -> None:
    scaled = chain()
    for item in scaled.flow.parameters:
        scaled = parameter(scaled, item.name, grad_to_weight=item.grad_to_weight * 1e-9)
    (rule,) = find("VG105")

    assert [] == list(rule.check(scaled, Training()))


def test_nonfinite_gradient_starts_nearest_the_output() -> None:
    audit = parameter(chain(), "layers.0.weight", nonfinite=4096)
    audit = parameter(audit, "layers.8.bias", nonfinite=1)

    assert (
        "4,097 gradient elements of 2 parameters are NaN or infinite, first at "
        "layers.8 on the way back"
    ) == only("VG107", audit).message


def test_saturation_tells_the_rails_apart() -> None:
    audit = activation(chain(), "layers.7", saturated_low=0.45, saturated_high=0.48)

    assert (
        "93 % of the sigmoid layers.7 is saturated: high rail 48 %, low rail 45 % "
        "(limit 90 %)"
    ) == only("VG301", audit).message


def test_dead_units_come_with_their_bound() -> None:
    audit = activation(chain(kind="relu"), "layers.5", dead_units=62)

    assert (
        "62 of 64 relu units of layers.5 had no slope in any of 128 samples (such a "
        "unit is active in at most 2.3 % of all samples, 95 % confidence)"
    ) == only("VG302", audit).message


def test_a_nan_loss_is_counted_over_all_batches() -> None:
    loss = LossFlow(name="mse", value=math.nan, std=math.nan, nonfinite=1)

    assert "mse is NaN or infinite in 1 of 4 batches" == (
        only("VG502", having(chain(), loss=loss)).message
    )


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@ONE_OF_EACH
def test_no_rule_depends_on_the_scale_of_the_loss(rule: Rule, scale: float) -> None:
    """Absolute gradient figures multiplied by a constant change no finding."""
    for example in (*rule.FIRES, *rule.QUIET):
        if any(p.nonfinite for p in example.audit.flow.parameters):
            continue
        audit = example.audit
        for item in audit.flow.parameters:
            ratio = item.grad_to_weight
            audit = parameter(
                audit,
                item.name,
                grad_norm=item.grad_norm * scale,
                grad_rms=item.grad_rms * scale,
                grad_to_weight=None if ratio is None else ratio * scale,
            )
        before = list(rule.check(example.audit, example.training))
        after = list(rule.check(audit, example.training))

        assert [(f.level, f.layers) for f in before] == [
            (f.level, f.layers) for f in after
        ]


def test_thresholds_are_listed_by_name() -> None:
    (rule,) = find("VG302")

    assert {
        "synthetic_warning": 0.8,
        "synthetic_error": 0.95,
        "real_warning": 0.5,
        "real_error": 0.9,
        "units": 8,
        "bound": 0.25,
    } == thresholds(rule)
