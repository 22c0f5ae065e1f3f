"""Writing what was trained: bare weights, or converted ones with their recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vgaudit.conversion import Edit
from vgaudit.errors import CannotLoad, CannotWrite
from vgaudit.plain import visible
from vgaudit.treatments import Origin, save
from vgaudit.treatments import recipe as recipes
from vgaudit.treatments.steps import steps_of
from vgaudit.treatments.writing import (
    check_pickles,
    check_space,
    check_target,
    replacing,
    tensors_of,
)


def check_output(path: Path, *, force: bool) -> None:
    """Refuses a place where nothing can be written, before any training.

    Raises:
        CannotWrite: with the reason and the way out.
    """
    check_target(path, force=force)


def check_model(model: nn.Module, path: Path) -> None:
    """Refuses a model that cannot be written as its path asks, before any training.

    A little more room may be needed in the end, where training converts first.

    Raises:
        CannotWrite: with the reason and the way out.
    """
    check_pickles(model, path)
    check_space(path, model.state_dict())


def write(
    model: nn.Module, path: Path, *, origin: Origin, force: bool
) -> tuple[str, ...]:
    """Writes a trained model whole or not at all, and returns the files.

    A model that was converted gets its recipe beside it; another one is bare
    weights, to be opened with ``--arch``, and no recipe of replaced ones stays there.

    Raises:
        CannotWrite: the place is taken or full, or the file reads back differently.
    """
    if path.suffix == ".pt" or steps_of(model):
        kept = dataclasses.replace(origin, edits=_edits(origin))
        files = save(model, path, origin=kept, force=force, check=_checks(model))
        return tuple(str(file) for file in files)
    check_target(path, force=force)
    tensors = {name: _own(tensor) for name, tensor in tensors_of(model).items()}
    check_space(path, tensors)
    with replacing(path) as part:
        save_file(tensors, part, metadata={"format": "pt"})
        _compare(part, tensors)
    _forget_recipe(path)
    return (str(path),)


def _forget_recipe(path: Path) -> None:
    """Removes the recipe of the weights that were replaced; it fits these no more.

    Raises:
        CannotWrite: it cannot be removed.
    """
    beside = recipes.beside(path)
    if not beside.is_file():
        return
    try:
        recipes.parse(beside)
    except CannotLoad:
        return  # a file of somebody else
    try:
        beside.unlink()
    except OSError as error:
        raise CannotWrite(
            f"{visible(str(beside))} belongs to the weights that were replaced, and "
            f"cannot be removed: {error.strerror}",
            hint="remove it: the model opens with --arch alone",
        ) from error


def _edits(origin: Origin) -> tuple[Edit, ...]:
    """Returns what the conversion said it did, from the recipe of the source."""
    beside = recipes.beside(Path(origin.spec)) if origin.spec else None
    if origin.edits or beside is None or not beside.is_file():
        return origin.edits
    return recipes.of(Path(origin.spec)).edits


def _own(tensor: Tensor) -> Tensor:
    """Returns a tensor that shares memory with no other: tied weights stand twice."""
    return tensor.detach().cpu().contiguous().clone()


def _checks(model: nn.Module) -> Callable[[Path], None]:
    def check(part: Path) -> None:
        wanted = {name: _own(tensor) for name, tensor in tensors_of(model).items()}
        _compare(part, wanted, some=True)

    return check


def _compare(part: Path, wanted: dict[str, Tensor], *, some: bool = False) -> None:
    """Reads a file back before it takes its place.

    Raises:
        CannotWrite: a tensor is not what it should be.
    """
    found = load_file(part)
    if not some and found.keys() != wanted.keys():
        raise CannotWrite("the written file lacks tensors", hint="try another disk")
    for name, tensor in found.items():
        same = tensor.dtype == wanted[name].dtype and torch.equal(
            _bits(tensor), _bits(wanted[name])
        )
        if not same:
            raise CannotWrite(
                f"{visible(name)} reads back differently from what was written",
                hint="try another disk",
            )


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
