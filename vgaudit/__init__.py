"""Audits PyTorch models for vanishing gradients.

The names below are imported when first used, so that judging a stored report
does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vgaudit import nn, optim
    from vgaudit.api import (
        assert_gradient_healthy,
        convert,
        fix,
        load,
        retrain,
        save,
        scan,
        watch,
    )
    from vgaudit.conversion import ConvertOptions
    from vgaudit.errors import VgauditError
    from vgaudit.findings import Finding, Report
    from vgaudit.fixing import FixOptions
    from vgaudit.flow import GradientFlow
    from vgaudit.job import DataOptions, LoadOptions, ProbeOptions
    from vgaudit.judge import Policy
    from vgaudit.retraining import RetrainOptions

__version__ = "0.1.0"

_HOMES = {
    "ConvertOptions": "vgaudit.conversion",
    "DataOptions": "vgaudit.job",
    "Finding": "vgaudit.findings",
    "FixOptions": "vgaudit.fixing",
    "GradientFlow": "vgaudit.flow",
    "LoadOptions": "vgaudit.job",
    "Policy": "vgaudit.judge",
    "ProbeOptions": "vgaudit.job",
    "Report": "vgaudit.findings",
    "RetrainOptions": "vgaudit.retraining",
    "VgauditError": "vgaudit.errors",
    "assert_gradient_healthy": "vgaudit.api",
    "convert": "vgaudit.api",
    "fix": "vgaudit.api",
    "load": "vgaudit.api",
    "retrain": "vgaudit.api",
    "save": "vgaudit.api",
    "scan": "vgaudit.api",
    "watch": "vgaudit.api",
}

_PARTS = ("nn", "optim")

__all__ = [
    "ConvertOptions",
    "DataOptions",
    "Finding",
    "FixOptions",
    "GradientFlow",
    "LoadOptions",
    "Policy",
    "ProbeOptions",
    "Report",
    "RetrainOptions",
    "VgauditError",
    "assert_gradient_healthy",
    "convert",
    "fix",
    "load",
    "nn",
    "optim",
    "retrain",
    "save",
    "scan",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(_imported(_HOMES[name]), name)
    if name in _PARTS:
        return _imported(f"vgaudit.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _imported(name: str) -> ModuleType:
    """Imports a module; libraries that draw at random meanwhile leave no trace."""
    import random

    before = random.getstate()
    try:
        return import_module(name)
    finally:
        random.setstate(before)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
