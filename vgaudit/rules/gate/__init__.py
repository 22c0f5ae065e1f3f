"""The rules of the gate: what the user's own terms forbid, beside the rules on models.

A rule is added by its file and its line in ``GATE_RULES``.
"""

from __future__ import annotations

from vgaudit.rules.gate.over_budget import OverBudget
from vgaudit.rules.gate.regression import Regression
from vgaudit.rules.gate.stale_ignore import StaleIgnore
from vgaudit.rules.rule import GateRule

__all__ = ["GATE_RULES"]

GATE_RULES: tuple[GateRule, ...] = (Regression(), OverBudget(), StaleIgnore())
