"""A whole measurement: several batches, in the precision that they need."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch, Loss
from vgaudit.errors import BadConfig, CannotRun, NothingMeasured
from vgaudit.flow import Blocker, GradientFlow, Interval, Precision
from vgaudit.job import ProbeOptions
from vgaudit.probe import assemble, blockers, state, transport
from vgaudit.probe.assemble import Batches, join
from vgaudit.probe.blueprint import Blueprint
from vgaudit.probe.forward import Setting, is_out_of_memory
from vgaudit.probe.lazy import materialised
from vgaudit.probe.scripted import is_scripted, parameters_only
from vgaudit.probe.state import Twin
from vgaudit.probe.step import Measured, measure
from vgaudit.probe.tensors import map_tensors, tensors_in

Progress = Callable[[str], object]

# Below these a float32 gradient is near the end of its range.
_TINY_NORM = 1e-30
_LAZY = "lazy modules were initialised by the first batch, in a copy of the model"
_HALVES = (torch.float16, torch.bfloat16)


def probe(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    loss: Loss | None = None,
    options: ProbeOptions | None = None,
    progress: Progress | None = None,
) -> GradientFlow:
    """Returns how gradients flow through ``model``, which stays bit-equal.

    Args:
        model: any module; wrappers of data parallelism and compilation are
            looked through.
        batches: what to run it on; batches with NaN or infinity are left out.
        loss: the loss probe's loss; None for random cotangents at the output.
        options: mode, device, precision, seed.
        progress: called with a line of text before each batch; where it answers
            True, the measurement ends with the batches that it has.

    Raises:
        CannotRun: forward or backward fail, or nothing can be differentiated.
        NothingMeasured: no batch was left to measure.
        BadConfig: an unknown device or type.
    """
    options = options or ProbeOptions()
    if is_scripted(model):
        return parameters_only(model, batches, loss, options)
    model = state.unwrap(model)
    if options.static:
        from vgaudit.probe.deep import static

        return static(model, batches, options)
    say = progress or (lambda _: None)
    device = parse_device(options.device)
    with (
        torch.inference_mode(False),
        state.untouched(model, device),
        state.eager(model),
    ):
        given = list(batches)
        state.seed_all(options.seed, device)
        ready = materialised(model, given)
        notes = () if ready is model else (_LAZY,)
        state.prepare_mode(ready, options.mode)
        flow = _ladder(_Scan(ready, given, loss, options, say, notes))
        if not options.deep or say("the extra measurements") is True:
            return flow
        # Loaded when asked for: an ordinary scan does without.
        from vgaudit.probe.deep import deepen

        return deepen(flow, ready, batches=given, loss=loss, asked=(options, say))


@dataclass(frozen=True, slots=True)
class _Scan:
    """What is asked: the same in every precision."""

    model: nn.Module
    batches: list[Batch]
    loss: Loss | None
    options: ProbeOptions
    say: Progress
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Pass:
    """All batches in one precision."""

    batches: Batches
    dtype: torch.dtype
    blockers: tuple[Blocker, ...]
    skipped: int
    notes: list[str]


def _ladder(scan: _Scan) -> GradientFlow:
    """Measures, and again in higher precision where the figures need it."""
    asked = scan.options.dtype
    fixed = None if asked == "auto" else parse_dtype(asked)
    first = _first(scan, fixed)
    best, reason = first, ""
    while fixed is None:
        finer, why = _finer(best)
        if finer is None:
            break
        scan.say(f"measuring again in {_name(finer)}: {why}")
        try:
            again = _measure_all(scan, finer)
        except CannotRun as error:
            best.notes.append(f"not measured again in {_name(finer)}: {error.message}")
            break
        again.notes[:0] = best.notes
        best, reason = again, why
    return _flow(scan, best, _precision(first, best, reason, own_dtype(scan.model)))


def _first(scan: _Scan, fixed: torch.dtype | None) -> _Pass:
    """Measures in the precision asked for; in float32 where half cannot run."""
    own = own_dtype(scan.model)
    try:
        return _measure_all(scan, fixed)
    except CannotRun as error:
        if fixed is not None or own not in _HALVES:
            raise
        done = _measure_all(scan, torch.float32)
        done.notes.append(f"not measured in {_name(own)}: {error.message}")
        return done


def own_dtype(model: nn.Module) -> torch.dtype:
    """Returns the type of the model's first floating-point parameter."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return parameter.dtype
    return torch.float32


