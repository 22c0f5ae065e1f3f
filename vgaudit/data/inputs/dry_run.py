"""Trying calls on a model without leaving a trace on it.

Small models run for real, on clones of their parameters and buffers. Large ones
run on fake tensors, which have shapes and no numbers; models whose forward
needs numbers fall back to a real run.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
)
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from vgaudit.data.inputs.form import CallForm
from vgaudit.data.inputs.signature import unwrap
from vgaudit.data.inputs.traceless import SMALL_MODEL, quiet, stand_ins, untouched
from vgaudit.data.losses.outputs import main_output
from vgaudit.data.seeding import generator_for, private_random

_SMALL_INPUT = 2_000_000
"""Input elements up to which a small model runs for real."""

_NEEDS_NUMBERS = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    NotImplementedError,
)
_FAKE_WORDS = ("fake", "data pointer", "data_ptr", "tensor subclass", "meta tensor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one call of the model did.

    Attributes:
        error: why it failed; None if it ran.
        keeps_batch: the output has the number of samples in its first or second
            dimension.
        smallest_map: smallest height or width that a convolution with a kernel
            larger than one was given; None without such a convolution.
    """

    error: Exception | None = None
    keeps_batch: bool = False
    smallest_map: int | None = None

    @property
    def ran(self) -> bool:
        """The call returned."""
        return self.error is None


class DryRun:
    """Runs a model on trial inputs; parameters, buffers and modes stay as they are.

    Attributes:
        tries: calls made so far.
    """

    def __init__(self, model: nn.Module, *, mode: str = "train") -> None:
        self.tries = 0
        self._model = unwrap(model)
        self._training = mode == "train"
        tensors = [*self._model.parameters(), *self._model.buffers()]
        self._lazy = any(is_lazy(tensor) for tensor in tensors)
        self._device = tensors[0].device if tensors else torch.device("cpu")
        size = 0 if self._lazy else sum(tensor.numel() for tensor in tensors)
        self._small = size <= SMALL_MODEL
        self._fake: FakeTensorMode | None = None
        self._fake_state: dict[str, Tensor] = {}
        self._scripted = any(
            isinstance(module, torch.jit.ScriptModule)
            for module in self._model.modules()
        )
        self._no_fake = self._lazy or self._scripted

    def try_form(self, form: CallForm) -> Trial:
        """Returns what happens when the model is called with ``form``."""
        args, kwargs = form.draw(generator_for(0, "dry run"))
        return self.try_call(args, kwargs, size=form.size)

    def try_call(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, size: int
    ) -> Trial:
        """Returns what happens when the model is called with these values."""
        self.tries += 1
        values = (args, kwargs)
        numel = sum(t.numel() for t in pytree.tree_leaves(values) if _is_tensor(t))
        if self._no_fake or (self._small and numel <= _SMALL_INPUT):
            return self._attempt(values, size=size, fake=False)
        trial = self._attempt(values, size=size, fake=True)
        if trial.error is not None and _needs_numbers(trial.error):
            self._no_fake = True
            return self._attempt(values, size=size, fake=False)
        return trial

    def _attempt(self, values: Any, *, size: int, fake: bool) -> Trial:
        maps: list[int] = []
        try:
            with quiet(), private_random(0), untouched(self._model):
                for module in self._model.modules():
                    module.training = self._training
                _watch_maps(self._model, maps)
                output = self._fake_run(values) if fake else self._real_run(values)
        except Exception as error:  # whatever user code raises is the answer
            return Trial(error=error)
        return Trial(
            keeps_batch=_keeps_batch(output, size),
            smallest_map=min(maps, default=None),
        )

    def _real_run(self, values: Any) -> Any:
        args, kwargs = pytree.tree_map_only(
            Tensor, lambda tensor: tensor.to(self._device, copy=True), values
        )
        if self._scripted:  # functional_call refuses scripts
            with torch.no_grad():
                return copy.deepcopy(self._model)(*args, **kwargs)
        if self._lazy:  # a run gives lazy modules their shape: spend stand-ins
            with stand_ins(self._model), torch.no_grad():
                return self._model(*args, **kwargs)
        try:
            with torch.no_grad():
                return _call(self._model, _clones(self._model), args, kwargs)
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
        # The forward differentiates by itself (energy models, PINNs).
        with torch.enable_grad():
            return _call(self._model, _clones(self._model), args, kwargs)

    def _fake_run(self, values: Any) -> Any:
        if self._fake is None:
            self._fake = FakeTensorMode(allow_non_fake_inputs=True)
            self._fake_state = {
                name: self._fake.from_tensor(tensor.detach())
                for name, tensor in _named_tensors(self._model)
            }
        args, kwargs = pytree.tree_map_only(
            Tensor,
            lambda tensor: self._fake.from_tensor(tensor).to(self._device),  # type: ignore[union-attr]
            values,
        )
        with self._fake, torch.no_grad():
            return _call(self._model, self._fake_state, args, kwargs)


def _call(model: nn.Module, state: dict[str, Tensor], args: Any, kwargs: Any) -> Any:
    if not _compiled(model):
        return torch.func.functional_call(model, state, args, kwargs)
    with torch.compiler.set_stance("force_eager"):
        return torch.func.functional_call(model, state, args, kwargs)


def _compiled(model: nn.Module) -> bool:
    return any(
        type(module).__name__ == "OptimizedModule"
        or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _clones(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: tensor.detach().clone().requires_grad_(tensor.requires_grad)
        for name, tensor in _named_tensors(model)
    }


def _watch_maps(model: nn.Module, maps: list[int]) -> None:
    """Notes the extent of each map that a true convolution sees."""

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        kernel: Any = module.kernel_size
        if args and isinstance(args[0], Tensor) and max(kernel) > 1:
            maps.append(min(args[0].shape[-len(kernel) :]))

    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            module.register_forward_pre_hook(note)


def _needs_numbers(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, _NEEDS_NUMBERS) or any(w in text for w in _FAKE_WORDS)


def _keeps_batch(output: Any, size: int) -> bool:
    tensor = main_output(output)
    return tensor is None or tensor.dim() == 0 or size in tensor.shape[:2]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)
