"""Writes converted models: beside the target first, checked, then in its place."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from vgaudit import __version__
from vgaudit.conversion import Edit
from vgaudit.errors import CannotLoad, CannotWrite
from vgaudit.plain import kind_of, visible
from vgaudit.treatments import recipe as recipes
from vgaudit.treatments.recipe import Architecture, Recipe, code_of
from vgaudit.treatments.steps import steps_of

_STALE = ".vgaudit-part"
_HOUR = 3600.0
_SPARE = 1 << 20
_ROOM = "free some space or choose another folder"
# What the writers of weights say, each in its way, of a disk that takes no more.
_FULL = re.compile(r"No space left|os error 28|inline_container|failed writing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a converted model comes from, as far as it is known.

    Attributes:
        spec, sha256: the model that was converted.
        architecture: how to build it again, ``torchvision:vgg11``; may be empty.
        model_args: of its factory. command: what was typed.
        edits: what was done. max_abs_diff: of the outputs.
    """

    spec: str = ""
    sha256: str | None = None
    architecture: str = ""
    model_args: tuple[tuple[str, str], ...] = ()
    command: str = ""
    edits: tuple[Edit, ...] = ()
    max_abs_diff: float | None = None


Check = Callable[[Path], None]
"""Reads the written weights back from a path, before they take their place."""


def save(
    model: nn.Module,
    path: str | Path,
    *,
    origin: Origin | None = None,
    force: bool = False,
    check: Check | None = None,
) -> tuple[Path, ...]:
    """Writes a model whole or not at all, and returns the files.

    ``.safetensors``: the weights, and a recipe beside them that ``load`` applies to
    the architecture. ``.pt``: the whole module by pickle, which executes code when
    it is loaded.

    Args:
        model: converted or not.
        path: where to.
        origin: for the recipe.
        force: replace files that exist.
        check: called with the finished weights before they take their place.

    Raises:
        CannotWrite: the place is taken, missing or full, or the state_dict holds
            what safetensors cannot; nothing is left there.
    """
    target = Path(path)
    check_target(target, force=force)
    if target.suffix == ".pt":
        check_space(target, model.state_dict())
        with replacing(target) as part:
            _pickle(model, part, target)
        return (target,)
    tensors, aliases = stored(model)
    check_space(target, tensors)
    previous = _previous(target)
    beside = recipes.beside(target)
    with replacing(target) as part:
        save_file(tensors, part, metadata={"format": "pt"})
        recipe = _recipe(model, part, aliases, origin or Origin())
        with replacing(beside) as recipe_part:
            both = replace(recipe, previous=previous)
            recipe_part.write_text(recipes.dump(both), encoding="utf-8")
            if check is not None:
                with _recipe_beside(part, recipe_part):
                    check(part)
    if previous is not None:
        with replacing(beside) as recipe_part:
            recipe_part.write_text(recipes.dump(recipe), encoding="utf-8")
    return target, beside


class _Nowhere(io.RawIOBase):
    """Takes what is written, and keeps none of it."""

    def writable(self) -> bool:
        """Returns True."""
        return True

    def write(self, data: Any) -> int:
        """Returns the number of bytes."""
        return len(data)


def check_pickles(model: nn.Module, target: Path) -> None:
    """Refuses a module that ``save`` could not write to ``target`` as it is.

    Raises:
        CannotWrite: the target is for a pickle, which has no name for a part of it.
    """
    if target.suffix == ".pt":
        _pickle(model, cast(IO[bytes], _Nowhere()), target)


def _pickle(model: nn.Module, part: Path | IO[bytes], target: Path) -> None:
    """Writes the whole module.

    Raises:
        CannotWrite: pickle has no name for a part of it.
    """
    try:
        torch.save(model, part)
    except (pickle.PicklingError, AttributeError, TypeError, RuntimeError) as error:
        # The first three are what pickle raises of local classes, lambdas, locks and
        # files; the last comes from objects of torch's own library.
        if isinstance(error, RuntimeError) and "pickle" not in str(error):
            raise
        raise CannotWrite(
            f"{visible(str(target))}: the module cannot be pickled: "
            f"{visible(str(error))}",
            hint="write the weights, with a recipe beside them: -o OUT.safetensors",
        ) from error


def _previous(target: Path) -> Recipe | None:
    """Returns the recipe of the weights that are to be replaced.

    Two files cannot be replaced at once. The new recipe comes first and carries the
    old one, so that whichever weights are there when a run is killed have theirs.
    """
    if not target.is_file() or not recipes.beside(target).is_file():
        return None
    try:
        return replace(recipes.of(target), previous=None)
    except CannotLoad:
        return None


