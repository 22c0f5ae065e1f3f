"""All batches of a scan in one precision."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch, Loss
from vgaudit.errors import CannotRun, NothingMeasured
from vgaudit.flow import Blocker
from vgaudit.job import ProbeOptions
from vgaudit.probe import blockers, spread
from vgaudit.probe.assemble import Batches, join
from vgaudit.probe.blueprint import Blueprint
from vgaudit.probe.forward import Setting, is_out_of_memory
from vgaudit.probe.placing import own_dtype, parse_device
from vgaudit.probe.shards import Shards
from vgaudit.probe.spread import Sharing
from vgaudit.probe.state import Twin, prepare_mode
from vgaudit.probe.step import Measured, measure
from vgaudit.probe.tensors import map_tensors, tensors_in

if TYPE_CHECKING:
    from vgaudit.distributed.group import Group

Progress = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Scan:
    """What is asked, and who takes part: the same in every precision."""

    model: nn.Module
    batches: list[Batch]
    loss: Loss | None
    options: ProbeOptions
    say: Progress
    notes: tuple[str, ...] = ()
    sharing: Sharing | None = None

    @property
    def broken(self) -> bool:
        """Whether ranks have lost each other: nothing more can be measured."""
        return self.sharing is not None and self.sharing.group.broken


@dataclass(slots=True)
class Pass:
    """All batches in one precision."""

    batches: Batches
    dtype: torch.dtype
    blockers: tuple[Blocker, ...]
    skipped: int
    notes: list[str]


def measure_all(scan: Scan, dtype: torch.dtype | None) -> Pass:
    """Measures every batch in one type; None for the model's own.

    With several ranks each measures its own, and all return all of them.

    Raises:
        CannotRun: forward or backward fail, on this rank or another.
        NothingMeasured: no batch was left to measure.
    """
    usable = [n for n, batch in enumerate(scan.batches) if finite(batch)]
    if not usable:
        raise _nothing(len(scan.batches))
    measuring = _Measuring(_setting(scan, dtype, usable))
    _measure(scan, measuring, usable)
    joined = measuring.joined()
    if joined.others:
        graphs = len(joined.others) + 1
        measuring.notes.append(
            f"control flow depends on the data: {graphs} graphs in "
            f"{len(joined.measured)} batches; the trunk is that of {joined.share}"
        )
    own = dtype or own_dtype(scan.model)
    skipped = len(scan.batches) - len(usable)
    return Pass(joined, own, measuring.blocked, skipped, measuring.notes)


def _setting(scan: Scan, dtype: torch.dtype | None, usable: list[int]) -> Setting:
    options, model = scan.options, scan.model
    device = parse_device(options.device)
    if scan.sharing is not None and scan.sharing.fresh is not None:
        # Shards of one type cannot become those of another.
        model = scan.sharing.fresh(dtype)
        prepare_mode(model, options.mode)
        twin: Twin = Shards(model)
    else:
        twin = Twin(model, device=device, dtype=dtype, unfreeze=options.unfreeze)
    return Setting(
        model=model,
        twin=twin,
        loss=scan.loss,
        device=device,
        dtype=dtype,
        seed=options.seed,
        output=options.output,
        starts=_starts([(number, scan.batches[number].size) for number in usable]),
    )


def _starts(sizes: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Returns how many samples stand before each batch, by its number."""
    ends = itertools.accumulate(size for _, size in sizes)
    return {number: end - size for (number, size), end in zip(sizes, ends, strict=True)}


def _measure(scan: Scan, measuring: _Measuring, usable: list[int]) -> None:
    """Measures the batches, alone or with other ranks.

    Raises:
        CannotRun: it fails here or, with several ranks, there; all raise the same.
    """
    sharing, setting = scan.sharing, measuring.setting
    with setting.twin.standing_in(setting.model):
        if sharing is None:
            _measure_each(scan, measuring, usable)
            return
        if setting.twin.sharded:
            with sharing.group.failing():
                _measure_together(scan, measuring, sharing, usable)
        else:
            own = sharing.dealt(usable)
            with sharing.group.agreeing():
                _measure_each(scan, measuring, own)
            if len(measuring.numbers) < len(own):
                # The first rank may not know that another was asked to end.
                measuring.notes.append(f"rank {sharing.group.rank} was ended early")
    measuring.exchange(sharing.group)


def _measure_each(scan: Scan, measuring: _Measuring, numbers: list[int]) -> None:
    """Measures some batches, fewer where the end is asked for."""
    for number in numbers:
        ending = scan.say(f"batch {number + 1} of {len(scan.batches)}") is True
        if ending and measuring.measured:
            break
        measuring.add(scan.batches[number], number)


def _measure_together(
    scan: Scan, measuring: _Measuring, sharing: Sharing, usable: list[int]
) -> None:
    """Measures batches in steps that all ranks take, for each needs the others."""
    for step, (number, counts) in enumerate(sharing.rounds(usable)):
        ending = scan.say(f"batch {number + 1} of {len(scan.batches)}") is True
        if any(sharing.group.everywhere(ending)) and step:
            break
        measuring.add(scan.batches[number], number, counts=counts)


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
    numbers: list[int] = field(default_factory=list)
    follows: list[Blueprint] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    blocked: tuple[Blocker, ...] = ()
    notes: list[str] = field(default_factory=list)

    def add(self, batch: Batch, number: int, *, counts: bool = True) -> None:
        """Measures one more batch, and keeps its figures if it counts."""
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
        if not counts:
            return
        self.numbers.append(number)
        self.measured.append(done)
        self.follows.append(blueprint)

    def exchange(self, group: Group) -> None:
        """Takes in what the other ranks measured."""
        parameters = self.setting.twin.parameters
        names = {id(parameter): name for name, parameter in parameters.items()}
        own = spread.share(self.numbers, self.measured, self.follows, names)
        own.blocked, own.notes = self.blocked, self.notes
        whole, self.follows = spread.joined(own, group.everywhere)
        self.numbers, self.measured = whole.numbers, whole.measured
        self.blocked, self.notes = whole.blocked, whole.notes

    def joined(self) -> Batches:
        """Returns all batches, under the graph that most of them have."""
        return join(self.setting.twin.weights, self.measured, self.follows)

    def _fitting(self, batch: Batch, number: int) -> tuple[Measured, Blueprint]:
        """Measures a batch, halved as often as memory demands.

        What ranks run together, none can run twice or with fewer samples.
        """
        sharded = self.setting.twin.sharded
        for smaller in [batch] if sharded else _halves(batch):
            try:
                done, blueprint = measure(
                    self.setting,
                    smaller,
                    number=number,
                    known=() if sharded else self.known,
                    zeros=not self.measured,
                )
            except Exception as error:
                if sharded or not is_out_of_memory(error):
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
