"""Measuring inside the user's own training loop, on the live model."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vgaudit.distributed.sharding import gathered_parameters, is_spread
from vgaudit.distributed.wire import exchanged, place
from vgaudit.errors import NothingMeasured
from vgaudit.flow import Audit, DataFacts, GradientFlow, Precision, RunFacts, Target
from vgaudit.probe import (
    assemble,
    graph,
    provenance,
    recurrence,
    spread,
    state,
    transport,
)
from vgaudit.probe.blueprint import Blueprint, build
from vgaudit.probe.capture import Recorder
from vgaudit.probe.environment import run_facts
from vgaudit.probe.gauges import Gauges, root_sum_square
from vgaudit.probe.naming import class_of
from vgaudit.probe.observe import sums_of
from vgaudit.probe.parameters import Gradients
from vgaudit.probe.placing import dtype_name, own_dtype
from vgaudit.probe.shards import mark_blocks
from vgaudit.probe.step import Measured, attach
from vgaudit.probe.tensors import differentiable, tensors_in


class Scaler(Protocol):
    """What multiplies the loss, as ``torch.amp.GradScaler`` does."""

    def get_scale(self) -> float:
        """Returns the present factor."""


class Watch:
    """Watches forward and backward passes of a live model; a context manager.

    Only hooks are added, and they are removed at the end: outputs, gradients
    and random states are those of the unwatched loop. Each measured forward
    pass counts as one batch; the backward pass may be the user's own, with any
    loss, scaler or accumulation.

    The gradient against the lag of recurrent layers, merges and exact zeros are
    measured once, on the first pass that is measured.

    Where the loop runs in several processes (DDP, FSDP2), each measures the gradients
    of its own batches, before they are averaged, and the results hold those of all:
    every process must ask for them, like for any collective.

    Args:
        model: the module that the loop calls.
        every: measure every n-th forward pass.
        describe: states what the model is, for the report.
        scaler: of the loss; gradients are divided by its scale. Passes that
            overflow at a scale above 1 are left out, as their steps are.
        alone: let each process of several state what itself has measured.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        every: int = 1,
        describe: Callable[[nn.Module], Target] | None = None,
        scaler: Scaler | None = None,
        alone: bool = False,
    ) -> None:
        self._scaler, self._alone = scaler, alone
        self._given, self._model = model, state.unwrap(model, live=True)
        self._spread = is_spread(self._model)
        self._parameters: dict[str, nn.Parameter] = {}
        self._every = max(every, 1)
        self._describe = describe
        self._handles: list[RemovableHandle] = []
        self._recorder: Recorder | None = None
        self._known: list[Blueprint] = []
        self._passes: list[_Pass] = []
        self._active: list[_Pass] = []
        self._backward = -1
        self._forwards = 0
        self._stack = contextlib.ExitStack()
        self._started = time.perf_counter()

    def __enter__(self) -> Watch:
        self._stack.enter_context(state.eager(self._given))
        self._handles = [
            self._model.register_forward_pre_hook(
                self._before, with_kwargs=True, prepend=True
            ),
            self._model.register_forward_hook(self._after, always_call=True),
        ]
        self._parameters = dict(self._model.named_parameters())
        if self._spread:
            self._handles += mark_blocks(self._model)
            gathered = gathered_parameters(self._model)
            self._parameters = {name: gathered[name] for name in self._parameters}
        for name, parameter in self._parameters.items():
            if parameter.requires_grad:
                hook = self._parameter_hook(name)
                self._handles.append(
                    parameter.register_hook(hook)  # type: ignore[no-untyped-call]
                )
        return self

    def __exit__(self, *error: Any) -> None:
        for handle in self._handles:
            handle.remove()
        self._leave_recorder()
        self._stack.close()

    def _leave_recorder(self) -> None:
        if self._recorder is not None:
            self._recorder.__exit__(None, None, None)
            self._recorder = None

    def _parameter_hook(self, name: str) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            for seen in self._active:
                seen.gradients.add(name, gradient)

        return hook

    def _output_hook(self, seen: _Pass | None) -> Callable[[Tensor], None]:
        """Notes whose backward pass runs: that of a measured forward pass or not.

        Several forward passes may share one; segments that are checkpointed run
        backward passes of their own inside of it.
        """

        def hook(_: Tensor) -> None:
            task = torch._C._current_graph_task_id()
            if task != self._backward:
                self._backward, self._active = task, []
            if seen is not None and seen not in self._active:
                self._active.append(seen)
                if self._scaler is not None:
                    seen.scale = float(self._scaler.get_scale())

        return hook

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not torch.is_grad_enabled() or _runs_again():
            return
        self._forwards += 1
        if (self._forwards - 1) % self._every:
            return
        self._leave_recorder()
        for earlier in self._passes[-1:]:
            earlier.gradients.settle()
        given = list(tensors_in((args, kwargs)))
        samples = next((t.shape[0] for t in given if t.dim() > 0), 1)
        self._recorder = Recorder(module, samples=samples, only="watch")
        self._recorder.replays = self._first
        self._marked = given
        provenance.mark(given)
        self._recorder.__enter__()
        self._recorder.enter_root(module, args)

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        if _runs_again():
            return
        recorder = self._recorder
        heads = [head for head in differentiable(output) if head.grad_fn is not None]
        judged = _without_loss(heads)
        seen = None
        if recorder is not None:
            self._leave_recorder()
            provenance.unmark((self._marked, output))
            if heads:
                seen = self._record(recorder, judged)
                self._passes.append(seen)
        for head in heads:
            head.register_hook(  # type: ignore[no-untyped-call]
                self._output_hook(seen)
            )

    @property
    def _first(self) -> bool:
        """No pass has been measured to its end yet: what is measured once is due."""
        return not any(seen.gauges.at for seen in self._passes)

    def _record(self, recorder: Recorder, heads: list[Tensor]) -> _Pass:
        nodes = graph.read(heads)
        names = self._names
        recording = recorder.recording
        blueprint = next((b for b in self._known if b.fits(nodes)), None)
        if blueprint is None:
            plan = graph.plan(nodes, recording.entries, names, recording.calls)
            blueprint = build(self._model, nodes, recording, recorder.habits, plan)
            self._known.append(blueprint)
        gauges, first = Gauges(), self._first
        if first and not self._spread:
            recording.recurrences = recurrence.measure_live(nodes, blueprint, recording)
        attach(gauges, blueprint, nodes, heads, merges=first)
        used = {names[key] for key in recording.used if key in names}
        recording.forget_graph()
        segments = any("CheckpointFunction" in kind for kind in nodes.kinds)
        return _Pass(
            recorder=recorder,
            gauges=gauges,
            gradients=Gradients(zeros=first, hold=segments),
            blueprint=blueprint,
            heads=len(heads),
            used=used,
        )

    # ---------------------------------------------------------- results

    def flow(self) -> GradientFlow:
        """Returns what was measured so far.

        Raises:
            NothingMeasured: no forward pass with a backward pass was seen.
        """
        own, follows = self._own()
        if self._place[1] > 1:
            own, follows = spread.joined(own, exchanged)
        measured = own.measured
        if not measured:
            raise self._nothing()
        weights = state.weights_of(self._model)
        batches = assemble.join(weights, measured, follows)
        mode: Literal["train", "eval"] = "train" if self._model.training else "eval"
        device = next((str(p.device) for p in self._model.parameters()), "cpu")
        dtype = dtype_name(own_dtype(self._model))
        return GradientFlow(
            probe="loss",
            mode=mode,
            device=device,
            batches=len(measured),
            skipped=own.skipped,
            batch_size=measured[0].samples,
            samples=sum(batch.samples for batch in measured),
            seed=0,
            precision=Precision(dtype=dtype, measured=dtype),
            attenuation=transport.total(batches),
            weight_layers=batches.blueprint.plan.weight_layers,
            layers=assemble.layers(batches),
            trunk=transport.trunk(batches),
            branches=transport.branches(batches),
            merges=transport.merges(batches),
            recurrences=transport.recurrences(batches),
            not_measured=assemble.not_measured(batches),
            notes=_notes(own.scales),
        )

    @property
    def _names(self) -> dict[int, str]:
        return {id(p): name for name, p in self._parameters.items()}

    def _own(self) -> tuple[spread.Share, list[Blueprint]]:
        """Returns what this process measured, and the graph of each pass."""
        passes = [seen for seen in self._passes if seen.gauges.at]
        read = [(seen.measured(), seen) for seen in passes]
        kept = [pair for pair in read if pair[1].scale <= 1.0 or _finite(pair[0])]
        # As if the processes had taken turns.
        rank, ranks = self._place
        numbers = [turn * ranks + rank for turn in range(len(kept))]
        follows = [seen.blueprint for _, seen in kept]
        own = spread.share(numbers, [done for done, _ in kept], follows, self._names)
        own.skipped = len(read) - len(kept)
        own.scales = {seen.scale for _, seen in kept}
        return own, follows

    def _nothing(self) -> NothingMeasured:
        scales = [seen.scale for seen in self._passes if seen.gauges.at]
        if scales:
            return NothingMeasured(
                f"every gradient overflowed at a loss scale of {scales[-1]:g}",
                hint="the scaler skips such steps and lowers its scale; watch a later "
                "step",
            )
        return NothingMeasured(
            "no backward pass was seen",
            hint="call the model and loss.backward() inside the with block, "
            "with gradients enabled",
        )

    def audit(self) -> Audit:
        """Returns the measurement with its circumstances, for judging.

        Raises:
            NothingMeasured: no forward pass with a backward pass was seen.
        """
        flow = self.flow()
        name = class_of(self._model).__qualname__
        bare = Target(
            spec=name,
            format="object",
            trust_tier="T0",
            architecture=name,
            parameters=0,
            trainable=0,
        )
        return Audit(
            target=self._describe(self._model) if self._describe else bare,
            data=DataFacts(kind="real", spec="the training loop", loss="its own"),
            run=self._run(flow.device),
            flow=flow,
        )

    @property
    def _place(self) -> tuple[int, int]:
        """The number of this process, and of how many the results are."""
        return (0, 1) if self._alone else place()

    def _run(self, device: str) -> RunFacts:
        facts = run_facts(device, 0, started=self._started)
        return replace(facts, world_size=self._place[1])


