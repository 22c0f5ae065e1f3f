"""An architecture built by name or by code, before any weights of a file."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from vgaudit.loading.dispatched import GATHERED, gathered
from vgaudit.loading.loaded import InputHint, LoadedModel, Origin, finish
from vgaudit.loading.spec import Spec

ALLOCATORS = frozenset({torch.empty, torch.rand, torch.randn})


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A module with the name of its architecture.

    Attributes:
        module: seeded; its parameters may be on the meta device where that was
            asked for.
        name: class, or zoo name with its scheme.
        format: ``torchvision``, ``timm``, ``huggingface`` or ``factory``.
        tier: ``T0`` for zoo names, ``T2`` for code.
        sha256: of the file of code, where there is one.
        notes: statements for the user.
        example: an input that fits.
    """

    module: nn.Module
    name: str
    format: str
    tier: str
    sha256: str | None = None
    notes: tuple[str, ...] = ()
    example: InputHint | None = None


def loaded(built: Built, spec: Spec) -> LoadedModel:
    """Returns the architecture as it was built, with no file's weights."""
    module = gathered(built.module)
    apart = module is not built.module
    origin = Origin(
        spec=spec.text,
        format=built.format,
        tier=built.tier,
        sha256=built.sha256,
        notes=(*built.notes, GATHERED) if apart else built.notes,
    )
    return finish(module, origin, architecture=built.name, example=built.example)


class EmptyOnMeta(TorchFunctionMode):
    """Puts what is allocated to be initialised on the meta device.

    Unlike ``torch.device("meta")`` it leaves arithmetic alone: buffers that are
    computed, and that no state_dict holds, come out right.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Calls ``func``, with another device where it allocates."""
        options = dict(kwargs or {})
        if func in ALLOCATORS:
            options["device"] = "meta"
        return func(*args, **options)


def on_meta(module: nn.Module) -> bool:
    """Returns whether any parameter or buffer has no data."""
    tensors = [*module.parameters(), *module.buffers()]
    return any(tensor.is_meta for tensor in tensors)


def has_ties(module: nn.Module) -> bool:
    """Returns whether a parameter has two names."""
    names = sum(1 for _ in module.named_parameters(remove_duplicate=False))
    return names > sum(1 for _ in module.parameters())


def arguments(texts: Mapping[str, str]) -> dict[str, Any]:
    """Returns keyword arguments from text: Python literals, else the text."""
    values: dict[str, Any] = {}
    for name, text in texts.items():
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            values[name] = text
    return values
