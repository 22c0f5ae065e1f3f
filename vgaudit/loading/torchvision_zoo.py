"""``torchvision:NAME`` and ``torchvision:NAME@WEIGHTS``."""

from __future__ import annotations

import inspect
import warnings
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

SCHEME = "torchvision"
DEFAULT_SIZE = 224
FRAMES = 16
QUANTISED = "quantized_"
TASKS = ("detection", "segmentation", "video", "optical_flow")


def matches(spec: Spec) -> bool:
    """Returns whether the specification names a torchvision model."""
    return spec.has_scheme(SCHEME)


def build(spec: Spec, options: LoadOptions, *, on_meta: bool = False) -> Built:
    """Returns the architecture, randomly initialised unless weights are named.

    Raises:
        CannotLoad: torchvision cannot be imported, the model is quantised, or
            its weights cannot be fetched.
        UnknownSource: no such model or weights.
    """
    name, _, weights = spec.body.removeprefix(f"{SCHEME}:").partition("@")
    models = zoo()
    name = known_name(models, name)
    chosen = choose_weights(models, name, weights, options)
    module = construct(models, name, chosen, options, on_meta=on_meta)
    how = f"weights {chosen.name}" if chosen else f"initialised, seed {options.seed}"
    return Built(
        module=module,
        name=f"{SCHEME}:{name}",
        format=SCHEME,
        tier="T0",
        notes=() if on_meta else (f"{SCHEME}:{name}, {how}",),
        example=example(models, name, module),
    )


def zoo() -> Any:
    """Returns ``torchvision.models``.

    Raises:
        CannotLoad: it cannot be imported.
    """
    try:
        import torchvision.models as models
    except (ImportError, RuntimeError, OSError) as error:
        text = one_line(error)
        raise CannotLoad(
            f"torchvision cannot be imported: {text}",
            hint="install the torchvision release that belongs to this torch",
        ) from error
    return models


def known_name(models: Any, name: str) -> str:
    """Returns the name as torchvision spells it.

    Raises:
        UnknownSource: there is none; names the nearest.
    """
    names = models.list_models()
    if name.lower() not in names:
        near = get_close_matches(name.lower(), names, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "see list_models()"
        raise UnknownSource(f"torchvision has no model {name!r}", hint=hint)
    return name.lower()


def choose_weights(models: Any, name: str, weights: str, options: LoadOptions) -> Any:
    """Returns the member of the weights enumeration that is asked for, or None.

    Raises:
        CannotLoad: quantised weights.
        UnknownSource: there are none of that name.
    """
    if not weights and not options.pretrained:
        return None
    if name.startswith(QUANTISED):
        raise quantised(name)
    require_torch()
    known = models.get_model_weights(name)
    wanted = weights or "DEFAULT"
    try:
        return known[wanted]
    except KeyError as error:
        names = ", ".join(known.__members__)
        raise UnknownSource(
            f"{SCHEME}:{name} has no weights {wanted!r}", hint=f"it has {names}"
        ) from error


def construct(
    models: Any, name: str, weights: Any, options: LoadOptions, *, on_meta: bool
) -> nn.Module:
    """Returns the module.

    Raises:
        CannotLoad: the builder refuses its arguments, or a download failed.
    """
    builder = models.get_model_builder(name)
    values = arguments(options.model_args)
    if weights is None and "weights_backbone" in inspect.signature(builder).parameters:
        values.setdefault("weights_backbone", None)
    try:
        with seeded(options.seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with EmptyOnMeta() if on_meta else nullcontext():
                module: nn.Module = builder(weights=weights, progress=False, **values)
    except (OSError, RuntimeError) as error:
        if weights is None:
            raise refused(name, error) from error
        raise CannotLoad(
            f"{SCHEME}:{name}: weights {weights.name} cannot be fetched: "
            f"{type(error).__name__}",
            hint=f"offline? download {weights.url} and give it by --weights FILE",
        ) from error
    except (TypeError, ValueError) as error:
        raise refused(name, error) from error
    if next(module.parameters(), None) is None:
        raise quantised(name)
    return module


def quantised(name: str) -> CannotLoad:
    """Returns the error for weights in whole numbers.

    A ``quantized_…`` name alone builds the float model that is to be quantised.
    """
    return CannotLoad(
        f"{SCHEME}:{name} is quantised: there are no trainable float weights",
        hint=f"give {SCHEME}:{name.removeprefix(QUANTISED)}",
    )


def refused(name: str, error: Exception) -> CannotLoad:
    """Returns the error for arguments that the builder does not take."""
    text = one_line(error)
    return CannotLoad(
        f"{SCHEME}:{name} cannot be built: {text}", hint="check --model-arg"
    )


def task_of(models: Any, name: str) -> str:
    """Returns what the model is for, by the package its builder is in."""
    package = models.get_model_builder(name).__module__.split(".")
    return next((task for task in TASKS if task in package), "image")


def example(models: Any, name: str, module: nn.Module) -> InputHint:
    """Returns an input of the size that the model's weights were trained on."""
    known = list(models.get_model_weights(name))
    keywords = getattr(known[0].transforms, "keywords", None) or {} if known else {}
    meta = known[0].meta if known else {}
    fixed = getattr(module, "image_size", None)
    size = pair(fixed or keywords.get("crop_size") or DEFAULT_SIZE)
    task = task_of(models, name)
    source = f"torchvision's metadata of {name}"
    if task == "optical_flow":
        low = pair(meta.get("min_size", 128))
        frame = ExampleInput(shape=(3, *low))
        return InputHint(inputs=(frame, frame), task="optical-flow", source=source)
    if task == "video":
        frames = meta.get("min_temporal_size", FRAMES)
        clip = ExampleInput(shape=(3, max(frames, FRAMES), *size))
        return InputHint(inputs=(clip,), task=task, source=source)
    image = ExampleInput(shape=(3, *size))
    return InputHint(inputs=(image,), task=task, source=source)


def pair(size: Any) -> tuple[int, int]:
    """Returns height and width of a size given as one number or two."""
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return int(height), int(width)
