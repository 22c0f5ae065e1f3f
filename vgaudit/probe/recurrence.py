"""The gradient against the lag in one forward pass: of fused kernels and of loops."""

from __future__ import annotations

import torch
from torch.autograd.function import BackwardCFunction

from vgaudit.probe import loops
from vgaudit.probe.blueprint import Blueprint
from vgaudit.probe.forward import first_line, is_out_of_memory
from vgaudit.probe.graph import Graph
from vgaudit.probe.lags import Lags
from vgaudit.probe.loops import Loop
from vgaudit.probe.recording import Recording


def measure(
    graph: Graph, blueprint: Blueprint, recording: Recording, *, seed: int
) -> dict[str, Lags]:
    """Returns the gradient against the lag, by layer; what fails is named.

    The loops are gone through before any gauge is on the graph, which would take the
    figures of that backward pass for those of the batch.

    Raises:
        RuntimeError: memory runs out.
    """
    found = dict(recording.recurrences)
    for loop in _loops(graph, blueprint, recording):
        try:
            found[loop.name] = loops.measure(graph, loop, seed, recording.start)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            _leave_out(blueprint, loop, first_line(error))
    return found


def measure_live(
    graph: Graph, blueprint: Blueprint, recording: Recording
) -> dict[str, Lags]:
    """Returns the same of the user's own graph, which is left as it was found.

    A loop is left out where one more backward pass could be noticed: where hooks
    would run twice, and where steps run code of the user's own.
    """
    found = dict(recording.recurrences)
    for loop in _loops(graph, blueprint, recording):
        why = _noticed(graph, blueprint, loop, recording)
        if not why:
            try:
                with torch.autocast(loops.device(graph, loop).type, enabled=False):
                    found[loop.name] = loops.measure(graph, loop, 0)
            except RuntimeError as error:
                # Nothing that is measured here may end somebody's training.
                why = first_line(error)
        if why:
            _leave_out(blueprint, loop, why)
    return found


def _loops(graph: Graph, blueprint: Blueprint, recording: Recording) -> list[Loop]:
    return loops.find(graph, blueprint.plan, blueprint.rows, recording.fused)


def _noticed(
    graph: Graph, blueprint: Blueprint, loop: Loop, recording: Recording
) -> str:
    """Returns what the user could notice of a further pass; mostly nothing."""
    for place in loops.between(blueprint.plan, loop):
        node = graph.nodes[place]
        if node in recording.hooked:
            return recording.hooked[node]
        made: object = node  # torch's types do not say that it may be one of these
        if isinstance(made, BackwardCFunction):
            return f"{graph.kinds[place]} would run its own backward once more"
    return ""


def _leave_out(blueprint: Blueprint, loop: Loop, why: str) -> None:
    place = f"{loop.name}: lags"
    blueprint.unmeasured[place] = f"its gradient against the lag: {why}"