@contextlib.contextmanager
def _recipe_beside(part: Path, recipe_part: Path) -> Iterator[None]:
    """Gives the unfinished recipe the name that belongs to the unfinished weights."""
    linked = recipes.beside(part)
    linked.write_bytes(recipe_part.read_bytes())
    try:
        yield
    finally:
        linked.unlink(missing_ok=True)


def check_target(path: Path, *, force: bool) -> None:
    """Refuses a place where nothing can be written, before any work.

    Raises:
        CannotWrite: with the reason and the way out.
    """
    shown = visible(str(path))
    if path.suffix not in (".safetensors", ".pt"):
        raise CannotWrite(
            f"{shown}: the name must end in .safetensors or .pt",
            hint="weights with a recipe, or the whole module by pickle",
        )
    places = [path] if path.suffix == ".pt" else [path, recipes.beside(path)]
    for place in places:
        if place.is_dir():
            raise CannotWrite(f"{visible(str(place))} is a folder")
        alone = place != path and not path.exists() and _is_recipe(place)
        if place.exists() and not force and not alone:
            raise CannotWrite(
                f"{visible(str(place))} exists already", hint="--force replaces it"
            )
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise CannotWrite(
            f"{visible(str(path.parent))} is no folder that can be written to",
            hint="create it, or choose another",
        )


def _is_recipe(place: Path) -> bool:
    """Returns whether it is a recipe, as a killed run leaves one without weights."""
    try:
        recipes.parse(place)
    except CannotLoad:
        return False
    return True


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a new file in the same folder, which takes the place when all went well.

    Raises:
        CannotWrite: the system refuses; the old file, if any, is untouched.
    """
    _remove_stale(path)
    part: Path | None = None
    try:
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=_STALE
        )
        os.close(handle)
        part = Path(name)
        yield part
        with open(part, "rb+") as stream:
            os.fsync(stream.fileno())
        os.chmod(part, _mode(path))
        os.replace(part, path)
    except OSError as error:
        raise CannotWrite(
            f"{visible(str(path))} cannot be written: {error.strerror or error}",
            hint=_ROOM,
        ) from error
    except (SafetensorError, RuntimeError) as error:
        if not _FULL.search(str(error)):
            raise
        raise CannotWrite(
            f"{visible(str(path))} cannot be written: no space is left, or the disk "
            "fails",
            hint=_ROOM,
        ) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """Removes what a killed run left an hour ago or earlier."""
    for left in path.parent.glob(f".{path.name}.*{_STALE}"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _HOUR:
                left.unlink()


def _mode(path: Path) -> int:
    """Returns the mode of the file that is replaced, or what the umask leaves."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask


def stored(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns the tensors to write, and which keys share one of them.

    Raises:
        CannotWrite: the state_dict holds something that is no tensor.
    """
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[object, ...], str] = {}
    for key, value in tensors_of(model).items():
        same = (value.device, value.data_ptr(), value.shape, value.stride())
        if value.numel() and same in first:
            aliases[key] = first[same]
            continue
        first[same] = key
        tensors[key] = value.detach().cpu().contiguous().clone()
    return tensors, aliases


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Returns the state_dict, as it is where it holds tensors only.

    Raises:
        CannotWrite: it holds something else.
    """
    found: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise CannotWrite(
                f"{visible(key)} is {kind_of(value)}, which safetensors cannot hold",
                hint="give a name that ends in .pt, for the whole module",
            )
        found[key] = value
    return found


def check_space(path: Path, state: Mapping[str, Any]) -> None:
    """Refuses a place that is too small for a state and what is written with it.

    Raises:
        CannotWrite: with both sizes.
    """
    import shutil

    tensors = [value for value in state.values() if isinstance(value, Tensor)]
    needed = sum(t.numel() * t.element_size() for t in tensors) + _SPARE
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise CannotWrite(
            f"{visible(str(path))} needs {needed:,} bytes, {free:,} are free",
            hint=_ROOM,
        )


def _recipe(
    model: nn.Module, part: Path, aliases: dict[str, str], origin: Origin
) -> Recipe:
    with open(part, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    versions = {
        path: facts["version"]
        for path, facts in getattr(model.state_dict(), "_metadata", {}).items()
        if isinstance(facts.get("version"), int)
    }
    return Recipe(
        tool=__version__,
        torch=torch.__version__,
        command=origin.command,
        source=origin.spec,
        source_sha256=origin.sha256,
        architecture=Architecture(
            spec=origin.architecture,
            model_args=dict(origin.model_args),
            name=recipes.original_name(model),
            code=code_of(model),
        ),
        weights_sha256=digest,
        aliases=aliases,
        versions=versions,
        steps=steps_of(model),
        edits=tuple(replace(edit, source=None) for edit in origin.edits),
        max_abs_diff=origin.max_abs_diff,
    )
