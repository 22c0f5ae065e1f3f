"""Pictures as tensors of the size and channels that a model takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from vgaudit.data.inputs.dry_run import DryRun
from vgaudit.data.inputs.form import TensorForm
from vgaudit.data.inputs.infer import infer_inputs, model_dtype
from vgaudit.data.inputs.spec import parse_input
from vgaudit.data.sources.content import Images, Statistics, Unreadable
from vgaudit.errors import BadConfig, CannotLoad
from vgaudit.job import DataOptions

_LOOK_AT = 8
"""Pictures that are looked at to learn whether they have one size."""

_LARGEST_NATIVE = 512
_DEEP_GREY = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class Taker:
    """The model that takes the images, and what is known of its inputs.

    Attributes:
        hint: as ``open_batches`` gets it. options: the user's. mode: of the model.
    """

    model: nn.Module
    hint: object | None
    options: DataOptions
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageForm:
    """What becomes of a picture.

    Attributes:
        channels: 1 or 3. height, width: in pixels.
        shape: of the tensor of one sample; the same numbers, possibly flat.
    """

    channels: int
    height: int
    width: int
    shape: tuple[int, ...]


class PreparedImages:
    """Pictures fitted to a model: samples ``tensor`` or ``(tensor, label)``."""

    def __init__(self, images: Images, form: ImageForm, dtype: torch.dtype) -> None:
        self._images = images
        self._form = form
        self._dtype = dtype
        mean, std = _per_channel(images.statistics, form.channels)
        self._mean = np.array(mean, np.float32)[:, None, None]
        self._std = np.array(std, np.float32)[:, None, None]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Any:
        """Returns one fitted picture.

        Raises:
            Unreadable: the picture cannot be read.
        """
        picture, label = self._images[index]
        pixels = to_array(picture, self._form)
        scaled = torch.from_numpy((pixels - self._mean) / self._std)
        tensor = scaled.reshape(self._form.shape).to(self._dtype)
        return tensor if label is None else (tensor, torch.tensor(label))


def prepare_images(
    images: Images, taker: Taker
) -> tuple[PreparedImages, tuple[str, ...]]:
    """Returns the pictures fitted to the model, and what was done to them.

    In this order: the size that ``--input`` gives; what the loader's hint says;
    the pictures' own size, where they share one and the model runs on it; the
    size that is inferred for the model.

    Raises:
        BadConfig: no size runs, or ``--input`` is no size of images.
        CannotLoad: no picture can be read.
    """
    first = _readable(images)
    sizes = {picture.size for picture in first}
    form = _choose(first[0], sizes, taker)
    prepared = PreparedImages(images, form, model_dtype(taker.model))
    return prepared, _notes(first[0], sizes, form, images.statistics)


def to_array(picture: Any, form: ImageForm) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Returns ``[C, H, W]`` in [0, 1]: scaled to cover the size, centre cropped."""
    deep = picture.mode.startswith(("I", "F"))
    if deep:
        picture = picture.convert("F")
    else:
        if picture.mode == "P":  # a palette may hold transparency
            picture = picture.convert("RGBA")
        picture = picture.convert("L" if form.channels == 1 else "RGB")
    width, height = picture.size
    if (width, height) != (form.width, form.height):
        from PIL import Image

        scale = max(form.width / width, form.height / height)
        size = (
            max(form.width, round(width * scale)),
            max(form.height, round(height * scale)),
        )
        left, top = (size[0] - form.width) // 2, (size[1] - form.height) // 2
        picture = picture.resize(size, Image.Resampling.BILINEAR)
        picture = picture.crop((left, top, left + form.width, top + form.height))
    pixels = np.asarray(picture, np.float32) / (_DEEP_GREY if deep else 255)
    if pixels.ndim == 2:
        return np.repeat(pixels[None], form.channels, axis=0)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _readable(images: Images) -> list[Any]:
    """Returns the first pictures that can be read.

    Raises:
        CannotLoad: none can.
    """
    found: list[Any] = []
    failure: Unreadable | None = None
    for index in range(len(images)):
        try:
            found.append(images[index][0])
        except Unreadable as error:
            failure = failure or error
        if len(found) == _LOOK_AT:
            break
    if not found:
        raise CannotLoad(
            f"none of {len(images)} images can be read; the first: {failure}",
            hint="are they complete, and of a format that Pillow reads?",
        )
    return found


