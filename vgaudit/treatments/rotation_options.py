"""What was asked of ``ar``, in the words of ``vgaudit.nn``."""

from __future__ import annotations

from typing import Any

from vgaudit.conversion import ConvertOptions, LimitSource
from vgaudit.errors import BadConfig
from vgaudit.nn import ACTIVATIONS, Denominator, Inputs
from vgaudit.treatments.plan import LayerTarget
from vgaudit.treatments.statistics import LayerStatistics

DEFAULT_LIMIT = 4.0


def check(options: ConvertOptions) -> None:
    """Refuses what cannot be had together, before anything is measured.

    Raises:
        BadConfig: naming both.
    """
    limit = options.limit
    if limit is not None and not (0 < limit < float("inf")):
        raise BadConfig(
            f"L must be positive, not {limit}", hint="4 suits sigmoid, 2 suits tanh"
        )
    if options.border == "reference" and not options.denominator.startswith("xq"):
        raise BadConfig(
            f"--border reference with --denominator {options.denominator}",
            hint="only xq-min and xq-max, as published, vary along a border",
        )
    if options.preserve and options.limit_type.endswith("shared"):
        raise BadConfig(
            f"--preserve with --ar-type {options.limit_type}: one L for all units "
            "keeps no function",
            hint="use auto-indep or frozen-indep",
        )
    if options.preserve and options.limit_from is not None:
        raise BadConfig(
            f"--preserve takes L = D, not {options.limit_from}",
            hint="leave out --limit-from",
        )


def source_of(options: ConvertOptions) -> LimitSource:
    """Returns where L comes from."""
    if options.limit_from is not None:
        return options.limit_from
    return "value" if options.border == "reference" else "calibrated"


def type_of(options: ConvertOptions) -> Any:
    """Returns the type of L as ``vgaudit.nn`` names it."""
    return options.limit_type.replace("-", "_")


def denominator_of(options: ConvertOptions) -> Denominator:
    """Returns D as ``vgaudit.nn`` describes it."""
    return Denominator(options.denominator, border=options.border)


def inputs_of(found: LayerStatistics, options: ConvertOptions) -> Inputs:
    """Returns what reaches a layer: moments per channel, or the range of them all."""
    if options.denominator != "moments":
        return Inputs.range(found.inputs.low, found.inputs.high)
    mean, std = found.inputs.moments()
    return Inputs.moments(mean.float(), std.float())


def limit_of(target: LayerTarget, options: ConvertOptions) -> float:
    """Returns L of a layer: what was asked, else its activation's default.

    L is of what reaches the activation; a number that multiplies the layer's output on
    its way divides it.
    """
    known = ACTIVATIONS.get(target.kind)
    default = known.limit if known is not None else DEFAULT_LIMIT
    limit = default if options.limit is None else options.limit
    return limit / abs(target.factor)


def reached(target: LayerTarget) -> str:
    """Returns a remark on what lies between a layer and its activation, or nothing."""
    return "" if target.factor == 1.0 else f", before a factor of {target.factor:g}"
