"""The structural edits of a conversion as plain data, and how they are made again.

A converted model is its architecture, these steps in order, and a state_dict. The
steps travel with the model (``steps_of``) and in the recipe beside its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from vgaudit.errors import CannotRewrite
from vgaudit.nn import (
    AutoRotation,
    Denominator,
    Grid,
    Inputs,
    Limit,
    Matrix,
    PiecewiseLinear,
    Rotation,
    auto_rotate,
    bake,
    rotate_parameter,
    unfuse,
)
from vgaudit.plain import visible
from vgaudit.treatments.retracing import retrace
from vgaudit.treatments.rewriting import rewritten_class
from vgaudit.treatments.source import CallEdit

_ATTRIBUTE = "vgaudit_steps"
Kind = Literal[
    "bias",
    "rotate",
    "parameter",
    "bake",
    "module",
    "attribute",
    "calls",
    "unfuse",
    "trace",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The shape of a PiecewiseLinear, without its values.

    Attributes:
        channels: one function per channel, or None. channel_dim: which dimension.
        hinges: how many. rows: rows of hinges, 1 or ``channels``.
        residual: base(x) + PL(x), with the replaced activation as base.
    """

    channels: int | None
    channel_dim: int
    hinges: int
    rows: int
    residual: bool

    def build(self, base: Callable[[Tensor], Tensor] | None) -> PiecewiseLinear:
        """Returns the module with placeholder values."""
        positions = torch.arange(self.hinges, dtype=torch.float32)
        return PiecewiseLinear(
            self.channels,
            start="residual" if self.residual and base is not None else "relu",
            base=base if self.residual else None,
            grid=Grid.at(positions.expand(self.rows, -1)),
            channel_dim=self.channel_dim,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """How a layer is rotated, without its tensors.

    Attributes:
        denominator: its fields. inputs: ``range`` or ``moments``.
        scalar_inputs: one number for all inputs.
        limit_type, storage: of L.
    """

    denominator: dict[str, Any]
    inputs: str
    scalar_inputs: bool
    limit_type: str
    storage: str

    @classmethod
    def of(cls, how: Rotation, *, scalar_inputs: bool) -> Turn:
        """Returns the turn of a rotation."""
        return cls(
            denominator=asdict(how.denominator),
            inputs=how.inputs,
            scalar_inputs=scalar_inputs,
            limit_type=how.limit_type,
            storage=how.storage,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One structural edit.

    Attributes:
        kind: ``bias``: a layer gets one. ``rotate``, ``bake``: a layer becomes
            auto-rotated, or plain again. ``parameter``: one that a module multiplies
            with by hand becomes auto-rotated. ``module``: an activation module is
            replaced under all its names. ``attribute``: a function that is an
            attribute of a module. ``calls``: calls in the source of a module's
            methods. ``unfuse``: a recurrent layer runs step by step. ``trace``: the
            model becomes a graph; always the last.
        path: the module that is edited; the first name, for ``module``.
        paths: every name of a replaced module; modules that a trace takes whole.
        name: the attribute.
        calls: the calls, with ``lines`` in the same order.
        lines: the new activations.
        turn: the rotation.
        axis: of the units of a rotated parameter, from the end.
    """

    kind: Kind
    path: str
    paths: tuple[str, ...] = ()
    name: str = ""
    calls: tuple[CallEdit, ...] = ()
    lines: tuple[Line, ...] = ()
    turn: Turn | None = None
    axis: int = 0


class PassedOn(nn.Module):
    """base(x) + PL(x) for a function that is called in the source: φ is passed on.

    Args:
        line: the piecewise linear part, 0 at the start.
    """

    def __init__(self, line: PiecewiseLinear) -> None:
        super().__init__()
        self.line = line

    def forward(self, base: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Returns base(x, …) + PL(x); ``base`` may be the name of a method."""
        call = getattr(type(x), base) if isinstance(base, str) else base
        result: Tensor = call(x, *args, **kwargs) + self.line(x)
        return result


def steps_of(model: nn.Module) -> tuple[Step, ...]:
    """Returns the edits that a model has had, in order."""
    found = _kept_in(model).get(_ATTRIBUTE, ())
    assert isinstance(found, tuple)
    return found


def note(model: nn.Module, steps: Iterable[Step]) -> None:
    """Adds edits to those a model has had; a baked layer is as if never rotated."""
    done = [*steps_of(model), *steps]
    baked = {step.path for step in done if step.kind == "bake"}
    turned = ("rotate", "parameter", "bake")
    kept = [s for s in done if s.kind not in turned or s.path not in baked]
    _kept_in(model)[_ATTRIBUTE] = tuple(kept)


def _kept_in(model: nn.Module) -> dict[str, Any]:
    """Returns where steps travel with a model: a graph's copies keep only its meta."""
    kept: dict[str, Any] = (
        model.meta if isinstance(model, fx.GraphModule) else model.__dict__
    )
    return kept


def replay(model: nn.Module, steps: Iterable[Step]) -> nn.Module:
    """Makes the edits on a fresh model; their tensors come with its state_dict.

    Returns:
        The same model, or its graph where it was traced.

    Raises:
        CannotRewrite: the model is not the one that was converted.
    """
    done = tuple(steps)
    for step in done:
        try:
            if step.kind == "trace":
                model = retrace(model, step.paths)
            else:
                _MAKERS[step.kind](model, step)
        except (AttributeError, KeyError) as error:
            raise CannotRewrite(
                f"the architecture has no {step.path or 'such module'}: {error}",
                hint="give the architecture that was converted",
            ) from error
        except _IMPOSSIBLE as error:
            raise CannotRewrite(
                f"{step.kind} of {visible(step.path) or 'the model'} cannot be done "
                f"again: {visible(str(error) or type(error).__name__)}",
                hint="the recipe was changed by hand, or is another model's",
            ) from error
    note(model, done)
    return model


_IMPOSSIBLE = (
    *(TypeError, ValueError, AssertionError, StopIteration, IndexError),
    *(RuntimeError, OverflowError, MemoryError),
)


def add_bias(layer: nn.Module, units: int) -> None:
    """Gives a layer a bias of zeros."""
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    zeros = weight.detach().new_zeros(units)
    layer.bias = nn.Parameter(zeros, requires_grad=weight.requires_grad)


def units_of(layer: Any) -> int:
    """Returns the number of units of a Linear layer or convolution."""
    names = ("out_features", "out_channels", "nf")
    return int(next(getattr(layer, name) for name in names if hasattr(layer, name)))


def _bias(model: nn.Module, step: Step) -> None:
    layer = model.get_submodule(step.path)
    add_bias(layer, units_of(layer))


def _rotate(model: nn.Module, step: Step) -> None:
    turn = step.turn
    assert turn is not None
    layer: Any = model.get_submodule(step.path)
    names = ("in_features", "in_channels", "input_size", "nx")
    count = next(getattr(layer, name) for name in names if hasattr(layer, name))
    size = () if turn.scalar_inputs else (int(count),)
    inputs = Inputs(torch.zeros(size), torch.ones(size), turn.inputs)  # type: ignore[arg-type]
    limit = Limit(1.0, turn.limit_type, turn.storage)  # type: ignore[arg-type]
    auto_rotate(
        layer,
        limit=limit,
        denominator=Denominator(**turn.denominator),
        inputs=inputs,
    )
    without_fast_path(model.get_submodule(step.path.rpartition(".")[0]))


def _parameter(model: nn.Module, step: Step) -> None:
    turn = step.turn
    assert turn is not None
    path, _, name = step.path.rpartition(".")
    rotate_parameter(
        model.get_submodule(path),
        Matrix(name, step.axis),
        limit=Limit(1.0, turn.limit_type, turn.storage),  # type: ignore[arg-type]
        denominator=Denominator(**turn.denominator),
        inputs=Inputs(torch.zeros(()), torch.ones(()), turn.inputs),  # type: ignore[arg-type]
    )


def _bake(model: nn.Module, step: Step) -> None:
    layer = model.get_submodule(step.path)
    assert isinstance(layer, AutoRotation)
    bake(layer)


def _module(model: nn.Module, step: Step) -> None:
    old = model.get_submodule(step.path)
    place(model, step.paths, step.lines[0].build(old))


def place(model: nn.Module, paths: Iterable[str], module: nn.Module) -> None:
    """Registers a module under names that exist."""
    for path in paths:
        parent, _, name = path.rpartition(".")
        owner = model.get_submodule(parent)
        owner._modules[name] = module
        without_fast_path(owner)


def _attribute(model: nn.Module, step: Step) -> None:
    owner = model.get_submodule(step.path)
    function = owner.__dict__[step.name]
    put_attribute(owner, step.name, step.lines[0].build(function))


def put_attribute(owner: nn.Module, name: str, module: nn.Module) -> None:
    """Puts a module where a function was an attribute."""
    del owner.__dict__[name]
    setattr(owner, name, module)
    without_fast_path(owner)


def without_fast_path(owner: nn.Module) -> None:
    """Keeps a transformer layer from the fused kernel of eval mode.

    It computes the activation that was noted when the layer was built and reads
    the weights of its linear layers, whatever forward they have now.
    """
    if isinstance(owner, nn.TransformerEncoderLayer):
        owner.activation_relu_or_gelu = 0


def _calls(model: nn.Module, step: Step) -> None:
    owner = model.get_submodule(step.path)
    kind = rewritten_class(type(owner), step.calls)
    for call, line in zip(step.calls, step.lines, strict=True):
        module: nn.Module = line.build(None)
        owner.add_module(call.name, PassedOn(module) if call.keeps else module)  # type: ignore[arg-type]
    owner.__class__ = kind


def _unfuse(model: nn.Module, step: Step) -> None:
    unfuse(model.get_submodule(step.path))


_MAKERS: dict[str, Callable[[nn.Module, Step], None]] = {
    "bias": _bias,
    "rotate": _rotate,
    "parameter": _parameter,
    "bake": _bake,
    "module": _module,
    "attribute": _attribute,
    "calls": _calls,
    "unfuse": _unfuse,
}
