"""The gradient budget: shares that add up, in words that name the operation."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgaudit.rules.budget import sentence, shares
from vgaudit.rules.examples import SLOPES, around, chain, having

PROFILES = st.lists(st.floats(-12, 6), min_size=2, max_size=12).map(tuple)


@given(PROFILES)
def test_shares_add_up(decades) -> None:
    flow = chain(decades).flow
    rows = shares(flow)
    lost = [row for row in rows if row.decades < 0]

    assert sum(row.decades for row in rows) == pytest.approx(
        decades[0] - decades[-1], abs=1e-9
    )
    assert sum(row.share for row in rows) == pytest.approx(1.0 if lost else 0.0)
    assert [row.decades for row in rows] == sorted(row.decades for row in rows)


@given(PROFILES)
def test_the_sentence_is_the_flow_s_own_budget(decades) -> None:
    """Both ways to add up the trunk agree cause by cause."""
    flow = chain(decades).flow
    by_cause = flow.budget()
    by_noun = {row.noun: row.decades for row in shares(flow)}

    assert by_noun["sigmoid slopes"] == pytest.approx(by_cause["activation"], abs=1e-9)
    assert by_noun["weights"] == pytest.approx(by_cause["weights"], abs=1e-9)


def test_the_share_of_the_slopes_is_the_one_put_in() -> None:
    (slopes, weights) = shares(chain((-4.0, -2.0, 0.0)).flow)

    assert ("sigmoid slopes", SLOPES) == (slopes.noun, pytest.approx(slopes.share))
    assert ("weights", 1 - SLOPES) == (weights.noun, pytest.approx(weights.share))


def test_nothing_lost_needs_no_words() -> None:
    assert "" == sentence(chain((1.0, 0.5, 0.0)).flow)
    assert "" == sentence(having(chain(), trunk=()).flow)


def test_what_is_given_back_is_said() -> None:
    flow = chain((-4.0, -2.0, 0.0)).flow
    first = replace(flow.trunk[0], cause="normalization", gain=around(1.5))
    changed = replace(flow, trunk=(first, *flow.trunk[1:]))

    assert "weights 57 %, sigmoid slopes 43 %; 1.5 decades given back" == sentence(
        changed
    )


def test_an_activation_that_is_not_listed_is_still_a_slope() -> None:
    flow = chain((-4.0, 0.0)).flow

    assert "activation slopes 60 %, weights 40 %" == sentence(replace(flow, layers=()))
