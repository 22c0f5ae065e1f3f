"""One measured batch: forward, cotangent or loss, backward, figures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd.graph import Node

from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRun
from vgaudit.probe import graph, norms, recurrence, state
from vgaudit.probe.blueprint import Blueprint, build
from vgaudit.probe.capture import Recorder
from vgaudit.probe.follow import Follower
from vgaudit.probe.forward import (
    Setting,
    Watcher,
    first_line,
    forward,
    is_out_of_memory,
)
from vgaudit.probe.gauges import Gauges, root_sum_square
from vgaudit.probe.lags import SAMPLES, Lags
from vgaudit.probe.observe import sums_of
from vgaudit.probe.parameters import InParts, ParameterFigures
from vgaudit.probe.recording import Habits, Recording
from vgaudit.probe.state import Twin
from vgaudit.probe.sums import ActivationSums
from vgaudit.probe.tensors import tensors_in


@dataclass(slots=True)
class Measured:
    """All figures of one batch.

    Attributes:
        reference: norm of the gradient at the output.
        at: name → norm of the gradient at a node's output.
        through: name → norm of what a node passes on towards the data.
        activations: statistics by call.
        parameters: gradients that arrived, by name.
        loss: value of the loss, NaN without one.
        variation: see ``GradientFlow.output_variation``.
        input_mean, input_std: of the first floating-point input.
        recomputed: modules that ran again during the backward pass.
        recurrences: gradient against lag by layer (first batch, and more where that
            is small).
        called: modules that ran. used: parameters given to a function (first batch).
    """

    reference: float
    samples: int
    at: dict[str, float] = field(default_factory=dict)
    through: dict[str, float] = field(default_factory=dict)
    activations: dict[str, ActivationSums] = field(default_factory=dict)
    parameters: dict[str, ParameterFigures] = field(default_factory=dict)
    loss: float = math.nan
    variation: float | None = None
    input_mean: float | None = None
    input_std: float | None = None
    recomputed: list[str] = field(default_factory=list)
    recurrences: dict[str, Lags] = field(default_factory=dict)
    called: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)


def measure(
    setting: Setting,
    batch: Batch,
    *,
    number: int,
    known: Sequence[Blueprint],
    zeros: bool,
) -> tuple[Measured, Blueprint]:
    """Returns the figures of one batch, and the blueprint they follow.

    A graph of another shape (data-dependent control flow) gets a new blueprint
    by running the batch again with full recording.

    Args:
        setting: what is the same for all batches.
        batch: what to run.
        number: of the batch, for its random numbers.
        known: blueprints of the graphs seen before.
        zeros: it is the first batch: count the exact zeros of the parameters'
            gradients, and take histograms.
    """
    turn = _Turn(number, tuple(known), zeros, start=_start(setting, number, known))
    try:
        return _measured(setting, batch, turn)
    except InParts:
        setting.twin.holding = True
        return _measured(setting, batch, turn)


def _measured(
    setting: Setting, batch: Batch, turn: _Turn
) -> tuple[Measured, Blueprint]:
    """Returns what ``measure`` does, where gradients come as a whole or are held."""
    number, known, zeros = turn.number, turn.known, turn.zeros
    result = None
    quick = turn.start is None and not zeros and not setting.twin.sharded
    if quick and len(known) == 1:
        result = _following(setting, batch, number, known[0])
    if result is None:
        result = _attempt(setting, batch, turn, _recorder(setting, batch, turn))
    if result is None:
        turn = dataclasses.replace(turn, known=(), start=turn.start or 0)
        result = _attempt(setting, batch, turn, _recorder(setting, batch, turn))
        assert result is not None
    return result


@dataclass(frozen=True, slots=True)
class _Turn:
    """One run of one batch: the arguments of ``measure``.

    ``start``: the number of its first sample in the scan, where the gradient against
    the lag is taken of it; else None.
    """

    number: int
    known: tuple[Blueprint, ...]
    zeros: bool
    start: int | None = None


def _start(setting: Setting, number: int, known: Sequence[Blueprint]) -> int | None:
    """Returns where a batch begins among the samples of recurrent nets; mostly None.

    The first batch always has them, further ones where it was small.
    """
    start = setting.starts.get(number, 0 if not known else SAMPLES)
    if start >= SAMPLES:
        return None if known else 0
    return start if not known or any(seen.recurrent for seen in known) else None


def _following(
    setting: Setting, batch: Batch, number: int, known: Blueprint
) -> tuple[Measured, Blueprint] | None:
    """Measures the quick way; None where the pass is another than is known."""
    if known.visits is None:
        return None
    follower = Follower(known.visits, samples=batch.size)
    try:
        found = _attempt(setting, batch, _Turn(number, (known,), False), follower)
    except InParts:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        # A recorder's pass will fail likewise, and can tell where.
        return None
    if found is None:
        known.visits = None  # what has strayed may stray again, for a pass each time
    return found


def _recorder(setting: Setting, batch: Batch, turn: _Turn) -> Recorder:
    known = turn.known
    recorder = Recorder(
        setting.model,
        samples=batch.size,
        habits=Habits.joined(b.habits for b in known) if known else None,
    )
    recorder.histograms = turn.zeros
    recorder.replays = turn.start is not None
    recorder.recording.start = turn.start or 0
    return recorder


def _attempt(
    setting: Setting, batch: Batch, turn: _Turn, recorder: Watcher
) -> tuple[Measured, Blueprint] | None:
    twin, known, zeros = setting.twin, turn.known, turn.zeros
    twin.zero_grad()
    # The same draws whenever this batch is measured again, in any precision.
    state.seed_all(_mix(setting.seed, turn.number, -1), setting.device)
    gauges = Gauges()
    measured = Measured(reference=math.nan, samples=batch.size)

    def recompute(path: str, node: Node) -> None:
        measured.recomputed.append(path)
        gauges.watch(path, node)

    if isinstance(recorder, Recorder):
        recorder.on_recompute = recompute
    with torch.enable_grad(), recorder:
        output, loss = forward(setting, batch, recorder)
        heads = [loss] if loss is not None and _owns_loss(setting) else output
        nodes = graph.read(heads)
        blueprint = next((b for b in known if b.fits(nodes)), None)
        if known and blueprint is None:
            return None
        if isinstance(recorder, Follower) and not recorder.confirmed(nodes):
            return None
        if blueprint is None:
            assert isinstance(recorder, Recorder)
            blueprint = _blueprint(setting, nodes, recorder)
            measured.called = set(recorder.recording.calls_of)
            measured.used = _used(twin, recorder.recording)
        _gates(recorder.recording, blueprint)
        recorder.backward = True
        if turn.start is not None and not twin.sharded:
            measured.recurrences = recurrence.measure(
                nodes, blueprint, recorder.recording, seed=setting.seed
            )
            blueprint.recurrent |= bool(measured.recurrences)
        attach(gauges, blueprint, nodes, heads, merges=zeros or not known)
        with (
            twin.shielding(nodes.leaves.values()),
            twin.listening(zeros=zeros) as gradients,
        ):
            cotangents = _backward(setting, heads, loss, turn.number)
    measured.at, measured.through = gauges.read()
    measured.reference = _reference(blueprint, measured.at, cotangents, heads)
    measured.loss = math.nan if loss is None else float(loss.detach())
    measured.variation = _variation(output, batch.size)
    measured.input_mean, measured.input_std = _input_moments(batch)
    measured.activations = _activations(recorder.recording, blueprint)
    measured.parameters = twin.figures(gradients)
    if measured.recomputed:
        blueprint.visits = None  # a follower sees no modules, and so no segments
    return measured, blueprint


def _activations(
    recording: Recording, blueprint: Blueprint
) -> dict[str, ActivationSums]:
    """Returns the statistics of every activation call."""
    found = sums_of(recording.observations)
    gates = {row.activation for row in blueprint.rows if row.gate}
    for key, sums in found.items():
        sums.gate = key in gates
        sums.histogram = recording.histograms.get(key)
    return found


def _owns_loss(setting: Setting) -> bool:
    return setting.loss is not None and setting.loss.name == "output"


def _used(twin: Twin, recording: Recording) -> set[str]:
    return {name for name, p in twin.parameters.items() if id(p) in recording.used}


def _blueprint(setting: Setting, nodes: graph.Graph, recorder: Recorder) -> Blueprint:
    parameters = setting.twin.parameters
    names = {id(parameter): name for name, parameter in parameters.items()}
    recording = recorder.recording
    plan = graph.plan(nodes, recording.entries, names, recording.calls)
    return build(setting.model, nodes, recording, recorder.habits, plan)


def attach(
    gauges: Gauges,
    blueprint: Blueprint,
    nodes: graph.Graph,
    heads: list[Tensor],
    *,
    merges: bool = False,
) -> None:
    """Puts gauges on the nodes that the blueprint names, and on the outputs.

    Args:
        gauges: what takes the figures.
        blueprint: what is measured.
        nodes: the graph of this pass.
        heads: the outputs.
        merges: measure too what every user of a tensor sends back to it.
    """
    for place in blueprint.measured:
        name = blueprint.names.get(place)
        if name is not None:
            gauges.watch(name, nodes.nodes[place])
    for place, positions in blueprint.gains.leaving.items():
        gauges.watch_through(blueprint.names[place], nodes.nodes[place], positions)
    edges = blueprint.budget.deliveries
    if merges:
        edges = [*edges, *(e for es in blueprint.budget.merges.values() for e in es)]
    for edge in dict.fromkeys(edges):
        if (key := blueprint.key(edge)) != blueprint.names[edge.node]:
            gauges.watch_through(key, nodes.nodes[edge.node], (edge.position,))
    for position, head in enumerate(heads):
        gauges.watch_tensor(f"output#{position}", head)


def _gates(recording: Recording, blueprint: Blueprint) -> None:
    # A site that the first pass did not see belongs to no row.
    listed = {row.activation for row in blueprint.rows}
    for key in recording.sites:
        if key not in listed:
            blueprint.unmeasured.setdefault(key, "not called in the first batch")


def _backward(
    setting: Setting, heads: list[Tensor], loss: Tensor | None, number: int
) -> list[float]:
    """Runs the backward pass; returns the norms of the cotangents, if any."""
    try:
        if loss is not None:
            torch.autograd.backward(loss)
            return []
        vectors = [
            cotangent(head, setting.seed, number, place)
            for place, head in enumerate(heads)
        ]
        torch.autograd.backward(heads, vectors)
    except InParts:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise CannotRun(
            f"the backward pass failed: {first_line(error)}",
            hint="the model cannot be trained as it is; torch's message above names "
            "the operation",
        ) from error
    return norms.read([norms.norm(vector) for vector in vectors])


def cotangent(output: Tensor, seed: int, batch: int, place: int) -> Tensor:
    """Returns v ~ N(0, I) like ``output``, the same on every device and type.

    E‖Jᵀv‖² = ‖J‖_F², so the backward pass of v measures transport alone.
    """
    generator = torch.Generator().manual_seed(_mix(seed, batch, place))
    # On the CPU by name: the caller may have set another default device.
    vector = torch.randn(
        output.shape, generator=generator, dtype=torch.float64, device="cpu"
    )
    return vector.to(device=output.device, dtype=output.dtype)


def _mix(seed: int, batch: int, place: int) -> int:
    return (seed * 1_000_003 + batch * 8_191 + place * 127 + 17) % (2**63)


def _reference(
    blueprint: Blueprint,
    at: dict[str, float],
    cotangents: list[float],
    heads: list[Tensor],
) -> float:
    """Returns the norm of the gradient at the network's output.

    A model that returns its own loss has no output to compare with; there it
    is the gradient at its last weight layers.
    """
    if cotangents and any(head.dim() > 0 for head in heads):
        return root_sum_square(cotangents)
    if any(head.dim() > 0 for head in heads):
        found = [value for name, value in at.items() if name.startswith("output#")]
        return root_sum_square(found)
    terminal = [
        at[blueprint.names[node]]
        for node in blueprint.plan.terminal
        if blueprint.names.get(node) in at
    ]
    return root_sum_square(terminal) if terminal else root_sum_square(cotangents)


def _variation(outputs: list[Tensor], samples: int) -> float | None:
    """Returns how much the output differs between samples, relative to its size."""
    for output in outputs:
        if output.dim() >= 1 and output.shape[0] == samples and samples > 1:
            values = output.detach().double() if output.is_floating_point() else None
            if values is None:
                return None
            size = float(torch.linalg.vector_norm(values))
            spread = float(torch.linalg.vector_norm(values - values.mean(0)))
            return spread / size if size else 0.0
    return None


def _input_moments(batch: Batch) -> tuple[float | None, float | None]:
    for tensor in tensors_in((batch.args, batch.kwargs)):
        if tensor.is_floating_point() and tensor.numel() > 1:
            return norms.mean_and_deviation(tensor.detach())
    return None, None
