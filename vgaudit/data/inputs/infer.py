"""Inputs for a model that nobody described: read, guess, try, or say so."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from vgaudit.data.inputs.arguments import Argument, Slot, read_arguments
from vgaudit.data.inputs.dry_run import DryRun
from vgaudit.data.inputs.form import CallForm, TensorForm
from vgaudit.data.inputs.huggingface import is_transformers, transformers_proposals
from vgaudit.data.inputs.search import Proposal, Search
from vgaudit.data.inputs.signature import (
    describe,
    forward_signature,
    has_forward,
    unwrap,
)
from vgaudit.data.inputs.spec import call_from_inputs
from vgaudit.data.inputs.special import agreed_call, agreed_proposals
from vgaudit.errors import BadConfig
from vgaudit.job import DataOptions
from vgaudit.plain import visible

_TRIAL_BATCH = 5
"""Samples of a dry run: a number that no other extent is likely to have."""

_MAX_CHOICES = 8
"""Forms of each argument that are combined with those of the others."""

_HUGE = 300_000_000


def infer_inputs(
    model: nn.Module,
    hint: object | None,
    options: DataOptions,
    *,
    mode: str = "train",
) -> CallForm:
    """Returns the form of a call that ``model`` accepts.

    In this order: what the user gave, what the model's library agrees on, what
    the loader's ``hint`` says, and what its layers and signature suggest; all
    but the first two are proved by a dry run. Floats have the model's type.

    Raises:
        BadConfig: no guess runs, or the user's ``inputs`` are wrong.
    """
    dtype = model_dtype(model)
    if options.inputs:
        return call_from_inputs(options.inputs, model, options.batch_size).cast(dtype)
    if not has_forward(model):
        raise BadConfig(
            f"{type(unwrap(model)).__name__} has no forward, so nothing can be run",
            hint="give the module that contains it, or one that implements forward",
        )
    call = agreed_call(model, mode)
    if call is None:
        search = Search(DryRun(model, mode=mode))
        proposals = (_cast(p, dtype) for p in _proposals(model, hint))
        call = search.first(proposals)
        if call is None:
            raise _not_found(model, search.error)
        call = call.sized(default_batch_size(call.numel, model))
    call = call.cast(dtype)
    return call if options.batch_size is None else call.sized(options.batch_size)


def model_dtype(model: nn.Module) -> torch.dtype:
    """Returns the type of the first floating parameter, else float32."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return parameter.dtype
    return torch.float32


def default_batch_size(numel: int, model: nn.Module) -> int:
    """Returns a batch that two CPU cores and a few GB can take.

    8 for samples of up to 16 thousand elements, 4 up to 200 thousand, else 2;
    2 for models beyond 300 million parameters. Never 1, for batch norm.
    """
    if numel > 200_000 or _parameters(model) > _HUGE:
        return 2
    return 8 if numel <= 16_384 else 4


def _parameters(model: nn.Module) -> int:
    lazy = torch.nn.parameter.is_lazy
    return sum(p.numel() for p in model.parameters() if not lazy(p))


def _cast(proposal: Proposal, dtype: torch.dtype) -> Proposal:
    return Proposal(
        lambda size: proposal.build(size).cast(dtype), proposal.sizes, proposal.spatial
    )


def _proposals(model: nn.Module, hint: object | None) -> Iterator[Proposal]:
    if not forward_signature(model).parameters:
        yield Proposal(lambda _: CallForm(why="forward takes no input"))
        return
    yield from _hinted(hint)
    if is_transformers(model):
        yield from transformers_proposals(model, _TRIAL_BATCH)
        return
    yield from agreed_proposals(model, _TRIAL_BATCH)
    yield from _guesses(model)


def _hinted(hint: object | None) -> Iterator[Proposal]:
    """Yields the arguments that the loader knows, each without the batch."""
    inputs = getattr(hint, "inputs", ())
    if not inputs:
        return
    size: int = getattr(hint, "batch", None) or _TRIAL_BATCH
    args: list[TensorForm] = []
    kwargs: dict[str, TensorForm] = {}
    for example in inputs:
        form = TensorForm(
            shape=(size, *example.shape),
            dtype=getattr(torch, example.dtype),
            fill="ids" if example.high else "normal",
            high=example.high,
        )
        if example.name:
            kwargs[example.name] = form
        else:
            args.append(form)
    why = getattr(hint, "source", "") or "stated by the architecture"
    call = CallForm(args=tuple(args), kwargs=kwargs, size=size, why=why)
    yield Proposal(lambda _: call)


def _guesses(model: nn.Module) -> Iterator[Proposal]:
    """Yields combinations of what each argument's first layers take.

    The best guess is tried with every extent. Then, for models of several
    arguments, all combinations with one extent, then with all.
    """
    arguments = read_arguments(model)
    slots = [slot for argument in arguments for slot in argument.slots]
    deepest = _MAX_CHOICES if len(slots) < 4 else _MAX_CHOICES // 2
    counts = [min(len(slot.choices), deepest) for slot in slots]
    if len(slots) < 2:
        counts = [len(slot.choices) for slot in slots]
    yield _combination(arguments, slots, (0,) * len(slots))
    if len(slots) > 1:
        for choice in _choices(counts):
            proposal = _combination(arguments, slots, choice)
            sizes = proposal.sizes if proposal.spatial else proposal.sizes[:1]
            yield dataclasses.replace(proposal, sizes=sizes)
    for choice in _choices(counts):
        yield _combination(arguments, slots, choice)


def _choices(counts: list[int]) -> Iterator[tuple[int, ...]]:
    """Yields every choice of one index below each count, the first ones first."""
    for deepest in range(max(counts, default=0)):
        ranges = [range(min(deepest + 1, count)) for count in counts]
        level = [c for c in itertools.product(*ranges) if max(c) == deepest]
        yield from sorted((c for c in level if deepest), key=sum)


def _combination(
    arguments: list[Argument], slots: list[Slot], choice: tuple[int, ...]
) -> Proposal:
    chosen = [slot.choices[index] for slot, index in zip(slots, choice, strict=True)]
    longest = max(chosen, key=lambda family: len(family.sizes))

    def build(size: int) -> CallForm:
        # Families with another scale of extents keep their own first one.
        forms = [
            family.build(
                _TRIAL_BATCH, size if family.sizes == longest.sizes else family.sizes[0]
            )
            for family in chosen
        ]
        return _assemble(arguments, slots, forms)

    return Proposal(build, longest.sizes, any(f.spatial for f in chosen))


def _assemble(
    arguments: list[Argument], slots: list[Slot], forms: list[Any]
) -> CallForm:
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for argument in arguments:
        values = {
            slot.key: form
            for slot, form in zip(slots, forms, strict=True)
            if slot.argument == argument.name
        }
        value = argument.assemble(values)
        if argument.by_name:
            kwargs[argument.name] = value
        else:
            args.append(value)
    return CallForm(
        args=tuple(args),
        kwargs=kwargs,
        size=_TRIAL_BATCH,
        why="inferred from the layers, proved by a dry run",
    )


def _not_found(model: nn.Module, error: Exception | None) -> BadConfig:
    reason = f"; the last guess failed: {visible(str(error))}" if error else ""
    return BadConfig(
        f"cannot infer inputs for {describe(model)}{reason}",
        hint="give them: --input 8x3x224x224, or --input NAME=long:4x16:1000 "
        "for whole numbers below 1000",
    )