@dataclass(eq=False, slots=True)
class _Pass:
    """One watched forward pass, and what its backward pass brings.

    Attributes:
        recorder: of the forward pass.
        gauges, gradients: take the figures of the backward pass.
        blueprint: names what they take.
        heads: number of outputs. used: parameters given to a function.
        scale: of the loss.
    """

    recorder: Recorder
    gauges: Gauges
    gradients: Gradients
    blueprint: Blueprint
    heads: int
    used: set[str]
    scale: float = 1.0

    def measured(self) -> Measured:
        recording = self.recorder.recording
        at, through = (
            {name: value / self.scale for name, value in table.items()}
            for table in self.gauges.read()
        )
        reference = [at.get(f"output#{place}", 0.0) for place in range(self.heads)]
        done = Measured(
            reference=root_sum_square(reference),
            samples=self.recorder.samples,
            at=at,
            through=through,
        )
        done.activations = sums_of(recording.observations)
        done.called, done.used = set(recording.calls_of), self.used
        done.parameters = self.gradients.read(scale=self.scale)
        done.recurrences = recording.recurrences
        return done


def _runs_again() -> bool:
    """Tells whether a forward pass only makes again what a checkpoint has dropped.

    Its graph gets no gradient: the tensors that it saves go to the first pass's.
    """
    if torch._C._current_graph_task_id() == -1:
        return False
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return bool(hooks) and "_recomputation_hook" in hooks[0].__qualname__


def _without_loss(heads: list[Tensor]) -> list[Tensor]:
    """Returns the outputs without a loss that the model computed from them.

    Beside a loss, whose gradient is 1 whatever it says, the gradient of the outputs
    themselves would count for nothing, and the verdict would follow the loss.
    """
    outputs = [head for head in heads if head.dim() > 0]
    return outputs or heads


def _finite(figures: Measured) -> bool:
    norms_seen = [*figures.at.values(), *(p.norm for p in figures.parameters.values())]
    return all(map(math.isfinite, norms_seen))


def _notes(scales: set[float]) -> tuple[str, ...]:
    notes = ["measured inside the training loop, dropout as it was"]
    if any(scale != 1.0 for scale in scales):
        said = ", ".join(f"{scale:g}" for scale in sorted(scales))
        notes.append(f"gradients are divided by the scale of the loss, {said}")
    return tuple(notes)
