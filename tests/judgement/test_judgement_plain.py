"""Plain values and visible names: laws over everything that can come in."""

from __future__ import annotations

import json
import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgaudit.flow import Interval
from vgaudit.plain import NAME_LENGTH, kind_of, to_json, to_plain, visible

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


@given(VALUES)
def test_every_plain_value_becomes_strict_json(value: object) -> None:
    text = to_json(value)

    assert text.isascii()
    assert to_plain(value) == json.loads(text, parse_constant=refuse_constant)


@pytest.mark.parametrize(
    ("number", "spelled"),
    [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf"), (-0.5, -0.5)],
)
def test_numbers_without_a_json_spelling_are_strings(number, spelled) -> None:
    assert spelled == to_plain(number)


def test_dataclasses_become_dicts_and_tuples_lists() -> None:
    interval = Interval(value=-1.5, lo=-math.inf, hi=0.0, n=4)

    assert {"at": [{"value": -1.5, "lo": "-inf", "hi": 0.0, "n": 4}]} == to_plain(
        {"at": (interval,)}
    )


def test_a_lone_surrogate_is_written_out() -> None:
    assert "\\udcff.pt" == to_plain("\udcff.pt")


def test_a_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match="object is not a plain value"):
        to_plain(object())


@given(st.text(max_size=400))
def test_a_visible_name_hides_nothing_and_is_short(name: str) -> None:
    shown = visible(name)

    assert len(shown) <= NAME_LENGTH
    assert not {"Cc", "Cf", "Cs", "Zl", "Zp"} & set(map(unicodedata.category, shown))


@given(
    st.text(alphabet=st.characters(categories=["L", "N", "P"]), max_size=NAME_LENGTH)
)
def test_an_ordinary_name_stays_as_it_is(name: str) -> None:
    assert name == visible(name)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\n::error::b", "a\\n::error::b"),
        ("a\u202egnp", "a\\u202egnp"),
        ("[red]x[/red]", "[red]x[/red]"),
        ("=cmd|' /C calc'!A0", "=cmd|' /C calc'!A0"),
        ("weight\u2028line", "weight\\u2028line"),
    ],
)
def test_hostile_names_are_spelled_out(name: str, shown: str) -> None:
    assert shown == visible(name)


def test_a_long_name_keeps_both_ends() -> None:
    shown = visible("a" * 50_000 + "b" * 50_000)

    assert shown.startswith("aaa")
    assert shown.endswith("bbb")
    assert len(shown) == NAME_LENGTH


def test_kinds_are_named_as_in_a_sentence() -> None:
    class UNet:
        pass

    said = [kind_of(value) for value in (1, [], None, ValueError(), UNet(), {})]

    assert said == ["an int", "a list", "None", "a ValueError", "a UNet", "a dict"]
