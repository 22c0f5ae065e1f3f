"""A model's dataflow as a ``torch.fx.Graph``, written while it runs.

Symbolic tracing fails on a third of real models and drops train mode, autocast
and checkpointing from the others; a recorded run has the operations of one call
of any model, with the parameters that each one takes. The graph serves to plan
edits; it is never executed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from vgaudit.data.batch import Batch
from vgaudit.nn import ACTIVATIONS
from vgaudit.probe import activations, provenance, units
from vgaudit.probe.capture import Recorder
from vgaudit.probe.recording import Site
from vgaudit.probe.state import Twin, eager, prepare_mode, untouched
from vgaudit.probe.tensors import cast, tensors_in
from vgaudit.treatments.callsites import CallSite, call_site
from vgaudit.treatments.running import call_with, on_few


@dataclass(frozen=True, slots=True)
class Entrance:
    """What enters an activation.

    Attributes:
        axis: dimension of the units, from the end where features come last.
        units: entries of that dimension; 0 where unknown.
        mean, std: moments of all elements.
        device: where they are.
    """

    axis: int | None
    units: int
    mean: float
    std: float
    device: torch.device

    @classmethod
    def of(cls, z: Tensor) -> Entrance:
        """Returns the facts of a pre-activation, before anything works in place."""
        axis = units.axis_of(z)
        count = z.shape[axis] if axis is not None and z.dim() > 1 else 0
        with torch.no_grad(), torch._C.DisableTorchFunction():
            std, mean = torch.std_mean(z.detach().double(), correction=0)
        return cls(axis, count, float(mean), float(std), z.device)


@dataclass(frozen=True, slots=True)
class Act:
    """An activation node of the graph.

    Attributes:
        site: key, path, kind and source line, as a scan names them.
        own: the call is that of an activation module, not of a function.
        entrance: what enters: its units and their moments.
        caller: the call in the source, for functions, and for modules that the
            model does not register.
        function: z ↦ φ(z) on fresh tensors, where there is a caller.
        bounded: it has two rails.
    """

    site: Site
    own: bool
    entrance: Entrance
    caller: CallSite | None
    function: Callable[[Tensor], Tensor] | None
    bounded: bool


def record(model: nn.Module, batch: Batch) -> fx.Graph:
    """Returns the dataflow of one call of ``model``, which stays as it is.

    ``meta["path"]`` of a node is the module in which it ran; ``meta["act"]`` of an
    activation is an ``Act``; parameters are ``get_attr`` nodes.

    Raises:
        CannotRun: the model fails on the batch.
    """
    return on_few(lambda few: _recorded(model, few), batch)


def _recorded(model: nn.Module, batch: Batch) -> fx.Graph:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    twin = Twin(model, device=device, dtype=None)
    names: dict[int, str] = {}
    for name, tensor in twin.state.items():
        names.setdefault(id(tensor), name)
    recorder = GraphRecorder(model, batch.size, names)
    args, kwargs = cast((batch.args, batch.kwargs), device=device, dtype=None)
    provenance.mark((args, kwargs))
    with untouched(model), eager(model), twin.standing_in(model):
        prepare_mode(model, "train")
        recorder.enter(args, kwargs)
        with torch.enable_grad(), recorder:
            value = call_with(model, args, kwargs)
    recorder.leave(value)
    return recorder.graph


class GraphRecorder(Recorder):
    """Writes every torch function of one forward pass into a graph.

    Args:
        model: the module that will be called.
        samples: samples in the batch.
        names: id of a parameter or buffer → its name.
    """

    def __init__(self, model: nn.Module, samples: int, names: dict[int, str]) -> None:
        super().__init__(model, samples=samples, only="structure")
        self.graph = fx.Graph()
        self._parameters = names
        self._written: dict[int, fx.Node] = {}
        self._kept: list[Any] = []
        self._attributes: dict[str, fx.Node] = {}
        self._looking = False

    def enter(self, args: Any, kwargs: Any) -> None:
        """Writes the inputs of the model."""
        for number, tensor in enumerate(tensors_in((args, kwargs))):
            self._keep(tensor, self.graph.placeholder(f"input_{number}"))

    def leave(self, value: Any) -> None:
        """Writes the outputs of the model."""
        found = [self._node(tensor) for tensor in tensors_in(value)]
        self.graph.output(tuple(found))
        sites = self.recording.sites
        for node in self.graph.nodes:
            act = node.meta.get("act")
            # A module that is one activation as a whole takes the place of the
            # calls inside it, which were written down before it was recognised.
            if act is not None and sites.get(act.site.key) is not act.site:
                del node.meta["act"]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Runs one torch function and writes it down."""
        kwargs = kwargs or {}
        if self._looking:
            return super().__torch_function__(func, types, args, kwargs)
        before = len(self.recording.sites)
        if "input" in kwargs and activations.canonical(func, args, kwargs) is not None:
            args, kwargs = activations.positional(args, kwargs)
        inputs = self._arguments(args), self._arguments(kwargs)
        entrance = _entrance(func, args, kwargs)
        out = super().__torch_function__(func, types, args, kwargs)
        if not any(True for _ in tensors_in(out)):
            return out
        node = self.graph.create_node("call_function", func, *inputs)
        node.meta["path"] = self._stack[-1][1] if self._stack else ""
        if len(self.recording.sites) > before:
            assert entrance is not None
            function = activations.call_without_inplace(func, args, kwargs)
            module = self._stack[-1][0] if self._stack else None
            own = module is not None and units.is_torch_activation(module)
            node.meta["act"] = self._act(entrance, function, own=own)
        self._results(node, out)
        return out

    def _left(self, *given: Any) -> None:
        # What the recorder itself computes to recognise a module is no dataflow.
        self._looking = True
        try:
            super()._left(*given)
        finally:
            self._looking = False

    def _observe_unit(self, module: nn.Module, path: str, z: Any, out: Tensor) -> None:
        before = len(self.recording.sites)
        super()._observe_unit(module, path, z, out)
        if len(self.recording.sites) == before:
            return
        node = self.graph.create_node("call_function", module.forward, (self._node(z),))
        node.meta["path"] = path
        # The hook runs when the module has left the stack.
        self._stack.append((module, path))
        try:
            node.meta["act"] = self._act(Entrance.of(z), module.forward, own=True)
        finally:
            self._stack.pop()
        self._keep(out, node)

    def _act(
        self,
        entrance: Entrance,
        function: Callable[[Tensor], Tensor],
        *,
        own: bool,
    ) -> Act:
        site = next(reversed(self.recording.sites.values()))
        bounded = self._bounded(site)
        inner: list[nn.Module] = []
        for module, _ in reversed(self._stack):
            if id(module) in self._names:
                if own and not inner:
                    break
                caller = call_site(self._names, inner)
                return Act(site, own, entrance, caller, function, bounded)
            inner.append(module)
        return Act(site, own, entrance, None, None, bounded)

    def _bounded(self, site: Site) -> bool:
        known = ACTIVATIONS.get(site.kind)
        if known is not None:
            return known.bounded
        unit = self.habits.units.get(site.path)
        return unit is None or unit.bounded

    # ------------------------------------------------------------ nodes

    def _keep(self, tensor: Tensor, node: fx.Node) -> None:
        # The reference keeps the identity from being given to another tensor.
        self._kept.append(tensor)
        self._written[id(tensor)] = node

    def _results(self, node: fx.Node, out: Any) -> None:
        if isinstance(out, Tensor):
            self._keep(out, node)
            return
        for number, tensor in enumerate(tensors_in(out)):
            item = self.graph.call_function(operator.getitem, (node, number))
            item.meta["path"] = node.meta["path"]
            self._keep(tensor, item)

    def _node(self, tensor: Tensor) -> fx.Node:
        node = self._written.get(id(tensor))
        if node is None:
            name = self._parameters.get(id(tensor), "constant")
            node = self._attributes.get(name) if name != "constant" else None
            if node is None:
                node = self.graph.create_node("get_attr", name)
                self._attributes[name] = node
            self._keep(tensor, node)
        return node

    def _arguments(self, value: Any) -> Any:
        """Returns arguments as a graph can hold them."""
        if isinstance(value, Tensor):
            return self._node(value)
        if isinstance(value, (tuple, list)):
            return tuple(self._arguments(item) for item in value)
        if isinstance(value, dict):
            return {str(key): self._arguments(item) for key, item in value.items()}
        if value is None or isinstance(value, (bool, int, float, str, torch.dtype)):
            return value
        return type(value).__name__


def _entrance(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Entrance | None:
    if not args or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
        return None
    if activations.canonical(func, args, kwargs) is None:
        return None
    return Entrance.of(args[0])
