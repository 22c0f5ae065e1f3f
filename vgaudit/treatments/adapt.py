"""AdAct: puts trainable piecewise linear functions in place of activations."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vgaudit.conversion import ConvertOptions, Edit, Refusal
from vgaudit.errors import BadConfig, CannotRewrite
from vgaudit.nn import ACTIVATIONS, Grid, PiecewiseLinear
from vgaudit.treatments.plan import ActTarget
from vgaudit.treatments.rewriting import rewritten_class
from vgaudit.treatments.source import CallEdit, Located, locate
from vgaudit.treatments.steps import Line, PassedOn, Step, place, put_attribute

Base = Callable[[Tensor], Tensor]
_EXACT = frozenset({"relu", "relu6", "hardtanh"})
"""Reproduced to the last bit by a piecewise linear function."""
_SPREAD = 3.0
_REACH = 4.0


@dataclass(slots=True)
class Change:
    """One replaced activation.

    Attributes:
        target: which.
        path: where the new module is.
        edit: what was done.
        step: how to do it again.
        undo: puts the old activation back.
    """

    target: ActTarget
    path: str
    edit: Edit
    step: Step
    undo: Callable[[], None]


def adapt(
    model: nn.Module, targets: Sequence[ActTarget], options: ConvertOptions
) -> tuple[list[Change], list[Refusal]]:
    """Replaces activations in place; says which could not be, and why."""
    changes: list[Change] = []
    refusals: list[Refusal] = []
    calls: dict[str, list[tuple[ActTarget, Located]]] = {}
    attributes: dict[tuple[str, str], ActTarget] = {}
    for target in targets:
        try:
            if target.acts[0].caller is None:
                changes.append(_replace_module(model, target, options))
                continue
            owner = model.get_submodule(target.path)
            found = locate(owner, target.acts[0].caller)
        except (CannotRewrite, BadConfig) as error:
            refusals += refused(target, error.message)
            continue
        if found.attribute in owner.__dict__:
            first = attributes.setdefault((target.path, found.attribute), target)
            if first is not target:
                first.acts += target.acts
        else:
            calls.setdefault(target.path, []).append((target, found))
    for (_, name), target in attributes.items():
        changes.append(_replace_attribute(model, target, name, options))
    for path, located in calls.items():
        changes += _replace_calls(model, path, located, options)
    return changes, refusals


def refused(target: ActTarget, reason: str) -> list[Refusal]:
    """Returns the refusal of every call of an activation."""
    reason = reason.removeprefix("VG701 ")
    return [
        Refusal(
            path=act.site.key, kind=target.kind, reason=reason, source=act.site.source
        )
        for act in target.acts
    ]


def _replace_module(
    model: nn.Module, target: ActTarget, options: ConvertOptions
) -> Change:
    old = model.get_submodule(target.path)
    line, described = make_line(target, _base_of(old), options)
    paths = tuple(
        path
        for path, module in model.named_modules(remove_duplicate=False)
        if module is old
    )
    place(model, paths, line)
    return Change(
        target=target,
        path=target.path,
        edit=_edit(target, described),
        step=Step(kind="module", path=target.path, paths=paths, lines=(line_of(line),)),
        undo=lambda: place(model, paths, old),
    )


def _base_of(module: nn.Module) -> nn.Module:
    """Returns a copy that leaves its input alone; residual lines keep it."""
    base = copy.deepcopy(module)
    if getattr(base, "inplace", False):
        base.inplace = False  # type: ignore[assignment]
    return base


def _replace_attribute(
    model: nn.Module, target: ActTarget, name: str, options: ConvertOptions
) -> Change:
    owner = model.get_submodule(target.path)
    old: Any = owner.__dict__[name]
    line, described = make_line(target, old, options)
    flag = owner.__dict__.get("activation_relu_or_gelu")
    put_attribute(owner, name, line)

    def undo() -> None:
        delattr(owner, name)
        setattr(owner, name, old)
        if flag is not None:
            owner.__dict__["activation_relu_or_gelu"] = flag

    return Change(
        target=target,
        path=f"{target.path}.{name}".lstrip("."),
        edit=_edit(target, described),
        step=Step(
            kind="attribute", path=target.path, name=name, lines=(line_of(line),)
        ),
        undo=undo,
    )


def _replace_calls(
    model: nn.Module,
    path: str,
    located: Sequence[tuple[ActTarget, Located]],
    options: ConvertOptions,
) -> list[Change]:
    """Replaces all calls in the methods of one module."""
    owner = model.get_submodule(path)
    old = type(owner)
    edits, lines, texts = [], [], []
    for number, (target, found) in enumerate(located):
        line, described = make_line(target, target.acts[0].function, options)
        keeps = line.base is not None
        name = _free_name(owner, number)
        edits.append(
            CallEdit(
                method=found.method,
                span=found.span,
                name=name,
                function=found.function,
                keeps=keeps,
                sha256=found.sha256,
                callee=found.callee,
            )
        )
        lines.append(line)
        texts.append(f"{described}; `{found.function}(…)` rewritten in {found.place}")
    shapes = tuple(line_of(line) for line in lines)
    step = Step(kind="calls", path=path, calls=tuple(edits), lines=shapes)
    made = rewritten_class(old, tuple(edits))
    for edit, line in zip(edits, lines, strict=True):
        line.base = None
        owner.add_module(edit.name, PassedOn(line) if edit.keeps else line)
    owner.__class__ = made

    def undo() -> None:
        owner.__class__ = old
        for edit in edits:
            owner._modules.pop(edit.name, None)

    prefix = f"{path}." if path else ""
    return [
        Change(target, f"{prefix}{edit.name}", _edit(target, text), step, undo)
        for (target, _), edit, text in zip(located, edits, texts, strict=True)
    ]


def _free_name(owner: nn.Module, number: int) -> str:
    name = f"adact_{number}"
    while hasattr(owner, name):
        name += "_"
    return name


def _edit(target: ActTarget, described: str) -> Edit:
    return Edit(
        path=target.path,
        kind=target.kind,
        change=described,
        activations=tuple(act.site.key for act in target.acts),
        source=target.acts[0].site.source,
    )


def make_line(
    target: ActTarget, base: Base | None, options: ConvertOptions
) -> tuple[PiecewiseLinear, str]:
    """Returns the new activation and a sentence on it.

    Raises:
        CannotRewrite: the old activation cannot be sampled.
    """
    start = _start(target.kind, options)
    if base is None:
        raise CannotRewrite("VG701 its function is not known")
    channels, axis = _channels(target, shared=options.shared)
    grid = _grid(target, start, options)
    try:
        line = PiecewiseLinear(
            channels,
            start=start,
            base=_flat(base) if start in ("preserve", "unit-slope") else base,
            grid=grid,
            channel_dim=axis,
        )
    except (BadConfig, RuntimeError) as error:
        raise CannotRewrite(f"VG701 it cannot be sampled: {error}") from error
    if start != "residual":
        line.base = None
    line.to(target.acts[0].entrance.device)
    low, high = float(line.hinges.min()), float(line.hinges.max())
    each = f"{channels} channels" if channels else "one for all channels"
    return line, (
        f"{target.kind} → PiecewiseLinear, {each}, {line.hinges.shape[1]} hinges in "
        f"[{low:.3g}, {high:.3g}], start {start}"
    )


def _flat(base: Base) -> Base:
    """Returns ``base`` on fresh tensors, for one that works in place."""
    return lambda x: base(x.clone())


Starts = Literal["preserve", "unit-slope", "relu", "leaky", "tanh", "residual"]


def _start(kind: str, options: ConvertOptions) -> Starts:
    if options.start != "auto":
        return options.start
    known = ACTIVATIONS.get(kind)
    if options.preserve:
        return "preserve" if kind in _EXACT else "residual"
    return known.start if known is not None else "residual"


def _channels(target: ActTarget, *, shared: bool) -> tuple[int | None, int]:
    """Returns channels and their dimension; None where calls differ."""
    places = {(act.entrance.units, act.entrance.axis) for act in target.acts}
    units, axis = next(iter(places))
    if shared or len(places) > 1 or not units or axis is None:
        return None, 1
    return units, axis


def _grid(target: ActTarget, start: Starts, options: ConvertOptions) -> Grid:
    """Returns hinges for a start.

    One that keeps the function covers mean ± 3 standard deviations of what enters
    now, kinks included. Any other changes what enters, so it gets −4 to 4.
    """
    if start not in ("preserve", "residual"):
        return Grid.uniform(-_REACH, _REACH, max(3, options.hinges))
    ends = [
        act.entrance.mean + sign * _SPREAD * act.entrance.std
        for act in target.acts
        for sign in (-1.0, 1.0)
    ]
    low, high = min(ends), max(ends)
    known = ACTIVATIONS.get(target.kind)
    kinks = known.kinks if known is not None else ()
    if start == "preserve" and any(kinks):
        return _with_kinks(low, high, kinks)
    middle, reach = (low + high) / 2, (high - low) / 2 / _SPREAD
    return Grid.covering(
        torch.tensor([middle - reach, middle + reach], dtype=torch.float64),
        max(3, options.hinges),
        spread=_SPREAD,
    )


def _with_kinks(low: float, high: float, kinks: tuple[float, ...]) -> Grid:
    """Returns hinges one half apart around the kinks and out to the data's ends."""
    first, last = min(kinks) - 1.0, max(kinks) + 1.0
    inner = torch.arange(first, last + 0.25, 0.5).tolist()
    outer = [float(round(low)), float(round(high))]
    return Grid.at(sorted({*inner, *(x for x in outer if x < first or x > last)}))


def line_of(line: PiecewiseLinear) -> Line:
    """Returns the shape of a PiecewiseLinear, without its values."""
    return Line(
        channels=line.num_channels,
        channel_dim=line.channel_dim,
        hinges=line.hinges.shape[1],
        rows=line.hinges.shape[0],
        residual=line.base is not None,
    )
