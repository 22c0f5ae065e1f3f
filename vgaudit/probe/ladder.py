"""The precision that a measurement needs: measured again where figures are lost."""

from __future__ import annotations

import math

import torch

from vgaudit.errors import CannotRun
from vgaudit.flow import Interval, Precision
from vgaudit.probe import transport
from vgaudit.probe.passes import Pass, Scan, measure_all
from vgaudit.probe.placing import dtype_name, own_dtype, parse_dtype

# Below these a float32 gradient is near the end of its range.
_TINY_NORM = 1e-30
_HALVES = (torch.float16, torch.bfloat16)


def ladder(scan: Scan) -> tuple[Pass, Precision]:
    """Measures, and again in higher precision where the figures need it.

    Returns the last measurement, and what was measured in which precision and why.
    """
    asked = scan.options.dtype
    fixed = None if asked == "auto" else parse_dtype(asked)
    first = _first(scan, fixed)
    best, reason = first, ""
    while fixed is None:
        finer, why = _finer(best)
        if finer is None:
            break
        scan.say(f"measuring again in {dtype_name(finer)}: {why}")
        # Its clones and their gradients would be in the way of the larger ones.
        best.batches.weights.forget_values()
        try:
            again = measure_all(scan, finer)
        except CannotRun as error:
            if scan.broken:
                raise
            kind = dtype_name(finer)
            best.notes.append(f"not measured again in {kind}: {error.message}")
            break
        again.notes[:0] = best.notes
        best, reason = again, why
    return best, _precision(first, best, reason, own_dtype(scan.model))


def _first(scan: Scan, fixed: torch.dtype | None) -> Pass:
    """Measures in the precision asked for; in float32 where half cannot run."""
    own = own_dtype(scan.model)
    try:
        return measure_all(scan, fixed)
    except CannotRun as error:
        if fixed is not None or own not in _HALVES or scan.broken:
            raise
        done = measure_all(scan, torch.float32)
        done.notes.append(f"not measured in {dtype_name(own)}: {error.message}")
        return done


def _finer(done: Pass) -> tuple[torch.dtype | None, str]:
    """Returns the precision to measure again in, and why; None if not needed."""
    if done.dtype in _HALVES:
        return torch.float32, f"gradients in {dtype_name(done.dtype)} may underflow"
    if done.dtype == torch.float64:
        return None, ""
    norms = [value for batch in done.batches.measured for value in batch.at.values()]
    if any(value == 0 for value in norms):
        return torch.float64, "some gradients are zero in float32"
    if any(value < _TINY_NORM for value in norms):
        return torch.float64, "some gradients are near the end of float32's range"
    return None, ""


def _precision(first: Pass, best: Pass, reason: str, own: torch.dtype) -> Precision:
    if best is first:
        return Precision(dtype=dtype_name(own), measured=dtype_name(first.dtype))
    before: Interval | None = transport.total(first.batches)
    return Precision(
        dtype=dtype_name(own),
        measured=dtype_name(best.dtype),
        reason=reason,
        lost=max(0.0, _zero_share(first) - _zero_share(best)),
        own_attenuation=None if before is None else before.value,
    )


def _zero_share(done: Pass) -> float:
    zeros = count = 0.0
    for batch in done.batches.measured:
        for name, figures in batch.parameters.items():
            if not math.isnan(figures.zeros):
                zeros += figures.zeros
                count += done.batches.weights.parameters[name].numel()
    return zeros / count if count else math.nan
