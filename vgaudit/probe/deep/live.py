"""One forward pass whose graph is kept alive, to be asked more than once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from vgaudit.data.batch import Batch
from vgaudit.probe import graph as graphs
from vgaudit.probe import state
from vgaudit.probe.blueprint import Blueprint, build
from vgaudit.probe.capture import Recorder
from vgaudit.probe.deep.stream import Signal, signal_of
from vgaudit.probe.forward import Setting, forward
from vgaudit.probe.graph import Graph
from vgaudit.probe.rows import Callers
from vgaudit.probe.tensors import tensors_in


@dataclass(frozen=True, slots=True)
class End:
    """Where a tensor stands in the graph, whatever is written over it later."""

    edge: GradientEdge
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    @property
    def elements(self) -> int:
        """Number of values there."""
        return self.shape.numel()


@dataclass(frozen=True, slots=True)
class Passage:
    """One call of a module: its first input that has a gradient, and its output."""

    path: str
    call: int
    composite: bool
    given: End
    made: End


@dataclass(slots=True)
class Live:
    """A forward pass with its graph.

    Attributes:
        setting, batch: what was run on what.
        graph: from the outputs backwards.
        blueprint: the names and structure of all that is measured in it.
        callers: which call made a node.
        recorder: the recording of the pass.
        outputs: the differentiable outputs. loss: its loss, where there is one.
        passages: module calls, in the order in which they ended.
        signals: node → the forward signal at its output (module outputs only).
    """

    setting: Setting
    batch: Batch
    graph: Graph
    blueprint: Blueprint
    callers: Callers
    recorder: Recorder
    outputs: list[Tensor]
    loss: Tensor | None
    passages: list[Passage]
    signals: dict[Node, Signal]


@dataclass(slots=True)
class _Passages:
    """Notes what goes into modules and comes out of them."""

    recorder: Recorder
    samples: int
    signals: bool
    found: list[Passage] = field(default_factory=list)
    read: dict[Node, Signal] = field(default_factory=dict)
    _open: list[End | None] = field(default_factory=list)
    _calls: Counter[str] = field(default_factory=Counter)

    def enter(self, module: nn.Module, args: Any) -> None:
        """Notes where the first input of a module stands in the graph."""
        self._open.append(_first_end(args))

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """Notes the output, and reads the signal there."""
        given = self._open.pop() if self._open else None
        made = _first_end(output)
        if made is None:
            return
        path = self.recorder.path(module)
        if given is not None:
            composite = next(module.children(), None) is not None
            call = self._calls[path]
            self.found.append(Passage(path, call, composite, given, made))
        self._calls[path] += 1
        if self.signals and made.edge.node not in self.read:
            tensor = next(tensors_in(output))
            signal = signal_of(tensor.detach(), self.samples, path)
            if signal is not None:
                self.read[made.edge.node] = signal


def _first_end(value: Any) -> End | None:
    tensor = next(tensors_in(value), None)
    if tensor is None or tensor.grad_fn is None:
        return None
    return end_of(tensor)


def end_of(tensor: Tensor) -> End:
    """Returns where a tensor that has a gradient stands in the graph."""
    edge = get_gradient_edge(tensor)
    return End(edge, tensor.shape, tensor.dtype, tensor.device)


@contextmanager
def live(setting: Setting, batch: Batch, *, signals: bool = False) -> Iterator[Live]:
    """Runs a batch forward and keeps its graph for the block.

    Backward passes inside the block find the model as in the forward pass.

    Args:
        setting: the model, its twin, and the loss.
        batch: what to run.
        signals: read the forward signal at the output of every module.

    Raises:
        CannotRun: the model or the loss fails, or nothing needs a gradient.
    """
    setting.twin.zero_grad()
    state.seed_all(setting.seed, setting.device)
    recorder = Recorder(setting.model, samples=batch.size)
    passages = _Passages(recorder, batch.size, signals)
    with torch.enable_grad(), recorder:
        with _hooked(passages):
            outputs, loss = forward(setting, batch, recorder)
        recorder.backward = True
        nodes = graphs.read(outputs)
        recording = recorder.recording
        names = {id(p): name for name, p in setting.twin.parameters.items()}
        plan = graphs.plan(nodes, recording.entries, names, recording.calls)
        yield Live(
            setting=setting,
            batch=batch,
            graph=nodes,
            blueprint=build(setting.model, nodes, recording, recorder.habits, plan),
            callers=Callers(recording.calls),
            recorder=recorder,
            outputs=outputs,
            loss=loss,
            passages=passages.found,
            signals=passages.read,
        )
    setting.twin.zero_grad()


@contextmanager
def _hooked(passages: _Passages) -> Iterator[None]:
    handles = [
        register_module_forward_pre_hook(passages.enter),
        register_module_forward_hook(passages.leave),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
