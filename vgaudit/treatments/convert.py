"""A conversion, whole: plan, apply, count the calls, state what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from vgaudit.conversion import ConvertOptions, Edit, Refusal
from vgaudit.data.batch import Batch
from vgaudit.errors import BadConfig, CannotRewrite
from vgaudit.nn import unfuse
from vgaudit.probe.state import unwrap
from vgaudit.treatments import adapt, hinges, parity, rotation_options, running
from vgaudit.treatments.copying import copied
from vgaudit.treatments.nothing import nothing
from vgaudit.treatments.plan import (
    LayerTarget,
    Plan,
    chosen,
    plan_activations,
    plan_layers,
)
from vgaudit.treatments.recorded import record
from vgaudit.treatments.rescale import rescale
from vgaudit.treatments.rotate import make_plain, rotate, rotated_layers
from vgaudit.treatments.statistics import is_stuck, survey
from vgaudit.treatments.steps import Step, note, steps_of
from vgaudit.treatments.traced import trace

_SHOWN = 3


@dataclass(slots=True)
class Treated:
    """A converted model and what was done to it.

    Attributes:
        model: a converted copy.
        edits, refusals: what was converted, and what was not.
        max_abs_diff: the largest |Δ| of any output, in train and in eval mode.
        output_scale: the largest |output| before.
        preserved: outputs, and outputs of every converted layer, are bit-equal.
        notes: statements for the user.
    """

    model: nn.Module
    edits: tuple[Edit, ...]
    refusals: tuple[Refusal, ...]
    max_abs_diff: float
    output_scale: float
    preserved: bool
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Work:
    """What one treatment did.

    Attributes:
        edits, refusals, notes: for the user.
        steps: to be replayed.
    """

    edits: list[Edit] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def treat(
    model: nn.Module,
    batches: Sequence[Batch],
    options: ConvertOptions,
) -> Treated:
    """Converts a copy of a model and proves what that did to the outputs.

    Args:
        model: stays as it is; wrappers are looked through.
        batches: calibrate layers and compare outputs.
        options: what to convert, and to what.

    Raises:
        CannotRewrite: nothing can be converted (VG701), or the function was to be
            kept and is not (VG702).
        CannotRun: the model fails on the batches.
        BadConfig: an option does not fit.
    """
    original = unwrap(model)
    _check_devices(original)
    work_on, shared = copied(original)
    before = [running.outputs(original, batches, mode) for mode in running.MODES]
    work = _apply(work_on, batches, options)
    if not work.edits:
        raise nothing(original, batches[0], options, work.refusals)
    if shared:
        work.notes.append(
            f"the copy shares what cannot be copied with the model: {', '.join(shared)}"
        )
    equal = parity.sites_equal(original, work_on, batches[0], work.edits)
    work_on = _in_form(work_on, batches, options, work)
    after = [running.outputs(work_on, batches, mode) for mode in running.MODES]
    diff = max(
        running.largest_difference(a, b) for a, b in zip(before, after, strict=True)
    )
    preserved = diff == 0.0 and equal
    scale = running.largest(tensor for tensors in before for tensor in tensors)
    parity.check_parity(options, diff, preserved=preserved, scale=scale)
    note(work_on, work.steps)
    if diff > 0 and parity.repeats(original, batches[0]) > 0:
        work.notes.append("two runs of the unconverted model differ by themselves")
    return Treated(
        model=work_on,
        edits=tuple(work.edits),
        refusals=tuple(work.refusals),
        max_abs_diff=diff,
        output_scale=scale,
        preserved=preserved,
        notes=tuple(work.notes),
    )


def _in_form(
    model: nn.Module,
    batches: Sequence[Batch],
    options: ConvertOptions,
    work: _Work,
) -> nn.Module:
    """Returns the converted model, or its graph where that was asked for."""
    if options.form == "module":
        return model
    note(model, work.steps)
    traced = trace(model, batches)
    work.steps = [*steps_of(model), Step(kind="trace", path="", paths=traced.leaves)]
    if traced.leaves:
        shown = ", ".join(traced.leaves[:_SHOWN])
        more = len(traced.leaves) - _SHOWN
        work.notes.append(
            f"taken whole into the graph, because tracing fails in them: {shown}"
            + (f" and {more} more" if more > 0 else "")
        )
    return traced.module


def _check_devices(model: nn.Module) -> None:
    devices = sorted({str(parameter.device) for parameter in model.parameters()})
    if len(devices) > 1:
        raise CannotRewrite(
            f"the parameters lie on several devices: {', '.join(devices)}",
            hint="move the model to one of them first",
        )


def _apply(
    model: nn.Module, batches: Sequence[Batch], options: ConvertOptions
) -> _Work:
    if options.to == "plain":
        return _plain(model, options)
    _check_options(options)
    opened = _unfuse(model, options) if options.unfuse else []
    graph = record(model, batches[0])
    if options.to == "adact":
        plan = plan_activations(graph, model, options)
        work = _adapt(model, plan, batches, options)
        work.steps = [*opened, *work.steps]
        return work
    plan = plan_layers(graph, model, options)
    return _scale(model, plan, batches, options)


def _unfuse(model: nn.Module, options: ConvertOptions) -> list[Step]:
    """Opens the recurrent layers that were chosen."""
    steps = []
    for path, module in list(model.named_modules()):
        if type(module) in (nn.LSTM, nn.GRU, nn.RNN) and chosen(options, path):
            unfuse(module)
            steps.append(Step(kind="unfuse", path=path))
    return steps


def _check_options(options: ConvertOptions) -> None:
    rotation_options.check(options)
    if options.hinges < 3:
        raise BadConfig(f"{options.hinges} hinges", hint="give at least 3")


def _plain(model: nn.Module, options: ConvertOptions) -> _Work:
    rotated = rotated_layers(model)
    paths = [path for path in rotated if chosen(options, path)]
    work = _Work()
    work.refusals += [
        Refusal(
            path=path,
            kind=kind,
            reason="left out by --layers or --skip",
        )
        for path, kind in rotated.items()
        if path not in paths
    ]
    work.edits, work.steps = make_plain(model, paths)
    return work


def _scale(
    model: nn.Module, plan: Plan, batches: Sequence[Batch], options: ConvertOptions
) -> _Work:
    work = _Work(refusals=list(plan.refusals))
    targets = _called(model, plan.layers, batches, work)
    if not targets:
        return work
    centre = _centring(model, targets, batches, options, work)
    treatment = rotate if options.to == "ar" else rescale
    done = treatment(model, targets, batches, options, centre=centre)
    work.edits, work.steps = done.edits, done.steps
    work.refusals += done.refusals
    return work


def _called(
    model: nn.Module,
    targets: Sequence[LayerTarget],
    batches: Sequence[Batch],
    work: _Work,
) -> list[LayerTarget]:
    """Returns the layers whose forward runs as often as their weight is used."""
    layers = [target.path for target in targets if not target.parameter]
    counts = running.planned_calls(model, layers, batches[0])
    met = {
        path
        for batch in batches
        for path, count in running.count_calls(model, layers, batch).items()
        if count
    }
    kept = []
    for target in targets:
        count = counts[target.path]
        if target.parameter or (count == target.calls and target.path in met):
            kept.append(target)
            continue
        reason = (
            "its forward does not run on the data: which layers do depends on it"
            if count == target.calls
            else f"its forward runs {count} times, its weight is used {target.calls} "
            "times"
        )
        work.refusals.append(Refusal(path=target.path, kind=target.kind, reason=reason))
    return kept


def _centring(
    model: nn.Module,
    targets: Sequence[LayerTarget],
    batches: Sequence[Batch],
    options: ConvertOptions,
    work: _Work,
) -> bool:
    if options.preserve:
        return False
    if options.centre is not None:
        return options.centre
    layers = [target for target in targets if not target.parameter]
    stuck = is_stuck(survey(model, layers, batches).values())
    if stuck:
        work.notes.append(
            "the signal dies on its way through the layers: each was centred"
        )
    return stuck


def _adapt(
    model: nn.Module, plan: Plan, batches: Sequence[Batch], options: ConvertOptions
) -> _Work:
    changes, refusals = adapt.adapt(model, plan.activations, options)
    work = _Work(refusals=[*plan.refusals, *refusals])
    counts = running.planned_calls(model, [c.path for c in changes], batches[0])
    # The calls in one module's source stand and fall together.
    broken: dict[Step, str] = {}
    for change in changes:
        count, planned = counts[change.path], len(change.target.acts)
        if count != planned:
            broken.setdefault(
                change.step,
                f"the new activation of {change.target.acts[0].site.key} ran {count} "
                f"times in one pass, its calls were {planned}; put back",
            )
    kept = []
    for step in dict.fromkeys(change.step for change in changes):
        mine = [change for change in changes if change.step == step]
        if step in broken:
            mine[0].undo()
            for change in mine:
                work.refusals += adapt.refused(change.target, broken[step])
            continue
        kept += mine
        work.steps.append(step)
    work.edits += hinges.counted(model, kept, batches)
    if options.start == "preserve" or (options.preserve and work.edits):
        work.notes.append(
            "the function is kept, and so are its gradients: it helps by training only"
        )
    return work
