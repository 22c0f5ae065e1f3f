"""Where RAI may cut a model: the compiler's first half.

A cut parts the network into what computes a value and what uses it, so all data must
pass through it: it is a cut node of the autograd graph (``probe/trunk.py``), found
for any model that runs, whatever it is written with. Between two weight layers that
follow each other one cut is placed; where weight layers lie in branches (residual
blocks, dense blocks, attention), at the block's boundary. A cut inside one branch
would weigh the branch against the skip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn import functional

from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRewrite
from vgaudit.probe import graph as graphs
from vgaudit.probe import operations, provenance
from vgaudit.probe.capture import Recorder
from vgaudit.probe.graph import Graph, Plan
from vgaudit.probe.state import Twin, eager, prepare_mode, untouched, unwrap
from vgaudit.probe.tensors import cast, differentiable
from vgaudit.training.rai.splice import Spot, is_value
from vgaudit.treatments.running import call_with, on_few

Place = Literal["pre", "post"]


@dataclass(frozen=True, slots=True)
class Cuts:
    """The cuts of one model.

    Attributes:
        spots: the cuts, nearest the input first.
        per_sample: for each cut, whether its value has one entry per sample.
        readout: the call of the last weight layer, where there is exactly one and
            it is a linear layer.
        readout_names: names of its weight and bias (empty without one).
        weight_layers: on the longest path.
        place: before or after the activations.
    """

    spots: tuple[Spot, ...]
    per_sample: tuple[bool, ...]
    readout: Spot | None
    readout_names: tuple[str, str]
    weight_layers: int
    place: Place

    def __len__(self) -> int:
        return len(self.spots)


def find_cuts(model: nn.Module, batch: Batch, *, place: Place = "pre") -> Cuts:
    """Returns where ``model`` may be cut; it stays as it is.

    Args:
        model: any model that runs on the batch.
        batch: example samples; a few of them are used.
        place: ``pre`` cuts behind each weight layer (the author's code), ``post``
            behind the activation that follows (the paper's text).

    Raises:
        CannotRun: the model fails on the batch.
        CannotRewrite: there is no place to cut, with the reason.
    """
    model = unwrap(model)
    recorder, names, heads = on_few(lambda few: _record(model, few), batch)
    if not heads:
        raise CannotRewrite(
            "no cut is possible: the output does not depend on the weights",
            hint="`vgaudit scan` shows where the graph ends",
        )
    nodes = graphs.read(heads)
    plan = graphs.plan(nodes, recorder.recording.entries, names, recorder.made)
    found = list(_chosen(nodes, plan, recorder, place))
    if not found:
        raise CannotRewrite(f"no cut is possible: {_why_not(plan)}", hint=_HINT)
    readout = _readout(plan, recorder)
    return Cuts(
        spots=tuple(made.spot for made in found),
        per_sample=tuple(made.samples == recorder.samples for made in found),
        readout=None if readout is None else readout.spot,
        readout_names=("", "") if readout is None else readout.weights,
        weight_layers=plan.weight_layers,
        place=place,
    )


_HINT = (
    "train it with --with sdagd or adam; "
    "`vgaudit inspect MODEL --graph` shows the trunk"
)


@dataclass(frozen=True, slots=True)
class _Made:
    """A call that made an autograd node."""

    spot: Spot
    samples: int
    weights: tuple[str, str]


class _Calls(Recorder):
    """Notes which call made which autograd node.

    Args:
        model: the module that will be called.
        samples: samples in the batch.
        names: ``id`` of a parameter → its name.
    """

    def __init__(self, model: nn.Module, samples: int, names: dict[int, str]) -> None:
        super().__init__(model, samples=samples, only="structure")
        self.made: dict[Node, _Made] = {}
        self._occurrences: Counter[Callable[..., Any]] = Counter()
        self._parameters = names
        self._looking = False

    def _left(self, *given: Any) -> None:
        # What the recorder itself computes to recognise a module is no call of it.
        self._looking = True
        try:
            super()._left(*given)
        finally:
            self._looking = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Runs one torch function and notes the node that it made."""
        value = super().__torch_function__(func, types, args, kwargs)
        if self._looking or not is_value(value):
            return value
        occurrence = self._occurrences[func]
        self._occurrences[func] += 1
        node = value.grad_fn
        if node is not None and node not in self.made:
            path = self._stack[-1][1] if self._stack else ""
            kind = operations.kind(node.name())
            spot = Spot(func, occurrence, path, tuple(value.shape[1:]), kind)
            weights = self._weights(func, args, kwargs or {})
            self.made[node] = _Made(spot, value.shape[0], weights)
        return value

    def _weights(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[str, str]:
        if func is not functional.linear:
            return "", ""
        weight, bias = linear_operands(args, kwargs)
        return self._parameters.get(id(weight), ""), self._parameters.get(id(bias), "")


def linear_operands(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor | None, Tensor | None]:
    """Returns weight and bias of a call of a linear layer or convolution."""
    weight = args[1] if len(args) > 1 else kwargs.get("weight")
    bias = args[2] if len(args) > 2 else kwargs.get("bias")
    return weight, bias


def _record(
    model: nn.Module, batch: Batch
) -> tuple[_Calls, dict[int, str], list[Tensor]]:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    twin = Twin(model, device=device, dtype=None, unfreeze=True)
    names = {id(tensor): name for name, tensor in twin.parameters.items()}
    recorder = _Calls(model, batch.size, names)
    args, kwargs = cast((batch.args, batch.kwargs), device=device, dtype=None)
    with untouched(model), eager(model), twin.standing_in(model):
        prepare_mode(model, "train")
        provenance.mark((args, kwargs))
        try:
            with torch.enable_grad(), recorder:
                value = call_with(model, args, kwargs)
        finally:
            provenance.unmark((args, kwargs))
        return recorder, names, list(differentiable(value))


def _chosen(
    nodes: Graph, plan: Plan, recorder: _Calls, place: Place
) -> Iterator[_Made]:
    """Yields one call for each stretch of trunk between two weight layers."""
    stretches: dict[int, list[_Made]] = {}
    for number in reversed(plan.cuts):
        left = plan.depth[number]
        made = recorder.made.get(nodes.nodes[number])
        # Outside of these limits there is no weight layer on one of the two sides.
        if made is not None and 0 < left < plan.weight_layers:
            stretches.setdefault(left, []).append(made)
    for left in sorted(stretches, reverse=True):
        stretch = stretches[left]
        bent = (made for made in stretch if _is_activation(made))
        yield next(bent, stretch[0]) if place == "post" else stretch[0]


def _is_activation(made: _Made) -> bool:
    return operations.cause(made.spot.kind, parametric=False) == "activation"


def _why_not(plan: Plan) -> str:
    if plan.weight_layers < 2:
        return f"the model has {plan.weight_layers} weight layer on its longest path"
    return (
        f"none of its {plan.weight_layers} weight layers ends where all data passes; "
        "each lies in a branch that is open from the input to the output"
    )


def _readout(plan: Plan, recorder: _Calls) -> _Made | None:
    """Returns the call of the only last weight layer, if it is linear."""
    if len(plan.terminal) != 1:
        return None
    (last,) = plan.terminal
    wanted = set(plan.parametric[last])
    found = [
        made
        for made in recorder.made.values()
        if made.weights[0] in wanted and made.weights[0]
    ]
    # A weight that is used twice cannot be refitted in its last use alone.
    return found[0] if len(found) == 1 else None
