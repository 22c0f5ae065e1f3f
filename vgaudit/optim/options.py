"""Checks of the values that an optimizer is built with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from vgaudit.errors import BadConfig
from vgaudit.optim.layers import Scope
from vgaudit.optim.radius import Radius, Rule, Solve

T = TypeVar("T")

# What each number may be: its lowest value, and the bound it stays below.
_RANGES: Mapping[str, tuple[float, float]] = {
    "lr": (0.0, math.inf),
    "momentum": (0.0, 1.0),
    "kappa": (0.0, math.inf),
    "weight_decay": (0.0, math.inf),
    "eps": (0.0, math.inf),
    "norm_decay": (0.0, 1.0),
    "curvature_decay": (0.0, 1.0),
    "every": (1, math.inf),
}


def given(value: T | None, default: T) -> T:
    """Returns ``value``, or ``default`` where it was not given."""
    return default if value is None else value


def check_options(options: Mapping[str, Any]) -> None:
    """Checks the numbers of one parameter group.

    Raises:
        BadConfig: a number is out of range or not finite.
    """
    for name in _RANGES.keys() & options.keys():
        low, high = _RANGES[name]
        value = float(options[name])
        if not low <= value < high:
            upper = "" if math.isinf(high) else f" and below {high:g}"
            raise BadConfig(
                f"{name} is {value:g}", hint=f"give a number from {low:g} up{upper}"
            )


def check_rule(rule: Rule) -> None:
    """Checks the settings of the whole optimizer.

    Raises:
        BadConfig: a number is out of range, or a word is not known.
    """
    check_options(
        {
            "norm_decay": rule.norm_decay,
            "curvature_decay": rule.curvature_decay,
            "every": rule.every,
        }
    )
    for name, kind in (("scope", Scope), ("radius", Radius), ("solve", Solve)):
        value, known = getattr(rule, name), get_args(kind)
        if value not in known:
            raise BadConfig(
                f"{name} is {value!r}", hint=f"use one of {', '.join(known)}"
            )
