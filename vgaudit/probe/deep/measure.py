"""The extra measurements of a deep scan, one after another, each with its price."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from vgaudit.data.batch import Batch, Loss
from vgaudit.errors import VgauditError
from vgaudit.flow import DeepFlow, GradientFlow, NotMeasured, Price, TheoryFlow
from vgaudit.job import ProbeOptions
from vgaudit.probe import blockers, norms
from vgaudit.probe.deep.attention import attention
from vgaudit.probe.deep.gradients import Gradients
from vgaudit.probe.deep.jacobian import jacobians, samples_wanted
from vgaudit.probe.deep.live import Live, live
from vgaudit.probe.deep.stream import stream
from vgaudit.probe.deep.theory import Theory
from vgaudit.probe.forward import Setting, first_line
from vgaudit.probe.gauges import Gauges
from vgaudit.probe.passes import finite, shrink
from vgaudit.probe.placing import parse_device, parse_dtype
from vgaudit.probe.recording import Habits
from vgaudit.probe.state import Twin
from vgaudit.probe.step import attach, cotangent

Progress = Callable[[str], object]


def deepen(
    flow: GradientFlow,
    model: nn.Module,
    *,
    batches: Sequence[Batch],
    loss: Loss | None,
    asked: tuple[ProbeOptions, Progress],
) -> GradientFlow:
    """Returns a flow with what a deep scan adds, in the precision of its figures.

    Args:
        flow: what was measured already.
        model: as it was measured, with its modes set.
        batches: as they were given.
        loss: the loss probe's loss, or None.
        asked: the options of the scan, and what is told the name of each part.
    """
    options, progress = asked
    device = parse_device(options.device)
    dtype = parse_dtype(flow.precision.measured)
    twin = Twin(model, device=device, dtype=dtype, unfreeze=options.unfreeze)
    blockers.replace(twin, flow.blockers, options.seed)
    setting = Setting(
        model=model,
        twin=twin,
        loss=loss,
        device=device,
        dtype=dtype,
        seed=options.seed,
        output=options.output,
    )
    fed = [batch for batch in batches if finite(batch)]
    fed = [shrink(b, flow.batch_size) if b.size > flow.batch_size else b for b in fed]
    with twin.standing_in(model):
        return replace(flow, deep=_Scan(setting, fed, progress).run())


@dataclass(slots=True)
class _Scan:
    """One deep scan; what is found gathers in ``done``."""

    setting: Setting
    batches: list[Batch]
    say: Progress
    done: DeepFlow = field(default_factory=DeepFlow)
    habits: Habits = field(default_factory=Habits)
    unit: float = math.nan
    prices: list[Price] = field(default_factory=list)
    gaps: list[NotMeasured] = field(default_factory=list)

    def run(self) -> DeepFlow:
        """Measures all parts; one that fails is named, and the others go on."""
        with self._part("forward signal, attention and theory"):
            self._first()
        with self._part("precision and noise"):
            gradients = Gradients(self.setting, self.batches, self.habits)
            gradients.run()
            self.unit = gradients.seconds / len(self.batches)
            self.done = replace(
                self.done, precision=gradients.precision(), noise=gradients.noises()
            )
        with self._part("jacobian"):
            sample = shrink(self.batches[0], samples_wanted(self.setting.model))
            found = jacobians(self.setting, sample)
            self.done = replace(self.done, jacobians=found)
        return replace(self.done, prices=self._priced(), not_measured=tuple(self.gaps))

    def _first(self) -> None:
        with live(self.setting, self.batches[0], signals=True) as seen:
            self.habits = seen.recorder.habits
            theory = Theory(seen)
            self.done = replace(
                self.done,
                stream=stream(seen.signals, seen.graph, seen.blueprint),
                attention=attention(seen),
            )
            self.done = replace(self.done, theory=self._beside(theory, seen))

    def _beside(self, theory: Theory, seen: Live) -> TheoryFlow | None:
        gauges = Gauges()
        attach(gauges, seen.blueprint, seen.graph, seen.outputs)
        vectors = [
            cotangent(output, self.setting.seed, 0, place)
            for place, output in enumerate(seen.outputs)
        ]
        torch.autograd.backward(seen.outputs, vectors)
        at, _ = gauges.read()
        sizes = norms.read([norms.norm(vector) for vector in vectors])
        return theory.beside(at, math.hypot(*sizes))

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        self.say(f"deep: {name}")
        started = time.perf_counter()
        try:
            yield
        except Exception as error:
            text = (
                error.message if isinstance(error, VgauditError) else first_line(error)
            )
            self.gaps.append(NotMeasured(path=name, reason=text))
        seconds = time.perf_counter() - started
        self.prices.append(Price(part=name, seconds=seconds, passes=math.nan))

    def _priced(self) -> tuple[Price, ...]:
        """Returns the prices, also in plain passes of one batch."""
        if not self.unit > 0:
            return tuple(self.prices)
        return tuple(replace(p, passes=p.seconds / self.unit) for p in self.prices)
