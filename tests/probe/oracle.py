"""A slow and obvious second implementation: hooks that copy, and autograd.grad.

Every output that is looked at is replaced by a copy, so nothing that happens in
place afterwards can touch it; every statistic is numpy's, in float64. It shares
one function with the probe, ``cotangent``, so that both ask the same question.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vgaudit.probe.step import cotangent

WEIGHTED = (
    nn.Linear,
    nn.Bilinear,
    nn.modules.conv._ConvNd,
    nn.Embedding,
)
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


@dataclass
class Seen:
    """What the oracle found on one batch.

    Attributes:
        reference: norm of the cotangents.
        at: (path, call) → norm of the gradient at the output of a layer.
        parameters: name → norm of its gradient.
        inputs: (path, call) → pre-activation of an activation module.
        outputs: the same after it.
    """

    reference: float
    at: dict[tuple[str, int], float] = field(default_factory=dict)
    parameters: dict[str, float] = field(default_factory=dict)
    inputs: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    outputs: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)


def measure(model: nn.Module, args: tuple[Any, ...], dtype: torch.dtype) -> Seen:
    """Returns the figures of ``model(*args)`` in train mode, dropout off."""
    model = model.to(dtype).train()
    for module in model.modules():
        if type(module).__name__.endswith(("Dropout", "StochasticDepth")):
            module.eval()
        if isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
            module.dropout = 0.0
    args = tuple(a.to(dtype) if a.is_floating_point() else a for a in args)
    with _copying(model) as (kept, before, after):
        outputs = flat(model(*args))
    vectors = [cotangent(y, 0, 0, place) for place, y in enumerate(outputs)]
    parameters = dict(model.named_parameters())
    wanted = [*kept.values(), *parameters.values()]
    gradients = torch.autograd.grad(outputs, wanted, vectors, allow_unused=True)
    seen = Seen(reference=math.hypot(*(norm(v) for v in vectors)))
    for key, gradient in zip([*kept, *parameters], gradients, strict=True):
        if gradient is None:
            continue
        table: dict[Any, float] = seen.at if isinstance(key, tuple) else seen.parameters
        table[key] = norm(gradient)
    seen.inputs = {key: value.double().numpy() for key, value in before.items()}
    seen.outputs = {key: value.double().numpy() for key, value in after.items()}
    return seen


@contextlib.contextmanager
def _copying(model: nn.Module) -> Iterator[tuple[dict, dict, dict]]:
    kept: dict[tuple[str, int], Tensor] = {}
    before: dict[tuple[str, int], Tensor] = {}
    after: dict[tuple[str, int], Tensor] = {}
    calls: dict[str, int] = {}
    handles = []

    def hook(path: str, module: nn.Module) -> Callable[..., Tensor]:
        def copy(_: nn.Module, given: tuple[Any, ...], out: Tensor) -> Tensor:
            key = path, calls.get(path, 0)
            calls[path] = key[1] + 1
            if isinstance(module, (*WEIGHTED, *NORMS)):
                kept[key] = out
            else:
                after[key] = out.detach().clone()
            return out.clone()

        return copy

    def pre_hook(path: str) -> Callable[..., None]:
        def copy(_: nn.Module, given: tuple[Any, ...]) -> None:
            before[path, calls.get(path, 0)] = given[0].detach().clone()

        return copy

    for path, module in model.named_modules():
        if is_activation(module):
            handles.append(module.register_forward_pre_hook(pre_hook(path)))
        if is_activation(module) or isinstance(module, (*WEIGHTED, *NORMS)):
            handles.append(module.register_forward_hook(hook(path, module)))
    try:
        yield kept, before, after
    finally:
        for handle in handles:
            handle.remove()


def is_activation(module: nn.Module) -> bool:
    """Tells whether the oracle takes statistics of a module."""
    return isinstance(
        module,
        (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Hardswish,
         nn.Hardsigmoid, nn.LeakyReLU, nn.ELU, nn.Softplus, nn.Mish),
    )  # fmt: skip


def flat(value: Any) -> list[Tensor]:
    """Returns the differentiable tensors of an output, in order."""
    if isinstance(value, Tensor):
        return [value] if value.requires_grad else []
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in flat(item)]
    return []


def norm(values: Tensor) -> float:
    """Returns the L2 norm, summed in float64 by numpy."""
    if values.is_sparse:
        values = values.to_dense()
    numbers = values.detach().double().numpy().ravel()
    top = float(np.abs(numbers).max(initial=0.0))
    return top * math.sqrt(float(np.sum((numbers / top) ** 2))) if top else 0.0


def slope(module: nn.Module, z: np.ndarray) -> np.ndarray:
    """Returns φ′(z) of an elementwise module by autograd in float64."""
    out_of_place = type(module)(**_settings(module)).double()
    leaf = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    out_of_place(leaf).sum().backward()
    assert leaf.grad is not None
    return leaf.grad.numpy()


def _settings(module: nn.Module) -> dict[str, Any]:
    wanted = ("negative_slope", "alpha", "approximate", "beta")
    return {name: getattr(module, name) for name in wanted if hasattr(module, name)}
