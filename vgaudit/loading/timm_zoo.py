"""``timm:NAME``."""

from __future__ import annotations

from contextlib import nullcontext
from difflib import get_close_matches
from typing import Any

from torch import nn

from vgaudit.errors import CannotLoad, UnknownSource
from vgaudit.job import LoadOptions
from vgaudit.loading.built import Built, EmptyOnMeta, arguments
from vgaudit.loading.loaded import ExampleInput, InputHint
from vgaudit.loading.local_file import require_torch
from vgaudit.loading.seeding import seeded
from vgaudit.loading.spec import Spec
from vgaudit.loading.wording import one_line

SCHEME = "timm"


def matches(spec: Spec) -> bool:
    """Returns whether the specification names a timm model."""
    return spec.has_scheme(SCHEME)


def build(spec: Spec, options: LoadOptions, *, on_meta: bool = False) -> Built:
    """Returns the architecture, randomly initialised unless pretrained.

    Raises:
        CannotLoad: timm cannot be imported, or its weights cannot be fetched.
        UnknownSource: no such model.
    """
    name = known_name(zoo(), spec.body.removeprefix(f"{SCHEME}:"))
    module = construct(name, options, on_meta=on_meta)
    how = "pretrained" if options.pretrained else f"initialised, seed {options.seed}"
    return Built(
        module=module,
        name=f"{SCHEME}:{name}",
        format=SCHEME,
        tier="T0",
        notes=() if on_meta else (f"{SCHEME}:{name}, {how}",),
        example=example(name, module),
    )


def zoo() -> Any:
    """Returns timm.

    Raises:
        CannotLoad: it cannot be imported.
    """
    try:
        import timm
    except (ImportError, RuntimeError, OSError) as error:
        text = one_line(error)
        raise CannotLoad(
            f"timm cannot be imported: {text}", hint="pip install timm"
        ) from error
    return timm


def known_name(timm: Any, name: str) -> str:
    """Returns the name, if timm itself has that model.

    timm also takes names of foreign repositories and folders; those are not
    zoo names, and are not passed on.

    Raises:
        UnknownSource: there is none; names the nearest.
    """
    names = timm.list_models()
    if name.partition(".")[0] not in names:
        near = get_close_matches(name, names, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()"
        raise UnknownSource(f"timm has no model {name!r}", hint=hint)
    return name


def construct(name: str, options: LoadOptions, *, on_meta: bool) -> nn.Module:
    """Returns the module.

    Raises:
        CannotLoad: timm refuses its arguments, or a download failed.
    """
    if options.pretrained:
        require_torch()
    values = arguments(options.model_args)
    try:
        with seeded(options.seed), EmptyOnMeta() if on_meta else nullcontext():
            module: nn.Module = zoo().create_model(
                name, pretrained=options.pretrained and not on_meta, **values
            )
            return module
    except Exception as error:
        text = one_line(error)
        if options.pretrained:
            raise CannotLoad(
                f"{SCHEME}:{name}: pretrained weights cannot be fetched: {text}",
                hint="offline? download them and give them by --weights FILE",
            ) from error
        raise CannotLoad(
            f"{SCHEME}:{name} cannot be built: {text}", hint="check --model-arg"
        ) from error


def example(name: str, module: nn.Module) -> InputHint | None:
    """Returns an image of the size that timm states for the model."""
    config = getattr(module, "pretrained_cfg", None) or {}
    size = config.get("input_size")
    if not size:
        return None
    image = ExampleInput(shape=tuple(int(n) for n in size))
    source = f"timm's configuration of {name}"
    return InputHint(inputs=(image,), task="image", source=source)
