"""Runs of a model during a conversion that leave nothing behind in it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRun
from vgaudit.probe.forward import failed_call
from vgaudit.probe.passes import shrink
from vgaudit.probe.state import eager, prepare_mode, untouched
from vgaudit.probe.tensors import cast, tensors_in

T = TypeVar("T")
Mode = Literal["train", "eval"]
MODES: tuple[Mode, ...] = ("train", "eval")
_FEW = 8


@contextlib.contextmanager
def observing(model: nn.Module, mode: Mode) -> Iterator[None]:
    """Lets the model run without gradients or dropout; buffers and modes stay.

    Random states stay too, so that two runs draw the same numbers.
    """
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with untouched(model), eager(model), torch.no_grad():
        prepare_mode(model, mode)
        try:
            yield
        finally:
            for buffer, before in buffers:
                buffer.copy_(before)


def on_few(work: Callable[[Batch], T], batch: Batch) -> T:
    """Returns what ``work`` makes of a few samples of a batch.

    Some models take one size of batch, such as programs that were exported for it:
    where the few do not run, all do.

    Raises:
        CannotRun: neither runs.
    """
    few = shrink(batch, min(batch.size, _FEW))
    try:
        return work(few)
    except CannotRun:
        if few.size == batch.size:
            raise
        return work(batch)


def call(model: nn.Module, batch: Batch) -> Any:
    """Returns what the model makes of a batch, on the model's own device.

    Raises:
        CannotRun: the model fails.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    args, kwargs = cast((batch.args, batch.kwargs), device=device, dtype=None)
    return call_with(model, args, kwargs)


def call_with(model: nn.Module, args: Any, kwargs: Any) -> Any:
    """Returns what the model makes of arguments that are where it is.

    Raises:
        CannotRun: the model fails.
    """
    try:
        return model(*args, **kwargs)
    except Stop:
        raise
    except Exception as error:
        raise failed_call(error) from error


class Stop(Exception):
    """Ends a forward pass whose rest is not needed."""


def outputs(model: nn.Module, batches: Iterable[Batch], mode: Mode) -> list[Tensor]:
    """Returns every tensor that the model returns, batch after batch."""
    with observing(model, mode):
        return [
            tensor.detach().clone()
            for batch in batches
            for tensor in tensors_in(call(model, batch))
        ]


def outputs_of(
    model: nn.Module, paths: Sequence[str], batch: Batch, mode: Mode
) -> dict[str, list[Tensor]]:
    """Returns the outputs of some modules in one pass, call after call."""
    found: dict[str, list[Tensor]] = {path: [] for path in paths}

    def keep(path: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            found[path] += [tensor.detach().clone() for tensor in tensors_in(output)]

        return hook

    with observing(model, mode), hooked(model, paths, keep):
        call(model, batch)
    return found


def planned_calls(model: nn.Module, paths: Sequence[str], batch: Batch) -> Counter[str]:
    """Returns how often each module is called where the graph of a plan was recorded.

    That was on a few samples, and how often a layer runs may depend on them.
    """
    return on_few(lambda few: count_calls(model, paths, few), batch)


def count_calls(model: nn.Module, paths: Sequence[str], batch: Batch) -> Counter[str]:
    """Returns how often each module is called in one pass."""
    counts: Counter[str] = Counter()

    def count(path: str) -> Any:
        def hook(_module: nn.Module, _args: Any, _output: Any) -> None:
            counts[path] += 1

        return hook

    with observing(model, "train"), hooked(model, paths, count):
        call(model, batch)
    return counts


@contextlib.contextmanager
def hooked(model: nn.Module, paths: Iterable[str], make: Any) -> Iterator[None]:
    """Puts the forward hook ``make(path)`` on some modules for a while."""
    handles = [
        model.get_submodule(path).register_forward_hook(make(path)) for path in paths
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def largest_difference(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Returns the largest |Δ| of any element; infinite where shapes or NaN differ."""
    if len(before) != len(after):
        return float("inf")
    return max(
        (_difference(a, b) for a, b in zip(before, after, strict=True)), default=0.0
    )


def _difference(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if a.numel() == 0 or torch.equal(a, b):
        return 0.0
    wide = torch.complex128 if a.is_complex() else torch.float64
    delta = (a.to(wide) - b.to(wide)).abs()
    same = (a == b) | (a.isnan() & b.isnan())
    worst = float(delta.masked_fill(same, 0.0).max())
    return float("inf") if worst != worst else worst


def largest(tensors: Iterable[Tensor]) -> float:
    """Returns the largest finite |value|."""
    peaks = [
        tensor.detach().abs().double().nan_to_num(0.0, 0.0, 0.0).max().item()
        for tensor in tensors
        if tensor.numel() and not tensor.is_complex()
    ]
    return float(max(peaks, default=0.0))
