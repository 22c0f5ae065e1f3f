"""Reaching into a forward pass at chosen calls, without changing the model.

A ``TorchFunctionMode`` counts the calls of each torch function and hands the value
of a chosen one to a visitor, which may put another in its place. Nothing is wrapped,
hooked or traced: the model is the ordinary model before, during and after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vgaudit.errors import CannotRun
from vgaudit.probe.dropout import without_dropout


@dataclass(frozen=True, slots=True)
class Spot:
    """One call of a forward pass, as it is found again in the next.

    Attributes:
        function: the torch function that is called.
        occurrence: which of its calls that give a floating-point tensor, from 0.
        path: the module in which it is called, for messages.
        shape: of its value, without the first dimension.
        kind: bare name of the operation: ``Addmm``, ``Add``, ``Sigmoid``.
    """

    function: Callable[..., Any]
    occurrence: int
    path: str
    shape: tuple[int, ...]
    kind: str

    @property
    def name(self) -> str:
        """The place in words: ``block.2 linear``."""
        called = getattr(self.function, "__name__", "call").strip("_")
        return f"{self.path} {called}".lstrip()


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is being made: ``function(*args, **kwargs)`` gave ``value``."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    value: Any


Visitor = Callable[[int, Call], Tensor]


class Splice(TorchFunctionMode):
    """Hands the values of some calls to a visitor; a context manager for one pass.

    Args:
        spots: the calls, in the order of the pass.
        visit: gets the number of the spot and the call; what it returns is what
            the model goes on with.
        watch: gets every call, for those who need what lies between the spots.
        dropout: False turns dropout off.
    """

    def __init__(
        self,
        spots: Sequence[Spot],
        visit: Visitor,
        *,
        watch: Callable[[Call], None] | None = None,
        dropout: bool = True,
    ) -> None:
        super().__init__()
        self._spots = spots
        self._visit = visit
        self._watch = watch
        self._dropout = dropout
        self._numbers = {
            (spot.function, spot.occurrence): number
            for number, spot in enumerate(spots)
        }
        self._functions = {spot.function for spot in spots}
        self._counts: Counter[Callable[..., Any]] = Counter()
        self._passed = 0

    def __enter__(self) -> Splice:
        self._counts.clear()
        self._passed = 0
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        if error[0] is None and self._passed < len(self._spots):
            raise _strayed(self._spots[self._passed], "did not reach it")

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Runs one torch function, and visits its value at a spot."""
        kwargs = kwargs or {}
        if not self._dropout:
            args, kwargs = without_dropout(func, args, kwargs)
        value = func(*args, **kwargs)
        if self._watch is not None:
            self._watch(Call(func, args, kwargs, value))
        if func not in self._functions or not is_value(value):
            return value
        number = self._numbers.get((func, self._counts[func]))
        self._counts[func] += 1
        if number is None:
            return value
        return self._at(number, Call(func, args, kwargs, value))

    def _at(self, number: int, call: Call) -> Tensor:
        spot = self._spots[number]
        if number != self._passed:
            raise _strayed(spot, "came to it out of order")
        if tuple(call.value.shape[1:]) != spot.shape:
            shape = list(call.value.shape[1:])
            raise _strayed(spot, f"has a value of {shape} there, not {[*spot.shape]}")
        self._passed += 1
        with torch._C.DisableTorchFunction():
            return self._visit(number, call)


def is_value(value: Any) -> bool:
    """Tells whether a call gave one floating-point tensor with samples."""
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return floating and value.dim() > 0


def _strayed(spot: Spot, how: str) -> CannotRun:
    return CannotRun(
        f"the cut at '{spot.name}' was lost: this pass {how}",
        hint="RAI needs the same calls on samples of the same shape in every pass",
    )
