"""Watching a forward pass whose graph is known: no names, no modules, no stack.

The first pass has put the calls of activations in an order. Here the n-th call is
taken for the n-th of that order, which nothing but the graph of the pass can confirm:
each call must have made the node that the one of the same number made then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from vgaudit.probe import activations, dropout
from vgaudit.probe.activations import Activation, Slope, by_autograd_of
from vgaudit.probe.graph import Graph
from vgaudit.probe.observe import observe
from vgaudit.probe.recording import Recording, Visit
from vgaudit.probe.tensors import wide


@dataclass(frozen=True, slots=True)
class _Known:
    """An activation in one call: what is known of it, and whether it is in place."""

    activation: Activation
    inplace: bool
    slope: Slope | None


@dataclass(slots=True)
class _Role:
    """What a torch function may be, by its name alone.

    Attributes:
        drops: it may drop values out. activates: it may be an activation.
        alone: what it is in a call with one argument.
    """

    drops: bool
    activates: bool
    alone: _Known | None = None


_PLAIN = _Role(drops=False, activates=False)


class Follower(TorchFunctionMode):
    """Measures the activations of one forward pass; a context manager.

    Args:
        visits: the calls of activations, in the order of the first pass.
        samples: samples in the batch.

    Attributes:
        recording: the statistics.
        backward: set, to let what a backward pass runs again go unmeasured.
    """

    def __init__(self, visits: Sequence[Visit], *, samples: int) -> None:
        super().__init__()
        self.recording = Recording()
        self.backward = False
        self._visits, self._samples = visits, samples
        self._made: list[Node | None] = []
        self._lost = False
        self._roles: dict[Callable[..., Any], _Role] = {}

    def confirmed(self, graph: Graph) -> bool:
        """Tells whether the pass that made ``graph`` made the calls that were known."""
        if self._lost or len(self._made) != len(self._visits):
            return False
        index = graph.index
        pairs = zip(self._made, self._visits, strict=True)
        return all(
            (-1 if node is None else index.get(node, -1)) == visit.place
            for node, visit in pairs
        )

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Runs one torch function, dropout off, and measures an activation."""
        kwargs = kwargs or {}
        role = self._roles.get(func)
        if role is None:
            role = self._roles[func] = _role(func)
        if role is _PLAIN:
            return func(*args, **kwargs)
        if role.drops:
            args, kwargs = dropout.without_dropout(func, args, kwargs)
        if self.backward or not role.activates:
            return func(*args, **kwargs)
        return self._call(role, func, args, kwargs)

    def _call(
        self,
        role: _Role,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if "input" in kwargs:
            args, kwargs = activations.positional(args, kwargs)
        known = _known(role, func, args, kwargs)
        given = args[0] if args else None
        if known is None or not isinstance(given, Tensor):
            return func(*args, **kwargs)
        if torch._C._functorch.is_functorch_wrapped_tensor(given):
            return func(*args, **kwargs)
        z = given.detach().clone() if known.inplace else given.detach()
        out = func(*args, **kwargs)
        if not isinstance(out, Tensor) or out.shape != z.shape or z.numel() == 0:
            return out
        number = len(self._made)
        visit = self._visits[number] if number < len(self._visits) else None
        if visit is None or visit.kind != known.activation.name:
            self._lost = True
            return out
        self._made.append(out.grad_fn)
        if visit.key:
            form = known.slope
            if form is None:
                again = activations.call_without_inplace(func, args, kwargs)
                form = by_autograd_of(again)
            self._observe(visit, known.activation, (z, out.detach()), form)
        return out

    def _observe(
        self,
        visit: Visit,
        activation: Activation,
        values: tuple[Tensor, Tensor],
        form: Slope,
    ) -> None:
        with torch._C.DisableTorchFunction():
            z, out = wide(values[0]), wide(values[1])
            self.recording.observations.append(
                observe(
                    visit.key,
                    activation,
                    (z, out, lambda: form(z, out)),
                    axis=visit.axis,
                    samples=self._samples,
                )
            )


def _known(
    role: _Role, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> _Known | None:
    alone = len(args) == 1 and not kwargs
    if alone and role.alone is not None:
        return role.alone
    activation = activations.canonical(func, args, kwargs)
    if activation is None:
        return None
    inplace = activations.is_inplace(func, kwargs, args)
    known = _Known(activation, inplace, activations.slope_of(activation, kwargs))
    if alone:
        role.alone = known
    return known


def _role(func: Callable[..., Any]) -> _Role:
    role = _Role(drops=dropout.may_drop(func), activates=activations.may_activate(func))
    return role if role.drops or role.activates else _PLAIN
