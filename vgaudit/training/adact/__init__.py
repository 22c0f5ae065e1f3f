"""AdAct's three-step algorithm for networks of one hidden layer."""

from vgaudit.training.adact.method import ENTRY
from vgaudit.training.adact.network import OneHidden, start
from vgaudit.training.adact.patterns import Patterns
from vgaudit.training.adact.solver import Fit, Iteration, Plan, ThreeSteps, fit

__all__ = [
    "ENTRY",
    "Fit",
    "Iteration",
    "OneHidden",
    "Patterns",
    "Plan",
    "ThreeSteps",
    "fit",
    "start",
]
