"""Forms of inputs: what shape, type and values, before any number is drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

Fill = Literal["normal", "uniform", "ids", "bits", "full"]


@runtime_checkable
class Form(Protocol):
    """Something that can be drawn, for any number of samples."""

    def draw(self, generator: torch.Generator) -> Any:
        """Returns values from ``generator``."""

    def sized(self, size: int) -> Form:
        """Returns the same form for ``size`` samples."""

    def cast(self, dtype: torch.dtype) -> Form:
        """Returns the same form with floats of ``dtype``."""

    @property
    def numel(self) -> int:
        """Number of elements of one sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorForm:
    """One tensor.

    Attributes:
        shape: with the batch dimension.
        dtype: of the drawn tensor.
        fill: ``normal`` (mean 0, variance 1), ``uniform`` in [0, 1), ``ids`` (whole
            numbers below ``high``), ``bits`` (a fair coin), ``full`` (``high``).
        high: exclusive bound of ids, or the value of ``full``.
        batch_dims: dimensions that hold the number of samples; none if fixed.
        fixed_type: ``dtype`` was asked for; ``cast`` leaves it.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    fill: Fill = "normal"
    high: int = 0
    batch_dims: tuple[int, ...] = (0,)
    fixed_type: bool = False

    def draw(self, generator: torch.Generator) -> Tensor:
        """Returns a tensor on the CPU.

        Floats are drawn in float32 and cast, so that every type sees the same
        numbers.
        """
        if self.fill == "ids":
            return torch.randint(self.high, self.shape, generator=generator).to(
                self.dtype
            )
        if self.fill == "bits":
            return (torch.rand(self.shape, generator=generator) < 0.5).to(self.dtype)
        if self.fill == "full":
            return torch.full(self.shape, self.high).to(self.dtype)
        if self.fill == "uniform":
            return torch.rand(self.shape, generator=generator).to(self.dtype)
        base = torch.complex64 if self.dtype.is_complex else torch.float32
        return torch.randn(self.shape, generator=generator, dtype=base).to(self.dtype)

    def sized(self, size: int) -> TensorForm:
        """Returns the same form for ``size`` samples."""
        shape = tuple(
            size if dim in self.batch_dims else extent
            for dim, extent in enumerate(self.shape)
        )
        return dataclasses.replace(self, shape=shape)

    def cast(self, dtype: torch.dtype) -> TensorForm:
        """Returns the same form with floats of ``dtype``."""
        if self.fixed_type or not self.dtype.is_floating_point:
            return self
        return dataclasses.replace(self, dtype=dtype)

    @property
    def numel(self) -> int:
        """Number of elements of one sample."""
        count = 1
        for dim, extent in enumerate(self.shape):
            count *= 1 if dim in self.batch_dims else extent
        return count

    def __str__(self) -> str:
        name = str(self.dtype).removeprefix("torch.")
        shape = "x".join(str(extent) for extent in self.shape)
        below = f" below {self.high}" if self.fill == "ids" else ""
        return f"{name} {shape}{below}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallForm:
    """One call of a model: trees of forms, and plain values between them.

    Attributes:
        args, kwargs: what ``model(*args, **kwargs)`` gets.
        size: number of samples.
        why: how the form was found, for the user.
        own_loss: in train mode the model computes its loss from these inputs.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    size: int = 1
    why: str = ""
    own_loss: bool = False

    def draw(
        self, generator: torch.Generator
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns arguments drawn from ``generator``, in a fixed order."""
        args, kwargs = _walk((self.args, self.kwargs), lambda f: f.draw(generator))
        return args, kwargs

    def sized(self, size: int) -> CallForm:
        """Returns the same call for ``size`` samples."""
        args, kwargs = _walk((self.args, self.kwargs), lambda form: form.sized(size))
        return dataclasses.replace(self, args=args, kwargs=kwargs, size=size)

    def cast(self, dtype: torch.dtype) -> CallForm:
        """Returns the same call with floats of ``dtype``."""
        args, kwargs = _walk((self.args, self.kwargs), lambda form: form.cast(dtype))
        return dataclasses.replace(self, args=args, kwargs=kwargs)

    @property
    def numel(self) -> int:
        """Number of elements that one sample has in all its tensors."""
        found: list[int] = []
        _walk((self.args, self.kwargs), lambda form: found.append(form.numel))
        return sum(found)

    def __str__(self) -> str:
        parts = [_text(form) for form in self.args]
        parts += [
            f"{name}={_text(form)}"
            for name, form in self.kwargs.items()
            if _holds_form(form)
        ]
        return ", ".join(parts) or "no input"


def _walk(tree: Any, change: Callable[[Form], Any]) -> Any:
    """Returns ``tree`` with every form changed; containers are rebuilt."""
    if isinstance(tree, Form):
        return change(tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_walk(item, change) for item in tree))
    if isinstance(tree, (list, tuple)):
        return type(tree)(_walk(item, change) for item in tree)
    if isinstance(tree, dict):
        return {key: _walk(item, change) for key, item in tree.items()}
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        names = [spec.name for spec in dataclasses.fields(tree) if spec.init]
        changed = {name: _walk(getattr(tree, name), change) for name in names}
        return dataclasses.replace(tree, **changed)
    return tree


def _holds_form(tree: Any) -> bool:
    found: list[Form] = []
    _walk(tree, found.append)
    return bool(found)


def _text(tree: Any) -> str:
    if dataclasses.is_dataclass(tree) and not isinstance(tree, (type, Form)):
        tree = {f.name: getattr(tree, f.name) for f in dataclasses.fields(tree)}
    if isinstance(tree, dict):
        inner = ", ".join(f"{key}: {_text(item)}" for key, item in tree.items())
        return f"{{{inner}}}"
    if isinstance(tree, (list, tuple)):
        return f"({', '.join(_text(item) for item in tree)})"
    return str(tree)
