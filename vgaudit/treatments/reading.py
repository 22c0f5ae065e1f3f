"""Reads converted models: architecture, then the recipe's steps, then the weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from vgaudit import loading
from vgaudit.errors import CannotLoad, CannotRewrite
from vgaudit.job import LoadOptions
from vgaudit.loading import LoadedModel
from vgaudit.loading.local_file import examine
from vgaudit.loading.safetensors_file import SUFFIX, read_header, read_tensors
from vgaudit.plain import visible
from vgaudit.probe.state import unwrap
from vgaudit.treatments import recipe as recipes
from vgaudit.treatments.recipe import Recipe
from vgaudit.treatments.steps import replay

Architecture = str | nn.Module | Callable[[], nn.Module]


def has_recipe(spec: str) -> bool:
    """Tells whether a model spec names weights with a recipe beside them."""
    path = Path(spec)
    return path.suffix == SUFFIX and path.is_file() and recipes.beside(path).is_file()


def open_model(spec: str, options: LoadOptions) -> LoadedModel:
    """Returns the model behind a spec, converted or not.

    Raises:
        UnknownSource, CannotLoad, BadConfig: as ``vgaudit.loading.load``.
    """
    if not has_recipe(spec):
        return named(loading.load(spec, options), options)
    found = recipes.of(Path(spec))
    base = loading.load(_architecture(found, options.arch), _building(found, options))
    module = _apply(found, Path(spec), base.module, options.sha256)
    parameters = list(module.parameters())
    target = replace(
        base.target,
        spec=spec,
        format="converted",
        sha256=found.weights_sha256,
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        nonfinite_weights=loading.loaded.nonfinite(module),
        missing_keys=(),
        unexpected_keys=(),
        notes=(*base.target.notes, *_notes(found)),
    )
    return named(replace(base, module=module, target=target), options)


def named(loaded: LoadedModel, options: LoadOptions) -> LoadedModel:
    """Returns a model that knows by which ``--arch`` it was opened.

    The commands that findings propose open it in the same way.
    """
    target = replace(loaded.target, arch=options.arch or "")
    return replace(loaded, target=target)


def load(
    path: str | Path,
    arch: Architecture | None = None,
    *,
    options: LoadOptions | None = None,
) -> nn.Module:
    """Returns a converted model, bit-equal to the one that was saved.

    Args:
        path: the safetensors file; its recipe lies beside it.
        arch: the original architecture: a model spec, a module (which is then
            changed in place) or a function that returns one. It may be left out for
            architectures of torchvision and timm. ``torch.compile`` and other
            wrappers are looked through, as by ``convert``.
        options: for building an architecture that is given by name.

    Raises:
        CannotLoad: no recipe, other weights than the recipe's, or an architecture
            that is not the one that was converted.
    """
    weights = Path(path)
    found = recipes.of(weights)
    if isinstance(arch, nn.Module):
        module = arch
    elif callable(arch):
        module = arch()
    else:
        wanted = options or LoadOptions()
        spec = _architecture(found, arch or wanted.arch)
        module = loading.load(spec, _building(found, wanted)).module
    return _apply(found, weights, module, None)


def _architecture(recipe: Recipe, given: str | None) -> str:
    """Returns the spec to build from; only zoo names are taken from a recipe.

    Raises:
        CannotLoad: the recipe's architecture is code, and nobody named it.
    """
    if given:
        return given
    if recipe.architecture.is_zoo:
        return recipe.architecture.spec
    named = recipe.architecture.spec or recipe.architecture.name
    raise CannotLoad(
        f"the recipe is for {visible(named)}, which is code: a recipe alone may name "
        "only architectures of torchvision and timm",
        hint=f"name it yourself: --arch {visible(named)}, or load(path, arch=…)",
    )


def _building(recipe: Recipe, options: LoadOptions) -> LoadOptions:
    """Returns how to build the bare architecture."""
    arguments = options.model_args or recipe.architecture.model_args
    return replace(options, arch=None, sha256=None, model_args=arguments)


def _apply(
    recipe: Recipe, weights: Path, module: nn.Module, sha256: str | None
) -> nn.Module:
    file = examine(weights, sha256)
    shown = visible(str(weights))
    if file.sha256 != recipe.weights_sha256:
        raise CannotLoad(
            f"{shown} is not the file that its recipe belongs to",
            hint="copy weights and recipe together; one of them was replaced",
        )
    module = _inside(recipe, module)
    recipes.check_code(recipe, module)
    try:
        module = replay(module, recipe.steps)
    except CannotRewrite as error:
        raise CannotLoad(f"{shown}: {error.message}", hint=error.hint) from error
    state = read_tensors(file, read_header(file))
    _put(recipe, shown, module, state)
    return module


def _inside(recipe: Recipe, module: nn.Module) -> nn.Module:
    """Returns what the recipe is for: wrappers are converted without, saved with."""
    if type(module).__name__ == recipe.architecture.name.rpartition(".")[2]:
        return module
    return unwrap(module)


def _put(
    recipe: Recipe, shown: str, module: nn.Module, state: dict[str, Tensor]
) -> None:
    """Loads the weights strictly: every key, shape and type."""
    for alias, key in recipe.aliases.items():
        if key not in state:
            raise CannotLoad(f"{shown} lacks {visible(key)}")
        state[alias] = state[key]
    own = module.state_dict()
    for key, value in own.items():
        given = state.get(key)
        if given is not None and given.dtype != value.dtype:
            _cast(module, state)
            break
    ordered = OrderedDict(state)
    ordered._metadata = {  # type: ignore[attr-defined]
        path: {"version": number} for path, number in recipe.versions.items()
    }
    try:
        module.load_state_dict(ordered, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CannotLoad(
            f"{shown} does not fit {type(module).__name__}: {visible(reason)}",
            hint="give the architecture that was converted by --arch",
        ) from error


def _cast(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Gives the architecture the floating-point type of the weights."""
    kinds = {t.dtype for t in state.values() if t.is_floating_point()}
    if len(kinds) == 1:
        module.to(next(iter(kinds)))


def _notes(recipe: Recipe) -> tuple[str, ...]:
    kinds = ", ".join(dict.fromkeys(step.kind for step in recipe.steps))
    return (f"converted by vgaudit {recipe.tool}: {len(recipe.steps)} edits ({kinds})",)