def parse_dtype(name: str) -> torch.dtype:
    """Returns a floating-point type by name.

    Raises:
        BadConfig: for any other name.
    """
    known = {"float16", "bfloat16", "float32", "float64"}
    if name not in known:
        raise BadConfig(
            f"{name!r} is no floating-point type to measure in",
            hint=f"use auto or one of {', '.join(sorted(known))}",
        )
    found: torch.dtype = getattr(torch, name)
    return found


def parse_device(name: str) -> torch.device:
    """Returns a device by name.

    Raises:
        BadConfig: for a name or number that this machine does not have.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:
        text = str(error).splitlines()[0]
        raise BadConfig(
            f"device {name!r} cannot be used: {text}", hint="use --device cpu"
        ) from error
    return device


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _finer(done: _Pass) -> tuple[torch.dtype | None, str]:
    """Returns the precision to measure again in, and why; None if not needed."""
    if done.dtype in _HALVES:
        return torch.float32, f"gradients in {_name(done.dtype)} may underflow"
    if done.dtype == torch.float64:
        return None, ""
    norms = [value for batch in done.batches.measured for value in batch.at.values()]
    if any(value == 0 for value in norms):
        return torch.float64, "some gradients are zero in float32"
    if any(value < _TINY_NORM for value in norms):
        return torch.float64, "some gradients are near the end of float32's range"
    return None, ""


def _measure_all(scan: _Scan, dtype: torch.dtype | None) -> _Pass:
    options = scan.options
    device = parse_device(options.device)
    twin = Twin(scan.model, device=device, dtype=dtype, unfreeze=options.unfreeze)
    setting = Setting(
        model=scan.model,
        twin=twin,
        loss=scan.loss,
        device=device,
        dtype=dtype,
        seed=options.seed,
        output=options.output,
    )
    measuring = _Measuring(setting)
    skipped = 0
    with twin.standing_in(scan.model):
        for number, batch in enumerate(scan.batches):
            if not finite(batch):
                skipped += 1
                continue
            ending = scan.say(f"batch {number + 1} of {len(scan.batches)}") is True
            if ending and measuring.measured:
                break
            measuring.add(batch, number)
    if not measuring.measured:
        raise _nothing(len(scan.batches))
    joined = measuring.joined()
    if joined.others:
        graphs = len(joined.others) + 1
        measuring.notes.append(
            f"control flow depends on the data: {graphs} graphs in "
            f"{len(joined.measured)} batches; the trunk is that of {joined.share}"
        )
    own = dtype or own_dtype(scan.model)
    return _Pass(joined, own, measuring.blocked, skipped, measuring.notes)


def _nothing(batches: int) -> NothingMeasured:
    if not batches:
        return NothingMeasured(
            "there was no batch to measure",
            hint="check the data, or measure on synthetic inputs without --data",
        )
    return NothingMeasured(
        f"none of {batches} batches could be measured: all hold NaN or infinite values",
        hint="check the data, or measure on synthetic inputs without --data",
    )


@dataclass(slots=True)
class _Measuring:
    """The batches measured so far, on one twin of the model."""

    setting: Setting
    known: list[Blueprint] = field(default_factory=list)
    follows: list[Blueprint] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    blocked: tuple[Blocker, ...] = ()
    notes: list[str] = field(default_factory=list)

    def add(self, batch: Batch, number: int) -> None:
        """Measures one more batch."""
        twin, seed = self.setting.twin, self.setting.seed
        done, blueprint = self._fitting(batch, number)
        if not self.measured:
            self.blocked = blockers.find(blueprint, twin, done)
            if any(blocker.replaced for blocker in self.blocked):
                blockers.replace(twin, self.blocked, seed)
                again, blueprint = self._fitting(batch, number)
                again.called, again.used = done.called, done.used
                again.recurrences = {**done.recurrences, **again.recurrences}
                done = again
        self.measured.append(done)
        self.follows.append(blueprint)

    def joined(self) -> Batches:
        """Returns all batches, under the graph that most of them have."""
        return join(self.setting.twin.weights, self.measured, self.follows)

    def _fitting(self, batch: Batch, number: int) -> tuple[Measured, Blueprint]:
        """Measures a batch, halved as often as memory demands."""
        for smaller in _halves(batch):
            try:
                done, blueprint = measure(
                    self.setting,
                    smaller,
                    number=number,
                    known=self.known,
                    zeros=not self.measured,
                )
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                continue
            if smaller.size < batch.size:
                cut = f"batch {number + 1} cut to {smaller.size} samples"
                self.notes.append(f"out of memory: {cut}")
            if not any(blueprint is seen for seen in self.known):
                self.known.append(blueprint)
            return done, blueprint
        raise CannotRun(
            "out of memory even with one sample",
            hint="use a smaller input, --device cpu, or a machine with more memory",
        )


def _halves(batch: Batch) -> Iterator[Batch]:
    size = batch.size
    yield batch
    while size > 1:
        size //= 2
        yield shrink(batch, size)


def shrink(batch: Batch, size: int) -> Batch:
    """Returns the first ``size`` samples of a batch."""

    def cut(tensor: Tensor) -> Tensor:
        whole = tensor.dim() > 0 and tensor.shape[0] == batch.size
        return tensor[:size] if whole else tensor

    args, kwargs, labels = map_tensors((batch.args, batch.kwargs, batch.labels), cut)
    return dataclasses.replace(
        batch, args=args, kwargs=kwargs, labels=labels, size=size
    )


def finite(batch: Batch) -> bool:
    """Tells whether all numbers that a batch feeds are finite."""
    return all(
        bool(torch.isfinite(tensor).all())
        for tensor in tensors_in((batch.args, batch.kwargs))
        if tensor.is_floating_point() or tensor.is_complex()
    )


def _flow(scan: _Scan, best: _Pass, precision: Precision) -> GradientFlow:
    batches, options = best.batches, scan.options
    measured = batches.measured
    return GradientFlow(
        probe="jacobian" if scan.loss is None else "loss",
        mode=options.mode,
        device=options.device,
        batches=len(measured),
        skipped=best.skipped,
        batch_size=measured[0].samples,
        samples=sum(batch.samples for batch in measured),
        seed=options.seed,
        precision=precision,
        attenuation=transport.total(batches),
        weight_layers=batches.blueprint.plan.weight_layers,
        layers=assemble.layers(batches),
        trunk=transport.trunk(batches),
        branches=transport.branches(batches),
        merges=transport.merges(batches),
        recurrences=transport.recurrences(batches),
        blockers=best.blockers,
        uncalibrated=state.uncalibrated(scan.model, options.mode),
        output_variation=assemble.mean([b.variation for b in measured]),
        input_mean=assemble.mean([b.input_mean for b in measured]),
        input_std=assemble.mean([b.input_std for b in measured]),
        loss=None if scan.loss is None else assemble.loss(batches, scan.loss.name),
        not_measured=assemble.not_measured(batches),
        notes=tuple(dict.fromkeys((*scan.notes, *best.notes))),
    )


def _precision(first: _Pass, best: _Pass, reason: str, own: torch.dtype) -> Precision:
    if best is first:
        return Precision(dtype=_name(own), measured=_name(first.dtype))
    before: Interval | None = transport.total(first.batches)
    return Precision(
        dtype=_name(own),
        measured=_name(best.dtype),
        reason=reason,
        lost=max(0.0, _zero_share(first) - _zero_share(best)),
        own_attenuation=None if before is None else before.value,
    )


def _zero_share(done: _Pass) -> float:
    zeros = count = 0.0
    for batch in done.batches.measured:
        for name, figures in batch.parameters.items():
            if not math.isnan(figures.zeros):
                zeros += figures.zeros
                count += done.batches.weights.parameters[name].numel()
    return zeros / count if count else math.nan
