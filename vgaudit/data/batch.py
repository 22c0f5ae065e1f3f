"""What a model is run on: batches and losses, as values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One call of the model: ``model(*args, **kwargs)``.

    Attributes:
        args, kwargs: what the model is called with.
        labels: what the loss compares the output with, or None.
        size: number of samples.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    labels: Any = None
    size: int = 1


@dataclass(frozen=True, slots=True)
class Loss:
    """A named loss: ``function(output, labels)`` returns a scalar tensor.

    Attributes:
        name: as the report states it.
        function: raises ``CannotRun`` where no gradient can come of the value.
        note: why this loss was chosen, where vgaudit chose it.
        divisor: what the mean over a batch divides by, from its labels; None for the
            number of samples.
    """

    name: str
    function: Callable[[Any, Any], Tensor]
    note: str = ""
    divisor: Callable[[Tensor], float] | None = None