def _choose(picture: Any, sizes: set[tuple[int, int]], taker: Taker) -> ImageForm:
    if taker.options.inputs:
        return _given(taker.options)
    for example in getattr(taker.hint, "inputs", ()):
        stated = _form_of(tuple(example.shape))
        if stated is not None:
            return stated
    runner = DryRun(taker.model, mode=taker.mode)
    dtype = model_dtype(taker.model)
    for form in _native(picture, sizes):
        values = torch.zeros((_LOOK_AT, *form.shape), dtype=dtype)
        trial = runner.try_call((values,), {}, size=_LOOK_AT)
        if trial.ran and trial.keeps_batch:
            return form
    call = infer_inputs(taker.model, taker.hint, taker.options, mode=taker.mode)
    for wanted in (*call.args, *call.kwargs.values()):
        if isinstance(wanted, TensorForm) and wanted.dtype.is_floating_point:
            inferred = _form_of(wanted.shape[1:])
            if inferred is not None:
                return inferred
    raise BadConfig(
        f"the model takes {call}, and images do not fit that",
        hint="give the size of the images: --input 8x3x224x224",
    )


def _native(picture: Any, sizes: set[tuple[int, int]]) -> Iterator[ImageForm]:
    """Yields the pictures' own size: as they are, other channels, without, flat."""
    width, height = picture.size
    if len(sizes) > 1 or max(width, height) > _LARGEST_NATIVE:
        return
    grey = picture.mode in ("1", "L", "LA") or picture.mode.startswith(("I", "F"))
    order = (1, 3) if grey else (3, 1)
    shapes: list[tuple[int, tuple[int, ...]]]
    shapes = [(c, (c, height, width)) for c in order]
    shapes += [(1, (height, width))]
    shapes += [(c, (c * height * width,)) for c in order]
    for channels, shape in shapes:
        yield ImageForm(channels=channels, height=height, width=width, shape=shape)


def _given(options: DataOptions) -> ImageForm:
    _, form = parse_input(options.inputs[0])
    found = _form_of(form.shape[1:]) if len(options.inputs) == 1 else None
    if found is None or len(form.shape) != 4:
        raise BadConfig(
            f"--input {' '.join(options.inputs)!r} is no size of images",
            hint="with images it is batch x channels x height x width: 8x3x224x224",
        )
    return found


def _form_of(shape: tuple[int, ...]) -> ImageForm | None:
    """Returns the picture that gives a tensor of ``shape``, if one does."""
    if len(shape) == 3 and shape[0] in (1, 3):
        return ImageForm(
            channels=shape[0], height=shape[1], width=shape[2], shape=shape
        )
    if len(shape) == 2:
        return ImageForm(channels=1, height=shape[0], width=shape[1], shape=shape)
    if len(shape) == 1:
        for channels in (1, 3):
            side = math.isqrt(shape[0] // channels)
            if channels * side * side == shape[0]:
                return ImageForm(
                    channels=channels, height=side, width=side, shape=shape
                )
    return None


def _per_channel(
    statistics: Statistics, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and deviation for each channel; grey takes the average."""
    mean, std = statistics.mean, statistics.std
    if len(mean) == channels:
        return mean, std
    average = sum(mean) / len(mean), sum(std) / len(std)
    return (average[0],) * channels, (average[1],) * channels


def _notes(
    picture: Any, sizes: set[tuple[int, int]], form: ImageForm, statistics: Statistics
) -> tuple[str, ...]:
    mean, std = _per_channel(statistics, form.channels)
    numbers = ", ".join(f"{m:.4g}±{s:.4g}" for m, s in zip(mean, std, strict=True))
    notes = [
        "pixels scaled to [0, 1], then standardised with the statistics of "
        f"{statistics.name} ({numbers})"
    ]
    if sizes != {(form.width, form.height)}:
        notes.append(f"images resized and centre cropped to {form.height}x{form.width}")
    colour = picture.mode in ("RGB", "RGBA", "P", "CMYK", "YCbCr", "HSV", "LAB")
    if colour and form.channels == 1:
        notes.append("colours turned to grey: the model takes one channel")
    if not colour and form.channels == 3:
        notes.append("grey repeated in three channels: the model takes three")
    if len(form.shape) < 3:
        shape = "x".join(str(extent) for extent in form.shape)
        notes.append(f"each image given as {shape}: the model takes that")
    return tuple(notes)
