"""Forward re-alignment: from targets that stages agree on to a network that works.

After RAI every stage maps its own target to the next one, nearly. The errors of a
hundred stages add up: the relaxed loss is 0.0000 where the ordinary forward pass is at
chance. Alignment goes through the network once, from the input on, takes what really
arrives at each stage, and solves for the weights that map *that* to the target: ridge
regression in float64, the closed form of one linear layer or convolution.

Between the layer and the cut there may lie what can be undone: a residual sum,
normalisation with fixed statistics, a reshape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRewrite
from vgaudit.training.rai.cuts import Cuts, linear_operands
from vgaudit.training.rai.least_squares import ridge
from vgaudit.training.rai.relaxed import frozen
from vgaudit.training.rai.splice import Call, Splice

Forward = Callable[[Tensor], Tensor]

_SUMS = frozenset({"add", "iadd", "radd", "add_"})
_SHAPES = frozenset({"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze"})
_SAME = frozenset({"dropout", "dropout1d", "dropout2d", "contiguous", "clone"})


@torch.no_grad()
def align(
    model: nn.Module,
    cuts: Cuts,
    batch: Batch,
    targets: Sequence[Tensor],
    *,
    strength: float,
) -> None:
    """Refits every stage but the first and the last to the targets, in place.

    Args:
        model: its weights are replaced.
        cuts: of the model.
        batch: the samples that the targets belong to.
        targets: for each cut.
        strength: of the ridge, see ``ridge``.

    Raises:
        CannotRewrite: a stage has no closed form; names it. The stages before it
            are refitted already, so call it on a copy, or ask ``refusal`` first.
    """
    _pass(model, cuts, batch, _Refit(cuts, targets, strength))


def refusal(model: nn.Module, cuts: Cuts, batch: Batch) -> str:
    """Returns why a model cannot be aligned, or nothing; the model stays."""
    try:
        _pass(model, cuts, batch, _Look(cuts))
    except CannotRewrite as error:
        return error.message
    return ""


@torch.no_grad()
def _pass(model: nn.Module, cuts: Cuts, batch: Batch, look: _Look) -> None:
    with frozen(model), Splice(cuts.spots, look.visit, watch=look.watch, dropout=False):
        model(*batch.args, **batch.kwargs)


@dataclass(slots=True)
class _Layer:
    """A layer that can be solved for, and the way from it to the cut.

    Attributes:
        call: of the layer.
        undo: cut's value → layer's value.
        redo: the way back.
    """

    call: Call
    undo: list[Forward] = field(default_factory=list)
    redo: list[Forward] = field(default_factory=list)


class _Look:
    """Finds the layer behind each cut."""

    def __init__(self, cuts: Cuts) -> None:
        self._cuts = cuts
        self._calls: list[tuple[Call, tuple[int, ...]]] = []
        self._solved: set[int] = set()

    def watch(self, call: Call) -> None:
        """Keeps the calls since the last cut."""
        versions = tuple(t._version for t in call.args if isinstance(t, Tensor))
        self._calls.append((call, versions))

    def visit(self, number: int, call: Call) -> Tensor:
        """Finds the layer; the model goes on with what ``solve`` makes of it."""
        value: Tensor = call.value
        if number > 0:
            found = self._search(value, len(self._calls))
            if found is None:
                raise CannotRewrite(
                    f"the stage that ends at '{self._cuts.spots[number].name}' cannot "
                    "be aligned: no linear layer or convolution ends there",
                    hint="use --setting mode=sweep, which needs no alignment",
                )
            self._once(number, found)
            value = self.solve(number, found, value)
        self._calls.clear()
        return value

    def solve(self, _number: int, _layer: _Layer, value: Tensor) -> Tensor:
        """Returns the value with which the model goes on."""
        return value

    def _once(self, number: int, layer: _Layer) -> None:
        weight, _ = linear_operands(layer.call.args, layer.call.kwargs)
        if id(weight) in self._solved:
            raise CannotRewrite(
                f"the stage that ends at '{self._cuts.spots[number].name}' cannot be "
                "aligned: it shares its weights with a stage before it",
                hint="use --setting mode=sweep, which needs no alignment",
            )
        self._solved.add(id(weight))

    def _search(self, value: Tensor, before: int) -> _Layer | None:
        """Returns the layer that made ``value``, among the first calls."""
        for place in reversed(range(before)):
            call, versions = self._calls[place]
            if call.value is value:
                now = tuple(t._version for t in call.args if isinstance(t, Tensor))
                if is_layer(call):
                    return _Layer(call) if now == versions else None
                return self._behind(call, place)
        return None

    def _behind(self, call: Call, place: int) -> _Layer | None:
        name = getattr(call.function, "__name__", "").removesuffix("_").strip("_")
        if name in _SUMS and len(call.args) == 2 and not call.kwargs:
            return self._sum(call, place)
        if name in _SHAPES:
            return self._step(call, place, _reshape(call))
        if name in _SAME:
            return self._step(call, place, (_same, _same))
        if name == "batch_norm":
            return self._step(call, place, _affine(call))
        return None

    def _step(
        self, call: Call, place: int, pair: tuple[Forward, Forward] | None
    ) -> _Layer | None:
        found = None if pair is None else self._search(call.args[0], place)
        if found is not None and pair is not None:
            found.undo.append(pair[0])
            found.redo.append(pair[1])
        return found

    def _sum(self, call: Call, place: int) -> _Layer | None:
        for own, other in (call.args, call.args[::-1]):
            fits = isinstance(own, Tensor) and isinstance(other, Tensor)
            if not fits or own.shape != call.value.shape or own is other:
                continue
            found = self._search(own, place)
            if found is not None and other is not call.value:
                kept = other.clone()
                found.undo.append(lambda y, kept=kept: y - kept)  # type: ignore[misc]
                found.redo.append(lambda u, kept=kept: u + kept)  # type: ignore[misc]
                return found
        return None


class _Refit(_Look):
    """Solves for the layer behind each cut."""

    def __init__(self, cuts: Cuts, targets: Sequence[Tensor], strength: float) -> None:
        super().__init__(cuts)
        self._targets, self._strength = targets, strength

    def solve(self, number: int, layer: _Layer, value: Tensor) -> Tensor:
        """Replaces the layer's weights; returns the new value at the cut."""
        wanted = self._targets[number].double()
        for undo in reversed(layer.undo):
            wanted = undo(wanted)
        call = layer.call
        weight, bias = linear_operands(call.args, call.kwargs)
        assert weight is not None
        rows, values = _rows(call, wanted)
        centred = bias is not None
        solved, shift = ridge(rows, values, self._strength, centred=centred)
        weight.copy_(solved.reshape(weight.shape))
        if bias is not None:
            bias.copy_(shift)
        value = call.function(*call.args, **call.kwargs)
        for redo in layer.redo:
            value = redo(value)
        return value


