"""The recipe beside the weights of a converted model: data, never code.

By itself a recipe may name an architecture of torchvision or timm only. An
architecture in code must be named again by whoever loads the model, and the hash of
its classes is compared with the recipe's.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import fx, nn

from vgaudit.conversion import Edit
from vgaudit.errors import CannotLoad
from vgaudit.loading.local_file import examine
from vgaudit.plain import to_json, visible
from vgaudit.treatments.retracing import ROOT
from vgaudit.treatments.steps import Step
from vgaudit.typed import Mismatch, typed

FORMAT = "vgaudit-recipe"
VERSION = "1.0"
SUFFIX = ".recipe.json"
MOST_BYTES = 64 * 2**20
_KNOWN_CODE = ("torch.", "torchvision.", "timm.", "transformers.", "vgaudit.")
ZOOS = ("torchvision:", "timm:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What the steps are applied to.

    Attributes:
        spec: how the user named it; empty for a Python object.
        model_args: keyword arguments of its factory, as text.
        name: qualified name of its class.
        code: qualified name → sha256, for each of the user's own classes in it.
    """

    spec: str = ""
    model_args: dict[str, str] = field(default_factory=dict)
    name: str = ""
    code: dict[str, str] = field(default_factory=dict)

    @property
    def is_zoo(self) -> bool:
        """Whether the name alone says what to build, and building is harmless."""
        return self.spec.startswith(ZOOS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to make a converted model from its architecture and its weights.

    Attributes:
        format, version: of this document.
        tool, torch: versions that wrote it.
        command: what was typed; empty from Python.
        source, source_sha256: the model that was converted.
        architecture: what it is built from.
        weights_sha256: of the safetensors file beside.
        aliases: state_dict key → key under which the same tensor is stored.
        versions: of the modules that wrote the state_dict, which safetensors drops.
        steps: the structural edits, in order.
        edits: what was done, for people.
        max_abs_diff: of the outputs at conversion.
        previous: the recipe of the weights that this one's weights replace, while
            they have not yet taken their place.
    """

    format: str = FORMAT
    version: str = VERSION
    tool: str
    torch: str
    command: str = ""
    source: str = ""
    source_sha256: str | None = None
    architecture: Architecture
    weights_sha256: str
    aliases: dict[str, str] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    edits: tuple[Edit, ...] = ()
    max_abs_diff: float | None = None
    previous: Recipe | None = None


def beside(weights: Path) -> Path:
    """Returns where the recipe of a weights file is: ``out.recipe.json``."""
    return weights.with_name(f"{weights.stem}{SUFFIX}")


def code_of(model: nn.Module) -> dict[str, str]:
    """Returns the sha256 of the source of each class that is no library's.

    A rewritten class counts as the one it was made from.
    """
    found: dict[str, str] = {}
    for module in model.modules():
        for kind in _class_of(module).__mro__:
            name = qualified(kind)
            known = name.startswith(_KNOWN_CODE) or kind.__module__ == "builtins"
            if known or name in found:
                continue
            text = _source(kind)
            if text is not None:
                found[name] = hashlib.sha256(text.encode()).hexdigest()
    return found


def qualified(kind: type) -> str:
    """Returns the class's name with its qualified module."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _original(kind: type) -> type:
    while True:
        before = kind.__dict__.get("rewritten_from") or kind.__dict__.get("plain_class")
        if before is None:
            return kind
        kind = before


def original_name(model: nn.Module) -> str:
    """Returns the class that a model had before its methods were rewritten."""
    return qualified(_class_of(model))


def _class_of(module: nn.Module) -> type:
    """Returns the user's class of a module that was rewritten, rotated or traced."""
    if isinstance(module, fx.GraphModule) and ROOT in module.meta:
        root: type = module.meta[ROOT]
        return _original(root)
    return _original(type(module))


def _source(kind: type) -> str | None:
    try:
        return "\n".join(inspect.getsource(kind).splitlines())
    except (OSError, TypeError):
        return None


def check_code(recipe: Recipe, model: nn.Module) -> None:
    """Refuses an architecture whose code is not that of the recipe.

    Module names are not compared: the same file may be imported under another.

    Raises:
        CannotLoad: a class changed or is missing.
    """
    found: dict[str, set[str]] = {}
    for name, digest in code_of(model).items():
        found.setdefault(name.rpartition(".")[2], set()).add(digest)
    for name, wanted in recipe.architecture.code.items():
        digests = found.get(name.rpartition(".")[2], set())
        if wanted in digests:
            continue
        what = "is not the one that was converted" if digests else "is missing"
        raise CannotLoad(
            f"the code of {visible(name)} {what} (sha256 {wanted[:12]}…)",
            hint="give the architecture that the recipe was made with by --arch",
        )


def dump(recipe: Recipe) -> str:
    """Returns the recipe as JSON."""
    return to_json(recipe, indent=1) + "\n"


def of(weights: Path) -> Recipe:
    """Returns the recipe of a file of weights.

    Where a run was killed between its recipe and its weights, that is the old one.

    Raises:
        CannotLoad: no recipe, a damaged one, or one of another major version.
    """
    found = parse(beside(weights))
    if found.previous is not None and weights.is_file():
        digest = examine(weights).sha256
        return found.previous if digest == found.previous.weights_sha256 else found
    return found


def parse(path: Path) -> Recipe:
    """Returns the recipe in a file.

    Raises:
        CannotLoad: no recipe, a damaged one, or one of another major version.
    """
    shown = visible(str(path))
    try:
        if path.stat().st_size > MOST_BYTES:
            raise CannotLoad(f"{shown} is larger than any recipe")
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CannotLoad(
            f"{shown} cannot be read as a recipe: {error}",
            hint="the recipe lies beside the weights; copy both",
        ) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise CannotLoad(f"{shown} is no recipe of vgaudit")
    found = str(record.get("version"))
    if found.partition(".")[0] != VERSION.partition(".")[0]:
        raise CannotLoad(
            f"{shown} has recipe version {visible(found)}",
            hint=f"this vgaudit reads {VERSION}; use the version that wrote it",
        )
    return _validated(record, shown)


def _validated(record: dict[str, Any], shown: str) -> Recipe:
    try:
        return typed(Recipe, record)
    except Mismatch as error:
        raise CannotLoad(
            f"{shown} is damaged: {error}",
            hint="the file was changed by hand, or written by another version",
        ) from error
