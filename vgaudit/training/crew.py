"""The processes that train one model together; one alone is a crew, too.

Every rank draws its share of the same batch, whose order is a function of seed and
epoch. So several ranks take the step that one process would take on the whole batch,
to rounding: each mean loss is weighted by the labels, or samples, behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    # Not at run time: one process needs no torch.distributed.
    from vgaudit.distributed import Group


@dataclass(frozen=True, slots=True)
class Part:
    """One of several equal parts of every batch.

    Attributes:
        rank: its number. size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def of(self, rows: Tensor, *, least: int) -> tuple[Tensor, bool]:
        """Returns this part of a batch, and whether it counts.

        Where a batch has too few samples for every part, the last ones get stand-ins
        that do not count: all ranks must run the model, for it is one operation.

        Args:
            rows: of the whole batch.
            least: samples that a part must have.
        """
        parts = max(1, min(self.size, len(rows) // least))
        if self.rank < parts:
            return torch.tensor_split(rows, parts)[self.rank], True
        return rows[:least], False


WHOLE = Part()


class Crew:
    """What the ranks of one training have to say to each other.

    Its methods but for the plain attributes are collective: all ranks call them, in
    the same order. Alone, each returns what it is given.

    Args:
        group: the ranks; None for one process.
        channel: what numbers are exchanged on; None for that of everything.
    """

    def __init__(self, group: Group | None = None, channel: Any = None) -> None:
        self._group = group if group is not None and group.size > 1 else None
        self._channel = channel

    @property
    def group(self) -> Group | None:
        """The ranks; None for one process."""
        return self._group

    @property
    def rank(self) -> int:
        """The number of this process."""
        return 0 if self._group is None else self._group.rank

    @property
    def size(self) -> int:
        """The number of processes."""
        return 1 if self._group is None else self._group.size

    @property
    def first(self) -> bool:
        """Whether this process is the one that measures, records and writes."""
        return self.rank == 0

    @property
    def part(self) -> Part:
        """What this process computes of every batch."""
        return Part(self.rank, self.size)

    def beside(self) -> Crew:
        """Returns the same ranks on a channel of their own.

        For numbers that are exchanged within a backward pass, between whose hooks and
        the exchange of gradients nobody keeps an order.
        """
        if self._group is None:
            return self
        with self._group.failing():
            return Crew(self._group, torch.distributed.new_group(backend="gloo"))

    def sums(self, *values: float) -> list[float]:
        """Returns each number summed over all ranks."""
        if self._group is None:
            return list(values)
        own = torch.tensor(values, dtype=torch.float64)
        found: list[float] = self._group.reduce_sum(own, channel=self._channel).tolist()
        return found

    def any(self, flag: bool) -> bool:
        """Tells whether some rank says yes."""
        return self.sums(float(flag))[0] > 0

    def all_of(self, value: Any) -> list[Any]:
        """Returns every rank's plain values and tensors, in order."""
        return [value] if self._group is None else self._group.everywhere(value)

    def from_first(self, value: Any) -> Any:
        """Returns the first rank's plain values and tensors, on all ranks."""
        return self.from_rank(value, 0)

    def from_rank(self, value: Any, rank: int) -> Any:
        """Returns one rank's plain values and tensors, on all ranks."""
        if self._group is None:
            return value
        from vgaudit.distributed.wire import packed, unpacked

        own = self.rank == rank
        with self._group.failing():
            data = packed(value) if own else torch.empty(0, dtype=torch.uint8)
            size = self.sums(float(data.numel()))[0]
            if not own:
                data = torch.empty(int(size), dtype=torch.uint8)
            torch.distributed.broadcast(data, rank)
            return value if own else unpacked(data)

    def level(self, tensors: Sequence[Tensor]) -> None:
        """Gives all ranks the first rank's values, in place."""
        if self._group is None:
            return
        with self._group.failing(), torch.no_grad():
            for tensor in tensors:
                data = tensor.detach().contiguous()
                # As bytes: no backend knows all types.
                torch.distributed.broadcast(data.reshape(-1).view(torch.uint8), 0)
                if data.data_ptr() != tensor.data_ptr():
                    tensor.copy_(data)


ALONE = Crew()


def state_of(model: nn.Module) -> list[Tensor]:
    """Returns the parameters and buffers of a model."""
    return [*model.parameters(), *model.buffers()]
