"""From a checked archive to a module with the layers that it was exported from."""

from __future__ import annotations

import io
import logging
import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.errors import CannotLoad
from vgaudit.job import LoadOptions
from vgaudit.loading.archive import examine_archive, marks_export, members_of
from vgaudit.loading.exported.archive import HINT, Checked, check
from vgaudit.loading.loaded import (
    ExampleInput,
    InputHint,
    LoadedModel,
    Origin,
    finish,
)
from vgaudit.loading.local_file import LocalFile, examine
from vgaudit.loading.spec import Spec
from vgaudit.loading.wording import one_line

FROZEN = (
    "exported in eval mode: batch norm and dropout stay as in evaluation, "
    "whatever --mode says"
)


def matches(spec: Spec) -> bool:
    """Returns whether a specification names an archive of ``torch.export``."""
    return any(map(marks_export, members_of(spec.path)))


def load(spec: Spec, options: LoadOptions) -> LoadedModel:
    """Returns the module of an exported program.

    Raises:
        CannotLoad: it was not allowed, could run code, or is damaged.
    """
    assert spec.path is not None
    file = examine(spec.path, options.sha256)
    archive = examine_archive(file)
    checked = check(file)
    if not options.allow_code:
        raise CannotLoad(
            f"{file.path} is a torch.export program, which is code (tier T2, sha256 "
            f"{file.sha256}); checked: it holds aten operators only",
            hint=f"--allow-code runs it; or {HINT}",
        )
    arguments = _sample_inputs(file, checked)
    module = _module(file, checked)
    dropped = checked.dropped
    notes = (
        *((FROZEN,) if checked.eval_mode else ()),
        *((f"not read: {', '.join(dropped)}",) if dropped else ()),
    )
    origin = Origin(
        spec=spec.text,
        format="torch.export",
        tier="T2",
        sha256=file.sha256,
        notes=notes,
        archive_notes=archive.notes,
    )
    example = _example(arguments, module)
    found = finish(module, origin, architecture="exported program", example=example)
    target = replace(found.target, frozen_mode=checked.eval_mode)
    return replace(found, target=target)


def _sample_inputs(file: LocalFile, checked: Checked) -> Any:
    """Returns what the program was exported with.

    torch falls back to an unsafe reader where the safe one fails, so what the safe
    one cannot read never gets there.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(
                io.BytesIO(checked.samples), map_location="cpu", weights_only=True
            )
    except Exception as error:
        raise CannotLoad(
            f"{file.path} refused: its sample inputs are pickled objects (tier T3, "
            f"sha256 {file.sha256})",
            hint=HINT,
        ) from error


def _module(file: LocalFile, checked: Checked) -> nn.Module:
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(io.BytesIO(checked.archive))
            return torch.export.unflatten(program)
    except Exception as error:
        raise CannotLoad(
            f"{file.path}: torch {torch.__version__} cannot load the program: "
            f"{type(error).__name__}: {one_line(error, 160)}",
            hint="export it again with this version of torch",
        ) from error
    finally:
        logger.setLevel(level)


def _example(arguments: Any, module: nn.Module) -> InputHint | None:
    """Returns the inputs that the program was exported with, one sample of each."""
    plain = isinstance(arguments, (tuple, list)) and len(arguments) == 2
    positional, named = arguments if plain else (arguments, {})
    if not isinstance(positional, (tuple, list)) or not isinstance(named, dict):
        return None
    tensors = [*(("", value) for value in positional), *named.items()]
    if not tensors or not all(_has_batch(value) for _, value in tensors):
        return None
    sizes = {value.shape[0] for _, value in tensors}
    return InputHint(
        inputs=tuple(_input(name, value) for name, value in tensors),
        task="other",
        source="the sample inputs of the exported program",
        batch=sizes.pop() if len(sizes) == 1 and _static(module) else None,
    )


def _has_batch(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def _input(name: str, value: Tensor) -> ExampleInput:
    whole = not value.is_floating_point() and not value.is_complex()
    high = int(value.max()) + 1 if whole and value.numel() else 0
    return ExampleInput(
        shape=tuple(value.shape[1:]),
        name=name,
        dtype=str(value.dtype).removeprefix("torch."),
        high=high,
    )


def _static(module: nn.Module) -> bool:
    """Returns whether no dimension of the first input is a symbol."""
    graph = getattr(module, "graph", None)
    places = [node for node in graph.nodes if node.op == "placeholder"] if graph else []
    shapes = (getattr(node.meta.get("val"), "shape", ()) for node in places)
    return all(isinstance(size, int) for shape in shapes for size in shape[:1])
