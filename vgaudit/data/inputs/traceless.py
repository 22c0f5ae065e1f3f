"""Running user code without leaving a trace on the model or the terminal."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from vgaudit.data.attributes import Attributes

SMALL_MODEL = 5_000_000
"""Parameters up to which a real run is quicker than a fake one."""


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Restores the class and every attribute of every module.

    Tensors kept as plain attributes are replaced by clones for the time.
    """
    before = Attributes(model.modules())
    before.spare_tensors()
    try:
        yield
    finally:
        before.restore()


@contextlib.contextmanager
def stand_ins(model: nn.Module) -> Iterator[None]:
    """Runs ``model`` on clones of its tensors, without numbers if it is large.

    Everything is put back, also what the block does to the modules. Scripts hold their
    tensors themselves: those are run on as they are, and get their numbers back.
    """
    held = [*model.parameters(), *model.buffers()]
    lazy = any(is_lazy(tensor) for tensor in held)
    small = lazy or sum(tensor.numel() for tensor in held) <= SMALL_MODEL
    clones: dict[int, Tensor] = {}
    with untouched(model), _scripts_kept(model):
        for module in model.modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            for place in (module._parameters, module._buffers):
                for name, tensor in place.items():
                    if tensor is not None:
                        clone = clones.setdefault(id(tensor), _clone(tensor, small))
                        place[name] = clone  # type: ignore[assignment]
        yield


@contextlib.contextmanager
def _scripts_kept(model: nn.Module) -> Iterator[None]:
    """Gives the tensors of compiled modules their numbers back."""
    scripts = [m for m in model.modules() if isinstance(m, torch.jit.ScriptModule)]
    held = [t for m in scripts for t in (*m.parameters(), *m.buffers())]
    numbers = [tensor.detach().clone() for tensor in held]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, before in zip(held, numbers, strict=True):
                tensor.copy_(before)


def _clone(tensor: Any, small: bool) -> Tensor:
    if is_lazy(tensor):
        kind: Any = type(tensor)
        needs_grad = bool(tensor.requires_grad)
        fresh: Tensor = kind(needs_grad, device=tensor.device, dtype=tensor.dtype)
        return fresh
    detached = tensor.detach()
    clone: Tensor = detached.clone() if small else detached.to("meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(clone, requires_grad=tensor.requires_grad)
    return clone


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences prints, warnings and the log that a failed fake run writes."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, logger.disabled = logger.disabled, True
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled
