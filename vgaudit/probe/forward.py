"""The forward pass of one batch, and what to say when it fails."""

from __future__ import annotations

import dataclasses
import dis
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.data.batch import Batch, Loss
from vgaudit.errors import CannotRun, NothingMeasured, VgauditError
from vgaudit.plain import kind_of, visible
from vgaudit.probe import provenance
from vgaudit.probe.capture import Recorder
from vgaudit.probe.follow import Follower
from vgaudit.probe.misfit import misfit_hint, misfit_place, names_hint, wanted
from vgaudit.probe.naming import class_of
from vgaudit.probe.state import Twin
from vgaudit.probe.tensors import cast, differentiable, tensors_in

_REENTRANT = "None of the inputs have requires_grad=True"
_SHOWN = 4

INSTALLED = {"site-packages", "dist-packages"}
"""Folders of code that is not the user's own."""

_OWN = Path(__file__).resolve().parents[1]

Watcher = Recorder | Follower
"""What watches a forward pass: in full, or along what is known."""

_REENTRANT_WHY = (
    "a segment whose input needs no gradient: reentrant checkpointing leaves its "
    "parameters without one; checkpoint(..., use_reentrant=False) does not"
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What stays the same over the batches of one scan.

    ``feed`` changes the inputs as the model gets them: to differentiate by them.
    ``starts`` says how many samples stand before each batch that is measured.
    """

    model: nn.Module
    twin: Twin
    loss: Loss | None
    device: torch.device
    dtype: torch.dtype | None
    seed: int
    output: str | None = None
    check: Callable[[Any, Any, Any], None] | None = None
    feed: Callable[[Any], Any] | None = None
    starts: Mapping[int, int] = field(default_factory=dict)


def forward(
    setting: Setting, batch: Batch, recorder: Watcher
) -> tuple[list[Tensor], Tensor | None]:
    """Returns the differentiable outputs, and the loss where there is one.

    Raises:
        CannotRun: the model or the loss fails, or nothing needs a gradient.
    """
    args, kwargs, labels = cast(
        (batch.args, batch.kwargs, batch.labels),
        device=setting.device,
        dtype=setting.dtype or _own_dtype(setting.twin),
    )
    if setting.feed is not None:
        args, kwargs = setting.feed((args, kwargs))
    provenance.mark((args, kwargs))
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            value = setting.model(*args, **kwargs)
    except Exception as error:
        raise failure(error, setting.model, recorder) from error
    if any(_REENTRANT in str(warning.message) for warning in said):
        recorder.recording.unmeasured["activation checkpointing"] = _REENTRANT_WHY
    chosen = select(value, setting.output)
    outputs = differentiable(chosen)
    if not outputs:
        raise _no_gradient(chosen, setting.twin, recorder)
    loss = None
    if setting.loss is not None:
        if setting.check is not None:
            setting.check(chosen, labels, setting.loss)
        loss = _loss(setting.loss, chosen, labels)
    return outputs, loss


def _own_dtype(twin: Twin) -> torch.dtype | None:
    """Returns the type floats are fed in: that of the first half-type weight."""
    types = (p.dtype for p in twin.parameters.values() if p.is_floating_point())
    first = next(types, None)
    return None if first == torch.float32 else first


def _loss(loss: Loss, output: Any, labels: Any) -> Tensor:
    try:
        value = loss.function(output, labels)
    except CannotRun:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise CannotRun(
            f"the loss {loss.name} failed: {first_line(error)}",
            hint="check that labels and output fit; --loss chooses another",
        ) from error
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise CannotRun(
            f"the loss {loss.name} is not a single number but {shape}",
            hint="reduce it, for example with .mean()",
        )
    if not value.requires_grad:
        raise CannotRun(
            f"the loss {loss.name} has no gradient",
            hint="it was detached, or made under no_grad or inference_mode",
        )
    return value.reshape(())


def select(value: Any, output: str | None) -> Any:
    """Returns the output of an index or key; all of it without one.

    Raises:
        CannotRun: there is none.
    """
    if output is None:
        return value
    try:
        if isinstance(value, Mapping) and output in value:
            return value[output]
        if output.lstrip("-").isdigit():
            return _items(value)[int(output)]
        return value[output] if isinstance(value, Mapping) else getattr(value, output)
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise CannotRun(
            f"the model's output has no {output!r}; it is {kind_of(value)}",
            hint="choose an index or key that the output has, or leave --output out",
        ) from error


def _items(value: Any) -> list[Any]:
    if dataclasses.is_dataclass(value) and not isinstance(value, Mapping):
        return [getattr(value, spec.name) for spec in dataclasses.fields(value)]
    return list(value.values() if isinstance(value, Mapping) else value)


def _no_gradient(output: Any, twin: Twin, recorder: Watcher) -> VgauditError:
    if not twin.parameters and twin.quantized:
        return CannotRun(
            "the model is quantised: it has no trainable floating-point weights",
            hint="scan the model that was quantised",
        )
    if not twin.parameters:
        return NothingMeasured(
            "the model has no parameters",
            hint="nothing in it can be trained; scan the model that holds the weights",
        )
    if not any(p.requires_grad for p in twin.parameters.values()):
        return CannotRun(
            f"0 of {len(twin.parameters)} parameters are trainable",
            hint="measure the frozen ones with --unfreeze (unfreeze=True)",
        )
    found = list(tensors_in(output))
    if not found:
        return CannotRun(
            f"the output holds no tensor: {type(output).__name__}",
            hint="choose a part of it with --output",
        )
    if "activation checkpointing" in recorder.recording.unmeasured:
        return CannotRun(
            "no gradient can flow: reentrant activation checkpointing got an input "
            "that needs no gradient",
            hint="use checkpoint(..., use_reentrant=False)",
        )
    if not any(tensor.numel() for tensor in found):
        return CannotRun(
            "no gradient can flow: the output is empty",
            hint="give a batch of at least one sample",
        )
    why = "made under inference_mode" if found[0].is_inference() else "detached"
    if not any(t.is_floating_point() or t.is_complex() for t in found):
        why = f"of type {str(found[0].dtype).removeprefix('torch.')}"
    return CannotRun(
        f"no gradient can flow: the output is {why}",
        hint="return a tensor that depends on the weights; look for detach(), "
        "no_grad() or argmax() in forward",
    )


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text, or its type."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def failure(error: Exception, model: nn.Module, recorder: Watcher) -> Exception:
    """Returns the error to raise for a failed forward, naming the module."""
    if is_out_of_memory(error):
        return error
    path, module = _failing_module(error, model)
    given = ", ".join(
        f"{list(size)} {str(kind).removeprefix('torch.')}"
        for size, kind in recorder.recording.last_inputs.get(path, [])[:_SHOWN]
    )
    shape = f" on input {given}" if given else ""
    return CannotRun(
        f"{place(error, model)} failed{shape}{wanted(module)}: {first_line(error)}",
        hint=_failure_hint(error),
    )


def place(error: Exception, model: nn.Module) -> str:
    """Returns the name and class of the module in which an error was raised."""
    path, module = _failing_module(error, model)
    return f"{path or 'the model'} ({class_of(module).__name__})"


def _failure_hint(error: Exception) -> str:
    text = str(error)
    if "more than 1 value per channel" in text:
        return "batch normalisation needs a batch of 2 or more: --batch-size 2"
    if told := names_hint(error):
        return told
    if isinstance(error, TypeError) and "argument" in text:
        return "give every input of forward: --input name=SHAPE for each"
    return (
        raised_hint(error) or "check the shape and type of the input: --input, --data"
    )


def failed_call(error: Exception) -> CannotRun:
    """Returns what to tell of an error that came out of a call of the model."""
    text = (str(error).splitlines() or [""])[0]
    own = raised_hint(error)
    where = "" if own else misfit_place(error)
    return CannotRun(
        f"the model fails on its data: {type(error).__name__}: {visible(text)}"
        + (f", in {where}" if where else ""),
        hint=own
        or misfit_hint(error)
        or "check the shape of the inputs"
        + ("" if where else "; `vgaudit scan` names the layer"),
    )


def raised_hint(error: BaseException) -> str:
    """Returns where the model's own code raised an error; nothing if it did not.

    What torch or an installed library raises is mostly about the input. A ``raise`` or
    ``assert`` of the user's own code knows better what it is about.
    """
    last = error.__traceback__
    if last is None:
        return ""
    while last.tb_next is not None:
        last = last.tb_next
    code = last.tb_frame.f_code
    raised = dis.opname[code.co_code[last.tb_lasti]] == "RAISE_VARARGS"
    path = Path(code.co_filename)
    if not raised or INSTALLED & set(path.parts) or path.is_relative_to(_OWN):
        return ""
    where = f"line {last.tb_lineno} of {visible(path.name)}"
    return f"the model's own code raises this, in {where}: look there"


def _failing_module(error: Exception, model: nn.Module) -> tuple[str, nn.Module]:
    names = {id(module): name for name, module in model.named_modules()}
    found = ("", model)
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in names:
            found = (names[id(owner)], owner)
    return found


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error means that memory ran out, on any device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and (
        "out of memory" in str(error) or "can't allocate memory" in str(error)
    )
