"""``ar`` and ``rescale`` of matrices that a module multiplies with by hand.

No layer's forward runs there, so what the matrix meets and gives is watched at the
product itself. The output projection of fused attention is one of these, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vgaudit.conversion import ConvertOptions, Edit
from vgaudit.data.batch import Batch
from vgaudit.errors import BadConfig, CannotRewrite
from vgaudit.nn import (
    Inputs,
    Limit,
    Matrix,
    bake_parameter,
    fold_parameter_,
    parameter_size,
    rotate_parameter,
    rotated_parameters,
    set_parameter_limit_,
)
from vgaudit.probe.naming import name_of
from vgaudit.treatments import rotation_options as wanted_of
from vgaudit.treatments import running
from vgaudit.treatments.done import Done
from vgaudit.treatments.nodes import ATTENTION, ATTENTION_BIAS, ATTENTION_WEIGHT
from vgaudit.treatments.plan import LayerTarget
from vgaudit.treatments.statistics import QUANTILE
from vgaudit.treatments.steps import Step, Turn

_PRODUCTS = frozenset(
    {"linear", "matmul", "__matmul__", "__rmatmul__", "mm", "addmm", "bmm", "baddbmm"}
    | {"einsum"}
)
_SAMPLE = 1 << 20


@dataclass(slots=True)
class _Met:
    """What a matrix is multiplied with and gives, over all calls."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")
    sizes: list[Tensor] = field(default_factory=list)

    def add(self, data: Tensor, product: Tensor) -> None:
        wide = data.detach().double()
        self.count += wide.numel()
        self.total += float(wide.sum())
        self.squares += float(wide.square().sum())
        self.low = min(self.low, float(wide.min()))
        self.high = max(self.high, float(wide.max()))
        flat = product.detach().abs().flatten()
        self.sizes.append(flat[:: max(1, flat.numel() // _SAMPLE)].double())

    def inputs(self, options: ConvertOptions) -> Inputs:
        """Returns moments, or the range where D needs one."""
        if options.denominator != "moments":
            return Inputs.range(self.low, self.high)
        mean = self.total / self.count
        deviation = max(self.squares / self.count - mean * mean, 0.0) ** 0.5
        return Inputs.moments(mean, deviation)

    def size(self) -> float:
        """Returns the 99 % quantile of |f|."""
        flat = torch.cat(self.sizes)
        return float(flat.kthvalue(max(1, round(QUANTILE * flat.numel()))).values)


class _Watching(TorchFunctionMode):
    """Sees every product with one parameter, or with a view of it."""

    def __init__(self, parameter: Tensor) -> None:
        super().__init__()
        self.parameter = parameter
        self.met = _Met()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = name_of(func)
        if name == ATTENTION and self._is_mine(args[ATTENTION_WEIGHT]):
            with torch._C.DisableTorchFunction():
                self.met.add(_attended(func, args, kwargs), out[0])
        elif name in _PRODUCTS:
            with torch._C.DisableTorchFunction():
                given = [*args[1:], *args[:1]] if _adds(func) else list(args)
                tensors = [x for x in given if isinstance(x, Tensor)]
                data = [x for x in tensors if not self._is_mine(x)]
                if len(data) < len(tensors) and data and data[0].is_floating_point():
                    self.met.add(data[0], out)
        return out

    def _is_mine(self, tensor: Any) -> bool:
        if not isinstance(tensor, Tensor):
            return False
        base = tensor._base if tensor._is_view() else None
        return tensor is self.parameter or base is self.parameter


def _attended(func: Any, args: Any, kwargs: Any) -> Tensor:
    """Returns what enters the output projection of fused attention.

    A projection by the identity gives it.
    """
    given = list(args)
    weight = given[ATTENTION_WEIGHT]
    given[ATTENTION_WEIGHT] = torch.eye(weight.shape[1]).to(weight)
    given[ATTENTION_BIAS] = None
    values: Tensor = func(*given, **(kwargs or {}))[0]
    return values


def _adds(func: Callable[..., Any]) -> bool:
    """Tells ``addmm`` and ``baddbmm``, whose first argument is no factor."""
    return "add" in name_of(func)


def treat_in(
    done: Done,
    model: nn.Module,
    target: LayerTarget,
    batches: Sequence[Batch],
    options: ConvertOptions,
) -> None:
    """Rotates or rescales one matrix in place, and notes that or why it was not."""
    limit = wanted_of.limit_of(target, options)
    try:
        edit, steps = _treated(model, target, batches, options, limit=limit)
    except (CannotRewrite, BadConfig) as error:
        done.refuse(target, error)
    else:
        done.add(edit, steps)


def _treated(
    model: nn.Module,
    target: LayerTarget,
    batches: Sequence[Batch],
    options: ConvertOptions,
    *,
    limit: float,
) -> tuple[Edit, list[Step]]:
    """Rotates or rescales one matrix in place.

    Raises:
        CannotRewrite: its products do not vary, or nothing reads it by its name.
    """
    owner = model.get_submodule(target.path)
    parameter = owner._parameters[target.parameter]
    assert parameter is not None
    with running.observing(model, "train"), _Watching(parameter) as watching:
        for batch in batches:
            running.call(model, batch)
    met = watching.met
    size = met.size() if met.count else 0.0
    if not 0 < size < float("inf"):
        raise CannotRewrite(f"VG701 the products of {target.name} are not seen, or 0")
    if options.to == "rescale":
        with torch.no_grad():
            parameter.mul_(limit / size)
        change = f"weights × {limit / size:.4g}: 99 % of |z| below {limit:.4g}"
        return _edit(target, f"{change} (was {size:.3g})"), []
    change = _rotated(owner, target, met, options, limit=limit)
    if not _is_read(model, owner, target.parameter, batches[0]):
        bake_parameter(owner, target.parameter)
        raise CannotRewrite(f"VG701 {target.name} is read past the module's attribute")
    return _edit(target, change), [turn_step(owner, target)]


def _rotated(
    owner: nn.Module,
    target: LayerTarget,
    met: _Met,
    options: ConvertOptions,
    *,
    limit: float,
) -> str:
    """Rotates a matrix, folds it, and returns what was done."""
    name, source = target.parameter, wanted_of.source_of(options)
    wanted: Any = "preserve" if options.preserve else limit
    if source in ("normal", "uniform"):
        raise CannotRewrite("VG701 L is not drawn for a parameter used by hand")
    rotate_parameter(
        owner,
        Matrix(name, target.axis),
        limit=Limit(wanted, wanted_of.type_of(options)),
        denominator=wanted_of.denominator_of(options),
        inputs=met.inputs(options),
    )
    if options.preserve:
        return "auto-rotated with L = D: ρ = 1, the function is kept"
    if source == "calibrated":
        d = parameter_size(owner, name).detach()
        set_parameter_limit_(owner, name, torch.where(d > 0, d, 1) * limit / met.size())
        figures = f"99 % of |z| below {limit:.4g} (was {met.size():.3g})"
    else:
        figures = f"D {options.denominator}, L = {limit:g}"
    if options.fold is False:
        return f"auto-rotated, not folded: {figures}"
    fold_parameter_(owner, name)
    return f"auto-rotated, folded: {figures}"


def _edit(target: LayerTarget, change: str) -> Edit:
    return Edit(
        path=target.name,
        kind="Parameter",
        change=f"{change}; a bias added by hand stays",
        activations=tuple(act.site.key for act in target.acts),
        source=target.acts[0].site.source,
    )


@torch.no_grad()
def _is_read(model: nn.Module, owner: nn.Module, name: str, batch: Batch) -> bool:
    """Tells whether the rotation reaches the outputs: L that is NaN must be seen."""
    limit = getattr(owner, f"{name}_ar_limit")
    before = limit.clone()
    limit.fill_(float("nan"))
    try:
        return any(
            bool(t.isnan().any()) for t in running.outputs(model, [batch], "train")
        )
    finally:
        limit.copy_(before)


def turn_step(owner: nn.Module, target: LayerTarget) -> Step:
    """Returns how to rotate a parameter again."""
    axis, how = rotated_parameters(owner)[target.parameter]
    turn = Turn.of(how, scalar_inputs=True)
    return Step(kind="parameter", path=target.name, axis=axis, turn=turn)