def is_layer(call: Call) -> bool:
    """Tells whether the weights of a call have a closed form."""
    if call.function not in (functional.linear, functional.conv2d):
        return False
    weight, bias = linear_operands(call.args, call.kwargs)
    if not isinstance(weight, nn.Parameter) or not weight.requires_grad:
        return False
    if bias is not None and not isinstance(bias, nn.Parameter):
        return False
    return call.function is functional.linear or _is_plain(call)


def _is_plain(call: Call) -> bool:
    options = _convolution(call)
    return options["groups"] == 1 and not isinstance(options["padding"], str)


def _convolution(call: Call) -> dict[str, Any]:
    names = ("stride", "padding", "dilation", "groups")
    options = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    options.update(zip(names, call.args[3:], strict=False))
    return {**options, **{k: v for k, v in call.kwargs.items() if k in names}}


def _rows(call: Call, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Returns inputs ``[rows, in]`` and outputs ``[rows, out]`` of a layer."""
    given: Tensor = call.args[0]
    if call.function is functional.linear:
        return _thinned(given.flatten(0, -2), wanted.flatten(0, -2))
    options = _convolution(call)
    del options["groups"]
    weight, _ = linear_operands(call.args, call.kwargs)
    assert weight is not None
    patches = functional.unfold(given, tuple(weight.shape[2:]), **options)
    return _thinned(patches.mT.flatten(0, 1), wanted.flatten(2).mT.flatten(0, 1))


_ROWS = 1 << 16


def _thinned(given: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    step = max(1, given.shape[0] // _ROWS)
    return given[::step], wanted[::step]


def _same(value: Tensor) -> Tensor:
    return value


def _reshape(call: Call) -> tuple[Forward, Forward]:
    before, after = call.args[0].shape, call.value.shape
    return lambda y: y.reshape(before), lambda u: u.reshape(after)


def _affine(call: Call) -> tuple[Forward, Forward] | None:
    """Returns normalisation by running statistics, undone and done."""
    names = ("input", "mean", "var", "weight", "bias", "training", "momentum", "eps")
    given = dict(zip(names, call.args, strict=False)) | call.kwargs
    if given.get("training"):
        return None
    mean, var = given["mean"].double(), given["var"].double()
    gain = (var + given.get("eps", 1e-5)).rsqrt()
    if given.get("weight") is not None:
        gain = gain * given["weight"].double()
    if not bool((gain != 0).all()):
        return None
    shift = 0.0 if given.get("bias") is None else given["bias"].double()
    shape = (1, -1, *[1] * (call.value.dim() - 2))
    gain, offset = gain.reshape(shape), (shift - mean * gain).reshape(shape)
    kind = call.value.dtype
    return (
        lambda y: (y - offset) / gain,
        lambda u: (u.double() * gain + offset).to(kind),
    )
