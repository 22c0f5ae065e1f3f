"""The structure of a model by fake tensors: shapes and graph, no computation."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRun
from vgaudit.flow import NotMeasured, Structure, StructureRow
from vgaudit.probe import assemble, graph, provenance, state
from vgaudit.probe.blueprint import Blueprint, build
from vgaudit.probe.capture import Recorder
from vgaudit.probe.forward import failure, first_line, place
from vgaudit.probe.graph import Graph
from vgaudit.probe.lazy import materialised
from vgaudit.probe.recording import Recording
from vgaudit.probe.tensors import differentiable, map_tensors

_NEEDS_VALUES = (DataDependentOutputException, DynamicOutputShapeException)


def structure(model: nn.Module, batch: Batch, *, mode: str = "train") -> Structure:
    """Returns the dataflow of ``model`` on a batch of this shape.

    Runs the forward pass on fake tensors: no data is read, no arithmetic done,
    so a model of any size takes little time and memory.

    Raises:
        CannotRun: the forward pass fails, or depends on the values of tensors.
    """
    model = state.unwrap(model)
    with torch.inference_mode(False), state.untouched(model), state.eager(model):
        model = materialised(model, [batch])
        state.prepare_mode(model, mode)
        followed = follow(model, batch)
        return _describe(model, followed.blueprint, dict(model.named_parameters()))


@dataclass(frozen=True, slots=True)
class Followed:
    """A forward pass on fake tensors: its graph, what it is called, its outputs."""

    graph: Graph
    blueprint: Blueprint
    recording: Recording
    outputs: list[Tensor]


def follow(model: nn.Module, batch: Batch) -> Followed:
    """Returns the graph of a forward pass that computed nothing.

    Raises:
        CannotRun: the forward pass fails, or depends on the values of tensors.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    twins: dict[int, Tensor] = {}

    def twin(tensor: Tensor) -> Tensor:
        if id(tensor) not in twins:
            twins[id(tensor)] = fake.from_tensor(tensor)
        return twins[id(tensor)]

    named: list[tuple[str, Tensor]] = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    weights: dict[str, Tensor] = {name: twin(tensor) for name, tensor in named}
    args, kwargs = map_tensors((batch.args, batch.kwargs), twin)
    recorder = Recorder(model, samples=batch.size, only="structure")
    recorder.provenance.add_own(weights.values())
    with _unlogged(), fake, torch.enable_grad(), recorder:
        provenance.mark((args, kwargs))
        try:
            value = torch.func.functional_call(model, weights, args, kwargs)
        except _NEEDS_VALUES as error:
            raise CannotRun(
                f"{place(error, model)} depends on the values of its tensors, and a "
                f"structure knows only their shapes: {first_line(error)}",
                hint="scan the model: that runs it on data",
            ) from error
        except Exception as error:
            raise failure(error, model, recorder) from error
        heads = differentiable(value)
        if not heads:
            raise CannotRun(
                "no gradient can flow: the output does not depend on the weights",
                hint="scan the model to see where the graph ends",
            )
        nodes = graph.read(heads)
    names = {id(weights[name]): name for name, _ in model.named_parameters()}
    recording = recorder.recording
    plan = graph.plan(nodes, recording.entries, names, recording.calls)
    blueprint = build(model, nodes, recording, recorder.habits, plan)
    return Followed(nodes, blueprint, recording, heads)


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """Keeps fake tensors from logging an error that is raised as well."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled


def _describe(
    model: nn.Module, blueprint: Blueprint, parameters: dict[str, Any]
) -> Structure:
    cuts = set(blueprint.plan.cuts)
    used = {name for names in blueprint.plan.parametric.values() for name in names}
    rows = tuple(
        StructureRow(
            path=row.key,
            type=row.type,
            depth=None if row.node is None else blueprint.plan.depth.get(row.node),
            trunk=row.node in cuts,
            weighted=row.weighted,
            activation=bool(row.activation),
            parameters=sum(parameters[name].numel() for name in row.parameters),
            source=row.source,
        )
        for row in blueprint.rows
    )
    return Structure(
        rows=rows,
        weight_layers=blueprint.plan.weight_layers,
        cut_nodes=len(cuts),
        branches=len(blueprint.budget.branches),
        unused=tuple(
            name
            for name, parameter in parameters.items()
            if parameter.requires_grad and name not in used
        ),
        not_measured=tuple(
            NotMeasured(path=path, reason=reason)
            for path, reason in assemble.gaps([blueprint], blueprint.rows).items()
        ),
    )
