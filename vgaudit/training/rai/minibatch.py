"""Relaxed targets in mini-batches: stored per sample, or inferred anew per batch.

``TargetTable`` keeps the author's targets for every sample of the training set and
moves those of the batch, so a sample's label walks down one cut each time it is seen.
``Inference`` keeps nothing: it moves the targets of a batch for some inner steps with
the weights at rest, then leaves the weights' gradients at those targets (predictive
coding). Both leave gradients in ``.grad``; an optimizer of the user's takes the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRewrite
from vgaudit.training.rai.gate import RATE, Gate
from vgaudit.training.rai.relaxed import Losses, Relaxation, calibrate, frozen
from vgaudit.training.rai.rprop import Rprop, rprop_


class Inference:
    """Finds targets for each batch, then the weights' gradients at them.

    Args:
        relaxation: of the model.
        batch: any batch; calibrates normalisation that saw no data yet.
        steps: inner steps on the targets; None takes one for each cut, the fewest
            that bring the label to the first.
        rate: first step of every target, in its own units.
    """

    def __init__(
        self,
        relaxation: Relaxation,
        batch: Batch,
        *,
        steps: int | None = None,
        rate: float = RATE,
    ) -> None:
        self._relaxation, self._gate = relaxation, Gate(rate=rate)
        self._steps = len(relaxation.cuts) if steps is None else steps
        calibrate(relaxation.model, batch)
        with frozen(relaxation.model):
            relaxation.stages(batch)

    def backward(self, batch: Batch, *, share: float = 1.0) -> Tensor:
        """Adds the gradients of the relaxed loss to ``.grad``.

        Args:
            batch: its samples.
            share: of the step's samples that the batch holds.

        Returns:
            the loss of the ordinary forward pass: at the start the targets are its
            values.
        """
        targets, first = self._inferred(batch)
        with frozen(self._relaxation.model), torch.enable_grad():
            losses = self._relaxation.losses(batch, targets)
            (share * losses.total).backward()  # type: ignore[no-untyped-call]
        return losses.output.detach() if first is None else first

    def targets(self, batch: Batch) -> list[Tensor]:
        """Returns the targets to which the inner steps bring a batch, detached."""
        found, _first = self._inferred(batch)
        return [target.detach() for target in found]

    def _inferred(self, batch: Batch) -> tuple[list[Tensor], Tensor | None]:
        """Returns the targets after the inner steps, and the loss before the first."""
        first: Tensor | None = None
        with frozen(self._relaxation.model), torch.enable_grad():
            targets = [z.requires_grad_() for z in self._relaxation.values(batch)]
            rprop = Rprop(targets, rate=self._gate.rate)
            for step in range(self._steps):
                losses = self._relaxation.losses(batch, targets)
                first = losses.output.detach() if first is None else first
                gradients = torch.autograd.grad(losses.total, targets)
                resting = len(targets) - 1 - step
                rprop.step(
                    [g if t >= resting else None for t, g in enumerate(gradients)]
                )
        return targets, first


class TargetTable:
    """Targets of every training sample, with the state of their optimizer.

    Needs 12 bytes in float32 for each unit of each cut and sample: 2.5 GB for 60,000
    samples and five layers of 700.

    Args:
        relaxation: of the model.
        batch: any batch; calibrates normalisation that saw no data yet.
        rate: first step of every target, in its own units.

    Raises:
        CannotRewrite: the value at a cut has not one entry per sample.
    """

    def __init__(
        self, relaxation: Relaxation, batch: Batch, *, rate: float = RATE
    ) -> None:
        cuts = relaxation.cuts
        for spot, fits in zip(cuts.spots, cuts.per_sample, strict=True):
            if not fits:
                raise CannotRewrite(
                    f"targets cannot be stored for '{spot.name}': its value has not "
                    "one entry for each sample",
                    hint="use --setting mode=sweep or --setting mode=infer",
                )
        self._relaxation, self._rate = relaxation, rate
        calibrate(relaxation.model, batch)
        with frozen(relaxation.model):
            relaxation.stages(batch)
        self._visits = torch.zeros(0, dtype=torch.long)
        self._rows: list[list[Tensor]] = []

    @property
    def bytes(self) -> int:
        """Memory that the table takes now."""
        return sum(t.numel() * t.element_size() for cut in self._rows for t in cut)

    def backward(self, batch: Batch, rows: Tensor, *, share: float = 1.0) -> Tensor:
        """Moves the targets of a batch, and adds the weights' gradients to ``.grad``.

        Args:
            batch: its samples.
            rows: their numbers in the training set, ``[N]``, on the CPU.
            share: of the step's samples that the batch holds.

        Returns:
            the loss of the relaxed output, before the step.
        """
        self._grow(int(rows.max()) + 1)
        with frozen(self._relaxation.model), torch.enable_grad():
            self._open(batch, rows)
            targets = [cut[0][rows].requires_grad_() for cut in self._rows]
            losses = self._relaxation.losses(batch, targets)
            visits = self._visits[rows]
            pulls = self._gradients(losses, targets, (int(visits.max()), share))
        self._move(rows, pulls, visits)
        self._visits[rows] += 1
        return losses.output.detach()

    def _gradients(
        self, losses: Losses, targets: list[Tensor], how: tuple[int, float]
    ) -> Sequence[Tensor | None]:
        """Leaves the weights' gradients in ``.grad``; returns those of the targets."""
        visited, share = how
        moving = Gate().moving(len(targets), visited)
        ends = [*losses.hidden, losses.output]
        total = share * torch.stack([ends[stage] for stage in moving]).sum()
        weights = [p for p in self._relaxation.model.parameters() if p.requires_grad]
        found = torch.autograd.grad(total, [*targets, *weights], allow_unused=True)
        for weight, gradient in zip(weights, found[len(targets) :], strict=True):
            _add(weight, gradient)
        return found[: len(targets)]

    @torch.no_grad()
    def _move(
        self, rows: Tensor, pulls: Sequence[Tensor | None], visits: Tensor
    ) -> None:
        last = len(self._rows) - 1
        for number, (cut, pull) in enumerate(zip(self._rows, pulls, strict=True)):
            ready = rows[visits >= last - number]
            if pull is None or not len(ready):
                continue
            chosen = pull[(visits >= last - number).to(pull.device)]
            parts = [tensor[ready] for tensor in cut]
            rprop_(parts[0], chosen.clone(), parts[1], parts[2])
            for tensor, part in zip(cut, parts, strict=True):
                tensor[ready] = part

    def _open(self, batch: Batch, rows: Tensor) -> None:
        """Gives samples that are seen for the first time their forward values."""
        new = self._visits[rows] == 0
        if not bool(new.any()):
            return
        for cut, target in zip(self._rows, self.targets(batch, rows), strict=True):
            cut[0][rows[new]] = target[new.to(target.device)]
            cut[2][rows[new]] = self._rate

    @torch.no_grad()
    def targets(self, batch: Batch, rows: Tensor) -> list[Tensor]:
        """Returns the targets of a batch as they are.

        Samples that were never seen have the forward values that they would begin
        with.
        """
        self._grow(int(rows.max()) + 1)
        found = [cut[0][rows] for cut in self._rows]
        new = self._visits[rows] == 0
        if bool(new.any()):
            with frozen(self._relaxation.model):
                values = self._relaxation.values(batch)
            for own, value in zip(found, values, strict=True):
                chosen = new.to(value.device)
                own[chosen] = value[chosen].to(own.dtype)
        return found

    def _grow(self, samples: int) -> None:
        """Makes room; by doubling, so that the first epoch copies little."""
        have = len(self._visits)
        if samples <= have:
            return
        room = max(samples, 2 * have)
        self._visits = torch.cat([self._visits, self._visits.new_zeros(room - have)])
        if not self._rows:
            like = next(self._relaxation.model.parameters())
            self._rows = [
                [like.new_zeros((0, *spot.shape)).detach() for _ in range(3)]
                for spot in self._relaxation.cuts.spots
            ]
        self._rows = [
            [torch.cat([t, t.new_zeros((room - have, *t.shape[1:]))]) for t in cut]
            for cut in self._rows
        ]

    def state_of(self, rows: Tensor) -> dict[str, Any]:
        """Returns a copy of what the table holds of some samples."""
        self._grow(int(rows.max()) + 1)
        return {
            "visits": self._visits[rows],
            "rows": [[tensor[rows] for tensor in cut] for cut in self._rows],
        }

    def put_back(self, rows: Tensor, state: dict[str, Any]) -> None:
        """Undoes what happened to some samples since ``state_of``."""
        self._visits[rows] = state["visits"]
        for cut, before in zip(self._rows, state["rows"], strict=True):
            for tensor, value in zip(cut, before, strict=True):
                tensor[rows] = value

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next step needs."""
        return {"visits": self._visits, "rows": self._rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what ``state_dict`` gave."""
        self._visits = state["visits"].clone()
        self._rows = [[tensor.clone() for tensor in cut] for cut in state["rows"]]


def _add(weight: nn.Parameter, gradient: Tensor | None) -> None:
    if gradient is None:
        return
    weight.grad = gradient if weight.grad is None else weight.grad + gradient
