"""Which rules run, and with which thresholds: the meaning of what the user typed.

A rule is named by its code (``VG101``), by the start of one (``VG1`` is the
family), or by its slug (``vanishing-gradient``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, cast

from vgaudit.errors import BadConfig
from vgaudit.plain import nearest, visible
from vgaudit.rules import RULES, Rule
from vgaudit.rules.gate import GATE_RULES
from vgaudit.rules.rule import GateRule, Page

PAGES: tuple[Page, ...] = (*RULES, *GATE_RULES)
"""Every rule there is: those that read a measurement, and those of the gate."""


def find(selector: str) -> tuple[Page, ...]:
    """Returns the rules that a code, the start of one, or a slug names.

    Raises:
        BadConfig: no rule is called so; the hint gives the nearest name.
    """
    wanted = selector.strip()
    found = tuple(
        rule
        for rule in PAGES
        if wanted.lower() == rule.name
        or (len(wanted) >= 2 and rule.code.startswith(wanted.upper()))
    )
    if not found:
        known = [rule.code for rule in PAGES] + [rule.name for rule in PAGES]
        raise BadConfig(
            f"unknown rule '{visible(selector)}'",
            hint=f"{nearest(wanted, known)}see `vgaudit rules`",
        )
    return found


def selected(select: Iterable[str], ignore: Iterable[str]) -> frozenset[str]:
    """Returns the codes that are selected (all, where none is) and not ignored.

    A selection is of rules on models: those of the gate stay, unless ignored.

    Raises:
        BadConfig: a selector names no rule.
    """
    chosen = {rule.code for selector in select for rule in find(selector)}
    dropped = {rule.code for selector in ignore for rule in find(selector)}
    gate = {rule.code for rule in GATE_RULES}
    return frozenset(((chosen or {rule.code for rule in PAGES}) | gate) - dropped)


def thresholds(rule: Page) -> dict[str, float]:
    """Returns the thresholds of a rule by name, such as ``sgd_error``."""
    return {f.name: getattr(rule, f.name) for f in fields(cast(Any, rule))}


def configured(overrides: Mapping[str, float]) -> tuple[Rule, ...]:
    """Returns the rules on measurements, with thresholds replaced by the user's.

    Args:
        overrides: ``vanishing-gradient.sgd_error`` (or ``VG101.sgd_error``) to
            the new value.

    Raises:
        BadConfig: there is no such rule or threshold, or the value does not fit.
    """
    return tuple(x for x in _configured(overrides) if isinstance(x, Rule))


def gate_rules(overrides: Mapping[str, float]) -> tuple[GateRule, ...]:
    """Returns the rules of the gate, with thresholds replaced by the user's.

    Raises:
        BadConfig: there is no such rule or threshold, or the value does not fit.
    """
    return tuple(x for x in _configured(overrides) if isinstance(x, GateRule))


def _configured(overrides: Mapping[str, float]) -> Iterable[Page]:
    rules = {rule.code: rule for rule in PAGES}
    for name, value in overrides.items():
        head, _, threshold = name.partition(".")
        found = find(head)
        if len(found) > 1:
            raise BadConfig(
                f"'{visible(head)}' names {len(found)} rules, and --set needs one",
                hint=f"for example --set {found[0].code}.NAME=NUMBER",
            )
        rule = rules[found[0].code]
        rules[rule.code] = _overridden(rule, threshold, value)
    return rules.values()


def parse_overrides(texts: Iterable[str]) -> dict[str, float]:
    """Returns ``RULE.THRESHOLD=NUMBER`` texts as a mapping.

    Raises:
        BadConfig: a text has another form, or no finite number.
    """
    result: dict[str, float] = {}
    for text in texts:
        name, separator, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not separator or "." not in name or not math.isfinite(value):
            raise BadConfig(
                f"--set {visible(text)}: not of the form RULE.THRESHOLD=NUMBER",
                hint="for example --set vanishing-gradient.sgd_error=-3.5",
            )
        result[name.strip()] = value
    return result


def _overridden(rule: Page, threshold: str, value: float) -> Page:
    known = thresholds(rule)
    if threshold not in known:
        listing = ", ".join(known) or "none"
        raise BadConfig(
            f"{rule.code} {rule.name} has no threshold '{visible(threshold)}'",
            hint=f"{nearest(threshold, list(known))}it has: {listing}",
        )
    whole = isinstance(known[threshold], int)
    if whole and not value.is_integer():
        raise BadConfig(
            f"{rule.code}.{threshold} counts things: {value:g} is not a whole number",
            hint=f"for example --set {rule.code}.{threshold}={known[threshold]}",
        )
    changed = replace(cast(Any, rule), **{threshold: int(value) if whole else value})
    return cast(Page, changed)
