"""A stream of batches that can be run through again, the same each time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vgaudit.data.batch import Batch
from vgaudit.data.calls import tensors
from vgaudit.errors import NothingMeasured
from vgaudit.flow import DataFacts


class Skips:
    """What could not be used, each thing once, with the reason."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def add(self, what: str, why: str) -> None:
        """Notes one thing; noting it again changes nothing."""
        self._reasons.setdefault(what, why)

    def sentences(self) -> tuple[str, ...]:
        """Returns one sentence for each thing, in the order of notice."""
        return tuple(f"{what}: {why}" for what, why in self._reasons.items())

    def __len__(self) -> int:
        return len(self._reasons)


class Batches:
    """Batches to measure on: iterate as often as needed.

    Batches with NaN or infinity are never yielded; they are counted.

    Attributes:
        labelled: the batches carry labels, or the model computes its own loss
            from them.
    """

    def __init__(
        self,
        draw: Callable[[], Iterator[Batch]],
        facts: DataFacts,
        *,
        labelled: bool,
        skips: Skips | None = None,
    ) -> None:
        self.labelled = labelled
        self._draw = draw
        self._facts = facts
        self._skips = skips if skips is not None else Skips()
        self._nonfinite: dict[int, str] = {}

    def __iter__(self) -> Iterator[Batch]:
        """Yields the usable batches.

        Raises:
            NothingMeasured: at the end, if there was none.
        """
        drawn = used = 0
        for index, batch in enumerate(self._draw()):
            drawn += 1
            defect = nonfinite(batch)
            if defect:
                self._nonfinite[index] = defect
                self._skips.add(f"batch {index}", defect)
                continue
            used += 1
            yield batch
        if used == 0:
            raise _nothing(self._facts.spec, drawn, self._nonfinite)

    def with_note(self, note: str) -> Batches:
        """Returns the same batches with one more note among the facts."""
        facts = dataclasses.replace(self._facts, notes=(*self._facts.notes, note))
        return Batches(self._draw, facts, labelled=self.labelled, skips=self._skips)

    @property
    def facts(self) -> DataFacts:
        """Where the batches came from, with everything skipped up to now."""
        return dataclasses.replace(
            self._facts, skipped=self._facts.skipped + self._skips.sentences()
        )

    @property
    def skipped(self) -> int:
        """Batches left out up to now because of NaN or infinity."""
        return len(self._nonfinite)


def nonfinite(batch: Batch) -> str:
    """Returns what is not finite in a batch, or an empty text."""
    for place, value in (
        ("inputs", (batch.args, batch.kwargs)),
        ("labels", batch.labels),
    ):
        bad = sum(_count_nonfinite(tensor) for tensor in tensors(value))
        if bad:
            elements = "1 element" if bad == 1 else f"{bad} elements"
            verb = "is" if bad == 1 else "are"
            return f"{elements} of its {place} {verb} NaN or infinite"
    return ""


@torch.no_grad()
def usable(batch: Batch) -> Tensor:
    """Returns which samples of a batch are finite throughout, as truths ``[N]``."""
    good = torch.ones(batch.size, dtype=torch.bool)
    for tensor in tensors((batch.args, batch.kwargs, batch.labels)):
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        finite = torch.isfinite(tensor).cpu()
        by_sample = tensor.dim() > 0 and len(tensor) == batch.size
        good &= finite.view(batch.size, -1).all(1) if by_sample else finite.all()
    return good


@torch.no_grad()
def _count_nonfinite(tensor: Tensor) -> int:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return 0
    return int(tensor.numel() - torch.isfinite(tensor).sum().item())


def _nothing(spec: str, drawn: int, bad: dict[int, str]) -> NothingMeasured:
    if not drawn:
        return NothingMeasured(
            f"the data holds no sample: {spec}", hint="give data with at least one"
        )
    first = next(iter(bad.values()))
    if drawn == 1:
        told = f"the only batch of {spec} holds NaN or infinity: {first}"
    else:
        told = f"all {drawn} batches of {spec} hold NaN or infinity; in the first, "
        told += first
    return NothingMeasured(
        told,
        hint="look at how the data is read and scaled, and at divisions by zero in it",
    )
