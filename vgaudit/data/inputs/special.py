"""Families of models whose inputs are an agreement, not a shape.

Recognised by attributes and by the name of the defining module, so that no
library is imported for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.data.inputs.form import CallForm, TensorForm
from vgaudit.data.inputs.search import Proposal
from vgaudit.data.inputs.signature import required, unwrap

_DETECTION_SIDE = 256
_SCALES = (0.06, 0.1, 0.17, 0.28, 0.42, 0.58, 0.75, 0.95)
"""Sides of the objects of an image, as shares of its own."""

_OBJECTS = len(_SCALES)
_ZOO_SIDES = (224, 256, 299, 384, 518)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageList:
    """A list of images in [0, 1], one tensor each."""

    size: int
    channels: int = 3
    side: int = _DETECTION_SIDE
    dtype: torch.dtype = torch.float32

    def draw(self, generator: torch.Generator) -> list[Tensor]:
        """Returns ``size`` images ``[C, S, S]``."""
        shape = (self.channels, self.side, self.side)
        return [
            torch.rand(shape, generator=generator).to(self.dtype)
            for _ in range(self.size)
        ]

    def sized(self, size: int) -> ImageList:
        """Returns the same list with ``size`` images."""
        return dataclasses.replace(self, size=size)

    def cast(self, dtype: torch.dtype) -> ImageList:
        """Returns the same list with images of ``dtype``."""
        return dataclasses.replace(self, dtype=dtype)

    @property
    def numel(self) -> int:
        """Number of elements of one image."""
        return self.channels * self.side**2

    def __str__(self) -> str:
        return f"list of {self.size} images {self.channels}x{self.side}x{self.side}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetList:
    """What torchvision's detectors are trained with, one dict per image.

    Attributes:
        classes: labels run from 1 to ``classes`` - 1; 0 is the background.
        masks: with one mask per object.
        keypoints: number of keypoints per object; 0 for none.
    """

    size: int
    classes: int
    masks: bool = False
    keypoints: int = 0
    side: int = _DETECTION_SIDE

    def draw(self, generator: torch.Generator) -> list[dict[str, Tensor]]:
        """Returns boxes of all sizes, inside the image.

        Detectors look for each size on a level of its own: a level without a box
        would get no gradient, as if it were dead.
        """
        return [self._target(generator) for _ in range(self.size)]

    def _target(self, generator: torch.Generator) -> dict[str, Tensor]:
        stretch, place = torch.rand((2, _OBJECTS, 2), generator=generator)
        scales = torch.tensor(_SCALES)[:, None]
        extent = (scales * (0.8 + 0.4 * stretch)).clamp(max=1)
        low = place * (1 - extent)
        boxes = torch.cat([low, low + extent], dim=1) * self.side
        classes = max(self.classes, 2)
        target = {
            "boxes": boxes,
            "labels": torch.randint(1, classes, (_OBJECTS,), generator=generator),
        }
        if self.masks:
            target["masks"] = self._masks(boxes)
        if self.keypoints:
            place = torch.rand((_OBJECTS, self.keypoints, 2), generator=generator)
            low, high = boxes[:, None, :2], boxes[:, None, 2:]
            points = low + place * (high - low)
            visible = torch.ones((_OBJECTS, self.keypoints, 1))
            target["keypoints"] = torch.cat([points, visible], dim=2)
        return target

    def _masks(self, boxes: Tensor) -> Tensor:
        masks = torch.zeros((_OBJECTS, self.side, self.side), dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(
            masks, boxes.int().tolist(), strict=True
        ):
            mask[top:bottom, left:right] = 1
        return masks

    def sized(self, size: int) -> TargetList:
        """Returns the same for ``size`` images."""
        return dataclasses.replace(self, size=size)

    def cast(self, dtype: torch.dtype) -> TargetList:
        """Returns itself: boxes stay in float32."""
        return self

    @property
    def numel(self) -> int:
        """Number of elements of one target, roughly."""
        return 5 * _OBJECTS

    def __str__(self) -> str:
        parts = ["boxes", "labels"]
        parts += ["masks"] if self.masks else []
        parts += ["keypoints"] if self.keypoints else []
        return f"targets with {', '.join(parts)}"


def agreed_call(model: nn.Module, mode: str) -> CallForm | None:
    """Returns the call of a torchvision detector or optical flow model.

    These are taken at their word, without a dry run.
    """
    model = unwrap(model)
    origin = _torchvision_part(model)
    if origin == "detection":
        return _detection(model, mode)
    if origin == "optical_flow":
        image = TensorForm(shape=(2, 3, 128, 128), fill="uniform")
        return CallForm(args=(image, image), size=2, why="a pair of images")
    return None


def agreed_proposals(model: nn.Module, batch: int) -> Iterator[Proposal]:
    """Yields the inputs that a model itself or its library states."""
    model = unwrap(model)
    yield from _example(model)
    stated = _stated_shape(model)
    if stated is not None:
        yield _image(stated, batch, why="the model's own input_size")
    if len(required(model)) != 1:
        return
    origin = _torchvision_part(model)
    if origin == "video":
        sides = (112, 224)
        yield Proposal(lambda side: _clip(side, batch), sides)
    elif origin is not None:
        yield Proposal(
            lambda side: CallForm(
                args=(TensorForm(shape=(batch, 3, side, side)),),
                size=batch,
                why="images, as torchvision's models take",
            ),
            _ZOO_SIDES,
        )


def _torchvision_part(model: nn.Module) -> str | None:
    """Returns the part of ``torchvision.models`` that defines the class."""
    parts = type(model).__module__.split(".")
    if parts[:2] != ["torchvision", "models"]:
        return None
    return parts[2] if len(parts) > 2 else ""


def _detection(model: Any, mode: str) -> CallForm:
    images = ImageList(size=2)
    if mode != "train":
        return CallForm(args=(images,), size=2, why="images for a detector")
    heads = getattr(model, "roi_heads", None)
    points = getattr(heads, "keypoint_predictor", None)
    targets = TargetList(
        size=2,
        classes=_classes(model),
        masks=getattr(heads, "mask_predictor", None) is not None,
        keypoints=points.kps_score_lowres.out_channels if points is not None else 0,
    )
    why = "images and made-up targets for a detector in train mode"
    return CallForm(args=(images, targets), size=2, why=why, own_loss=True)


def _classes(model: nn.Module) -> int:
    """Returns the number of classes with the background; 2 where it is not told."""
    for name, module in model.named_modules():
        if name.endswith("cls_score") and isinstance(module, nn.Linear):
            return module.out_features
    told = [getattr(module, "num_classes", None) for module in model.modules()]
    return next((count for count in told if isinstance(count, int)), 2)


def _clip(side: int, batch: int) -> CallForm:
    form = TensorForm(shape=(batch, 3, 16, side, side))
    return CallForm(args=(form,), size=batch, why="clips of 16 frames")


def _image(shape: tuple[int, ...], batch: int, *, why: str) -> Proposal:
    form = TensorForm(shape=(batch, *shape))
    return Proposal(lambda _: CallForm(args=(form,), size=batch, why=why))


def _stated_shape(model: nn.Module) -> tuple[int, ...] | None:
    """Returns timm's ``input_size``, channels first."""
    for name in ("pretrained_cfg", "default_cfg"):
        settings = getattr(model, name, None)
        shape = settings.get("input_size") if isinstance(settings, dict) else None
        if isinstance(shape, (tuple, list)) and all(isinstance(e, int) for e in shape):
            return tuple(shape)
    return None


def _example(model: nn.Module) -> Iterator[Proposal]:
    """Yields the form of Lightning's ``example_input_array``."""
    example = getattr(model, "example_input_array", None)
    if example is None:
        return
    why = "the model's example_input_array"
    if isinstance(example, dict):
        kwargs = {name: _like(value) for name, value in example.items()}
        call = CallForm(kwargs=kwargs, size=_samples(kwargs.values()), why=why)
    else:
        values = example if isinstance(example, tuple) else (example,)
        args = tuple(_like(value) for value in values)
        call = CallForm(args=args, size=_samples(args), why=why)
    yield Proposal(lambda _: call)


def _like(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    if value.is_floating_point() or value.is_complex():
        return TensorForm(shape=tuple(value.shape), dtype=value.dtype)
    if value.dtype is torch.bool:
        return TensorForm(shape=tuple(value.shape), dtype=value.dtype, fill="bits")
    high = int(value.max()) + 1 if value.numel() else 1
    return TensorForm(
        shape=tuple(value.shape), dtype=value.dtype, fill="ids", high=max(high, 1)
    )


def _samples(forms: Any) -> int:
    found = [form for form in forms if isinstance(form, TensorForm) and form.shape]
    return found[0].shape[0] if found else 1
