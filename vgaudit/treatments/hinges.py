"""Which hinges of new activations the data never uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from vgaudit.conversion import Edit
from vgaudit.data.batch import Batch
from vgaudit.nn import watch_hinges
from vgaudit.treatments.adapt import Change
from vgaudit.treatments.running import call, observing


def counted(
    model: nn.Module, changes: Sequence[Change], batches: Sequence[Batch]
) -> list[Edit]:
    """Returns the edits of new activations with their hinges, counted on the data.

    A hinge beside which no value falls is dead: its value gets no gradient.
    """
    if not changes:
        return []
    with observing(model, "train"), watch_hinges(model) as hits:
        for batch in batches:
            call(model, batch)
    edits = []
    for change in changes:
        # A function's new activation may hold the piecewise linear part inside.
        found = hits.get(change.path, hits.get(f"{change.path}.line"))
        if found is None:
            edits.append(change.edit)
            continue
        total, dead = found.numel(), int((found == 0).sum())
        said = f"; {dead:,} of {total:,} hinges dead on the data" if dead else ""
        edits.append(
            replace(
                change.edit,
                change=f"{change.edit.change}{said}",
                hinges=total,
                dead_hinges=dead,
            )
        )
    return edits
