"""Arrays under names: which are inputs, which are labels, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vgaudit.data.arrays import as_tensor
from vgaudit.data.sources.content import Content
from vgaudit.errors import CannotLoad

INPUTS = (
    "x",
    "inputs",
    "input",
    "data",
    "images",
    "image",
    "features",
    "x_train",
    "train_x",
    "train_images",
    "train_data",
)
LABELS = (
    "y",
    "labels",
    "label",
    "targets",
    "target",
    "y_train",
    "train_y",
    "train_labels",
)
"""Names by which arrays are recognised, upper or lower case; first match wins."""


class Rows:
    """Samples that are rows of arrays.

    A sample is ``x`` or ``(x, y)``; with several inputs ``x`` is a dict.
    """

    def __init__(self, inputs: dict[str, Any], labels: Any | None) -> None:
        self.inputs = inputs
        self._labels = labels
        self._count = len(next(iter(inputs.values())))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        """Returns one sample as tensors."""
        row: Any = {
            name: as_tensor(array[index]) for name, array in self.inputs.items()
        }
        if len(row) == 1 and "" in row:
            row = row[""]
        return row if self._labels is None else (row, as_tensor(self._labels[index]))


def content_from_arrays(arrays: Mapping[str, Any], where: str) -> Content:
    """Returns the samples that named arrays hold.

    One of ``INPUTS`` is the input and one of ``LABELS`` the labels, if there is
    one; a single array is the input; other arrays go to the model by their names.

    Raises:
        CannotLoad: there is no array, or their numbers of rows differ.
    """
    if not arrays:
        raise CannotLoad(f"{where} holds no array")
    label_name = _find(arrays, LABELS)
    input_name = _find(arrays, INPUTS)
    rest = [name for name in arrays if name not in (label_name, input_name)]
    notes: tuple[str, ...] = ()
    if input_name is None and not rest:
        raise CannotLoad(
            f"{where} holds labels ({label_name}) and no inputs",
            hint=f"inputs are recognised by the names {', '.join(INPUTS)}",
        )
    if input_name is not None:
        inputs = {"": arrays[input_name]}
        if rest:
            notes = (f"not used from {where}: {', '.join(sorted(rest)[:8])}",)
    elif len(rest) == 1:
        inputs = {"": arrays[rest[0]]}
    else:
        inputs = {name: arrays[name] for name in rest}
    labels = None if label_name is None else arrays[label_name]
    _check_rows(inputs, labels, where, label_name or "")
    return Content(samples=Rows(inputs, labels), arrays=True, notes=notes)


def _find(arrays: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    by_lower = {name.lower(): name for name in reversed(list(arrays))}
    return next((by_lower[name] for name in names if name in by_lower), None)


def _check_rows(
    inputs: Mapping[str, Any], labels: Any | None, where: str, label_name: str
) -> None:
    counts: dict[str, int] = {}
    for name, array in (*inputs.items(), (label_name, labels)):
        if array is None:
            continue
        if array.ndim == 0:
            raise CannotLoad(
                f"{where}: {name or 'the array'} is one number, without rows"
            )
        counts[name or "x"] = int(array.shape[0])
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise CannotLoad(f"{where}: the numbers of rows differ: {told}")
    if 0 in counts.values():
        raise CannotLoad(f"{where} has no rows")
