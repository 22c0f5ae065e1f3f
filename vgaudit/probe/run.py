"""A whole measurement: several batches, in the precision that they need."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from vgaudit.data.batch import Batch, Loss
from vgaudit.flow import GradientFlow, Precision
from vgaudit.job import ProbeOptions
from vgaudit.probe import assemble, state, transport
from vgaudit.probe.ladder import ladder
from vgaudit.probe.lazy import materialised
from vgaudit.probe.passes import Pass, Progress, Scan
from vgaudit.probe.placing import parse_device
from vgaudit.probe.scripted import is_scripted, parameters_only
from vgaudit.probe.spread import Sharing

_LAZY = "lazy modules were initialised by the first batch, in a copy of the model"


def probe(  # noqa: PLR0913 - a scan and who takes part in it
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    loss: Loss | None = None,
    options: ProbeOptions | None = None,
    progress: Progress | None = None,
    sharing: Sharing | None = None,
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
        sharing: the ranks that take part; each returns the whole flow.

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
        scan = Scan(ready, given, loss, options, say, notes, sharing)
        flow = _flow(scan, *ladder(scan))
        if not options.deep or say("the extra measurements") is True:
            return flow
        # Loaded when asked for: an ordinary scan does without.
        from vgaudit.probe.deep import deepen

        return deepen(flow, ready, batches=given, loss=loss, asked=(options, say))


def _flow(scan: Scan, best: Pass, precision: Precision) -> GradientFlow:
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
