"""Whether a converted model computes what the original did."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from vgaudit.conversion import ConvertOptions, Edit
from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRewrite
from vgaudit.treatments import running

_ROUNDING = 1e-5
"""Of the largest output, or of 1."""


def sites_equal(
    before: nn.Module, after: nn.Module, batch: Batch, edits: Sequence[Edit]
) -> bool:
    """Tells whether the converted modules give the same to the last bit.

    Outputs alone do not tell: a head that starts at zero hides every difference.
    """
    paths = list(dict.fromkeys(_standing(before, edit.path) for edit in edits))

    def equal(given: Batch) -> bool:
        for mode in running.MODES:
            old = running.outputs_of(before, paths, given, mode)
            new = running.outputs_of(after, paths, given, mode)
            pairs = ((old[path], new[path]) for path in paths)
            if any(running.largest_difference(*pair) > 0 for pair in pairs):
                return False
        return True

    return running.on_few(equal, batch)


def _standing(model: nn.Module, path: str) -> str:
    """Returns a path, or that of the module around it which the model has."""
    while path:
        try:
            model.get_submodule(path)
        except AttributeError:
            path = path.rpartition(".")[0]
        else:
            break
    return path


def check_parity(
    options: ConvertOptions, diff: float, *, preserved: bool, scale: float
) -> None:
    """Refuses a conversion that was to keep the function and does not.

    Args:
        options: what was asked.
        diff: the largest |Δ| of any output.
        preserved: all is bit-equal.
        scale: the largest |output| before.

    Raises:
        CannotRewrite: VG702, with the difference.
    """
    keeps = options.preserve or options.to == "plain"
    # Unfused recurrences and traced graphs round otherwise than fused kernels.
    rounds = options.unfuse or options.form == "graph-module"
    close = rounds and diff <= _ROUNDING * max(1.0, scale)
    if keeps and not preserved and not close:
        raise CannotRewrite(
            f"VG702 the function was to be kept; outputs differ by up to {diff:.3g}",
            hint="leave layers out with --skip, or convert without --preserve",
        )
    if diff == float("inf") or diff != diff:
        raise CannotRewrite(
            "VG702 the converted model gives NaN, infinity or other shapes",
            hint="leave layers out with --skip; look at the data it was calibrated on",
        )


def repeats(model: nn.Module, batch: Batch) -> float:
    """Returns the largest |Δ| of two runs of the same model on the same batch."""
    first, second = (running.outputs(model, [batch], "eval") for _ in range(2))
    return running.largest_difference(first, second)
