"""``torchvision:MNIST[/PART]@ROOT``: a data set that is on the disk already."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from vgaudit.data.sources.content import Content, Source, Statistics, Unreadable
from vgaudit.data.sources.image_folder import IMAGENET
from vgaudit.errors import CannotLoad, UnknownSource
from vgaudit.plain import visible

PREFIX = "torchvision:"


def _grey(name: str, mean: float, std: float) -> Statistics:
    return Statistics(name=name, mean=(mean,), std=(std,))


_CIFAR10 = Statistics(
    name="CIFAR10", mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)
)
_CIFAR100 = Statistics(
    name="CIFAR100", mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762)
)
_SVHN = Statistics(
    name="SVHN", mean=(0.4377, 0.4438, 0.4728), std=(0.1980, 0.2010, 0.1970)
)
_STL10 = Statistics(
    name="STL10", mean=(0.4467, 0.4398, 0.4066), std=(0.2603, 0.2566, 0.2713)
)

SETS: dict[str, tuple[dict[str, Any], Statistics]] = {
    "MNIST": ({"train": True}, _grey("MNIST", 0.1307, 0.3081)),
    "FashionMNIST": ({"train": True}, _grey("FashionMNIST", 0.2860, 0.3530)),
    "KMNIST": ({"train": True}, _grey("KMNIST", 0.1918, 0.3483)),
    "QMNIST": ({"train": True}, _grey("QMNIST", 0.1307, 0.3081)),
    "EMNIST": ({"split": "balanced", "train": True}, _grey("EMNIST", 0.1751, 0.3332)),
    "USPS": ({"train": True}, _grey("USPS", 0.2469, 0.2989)),
    "CIFAR10": ({"train": True}, _CIFAR10),
    "CIFAR100": ({"train": True}, _CIFAR100),
    "SVHN": ({"split": "train"}, _SVHN),
    "STL10": ({"split": "train"}, _STL10),
    "Caltech101": ({}, IMAGENET),
    "Caltech256": ({}, IMAGENET),
    "Country211": ({"split": "train"}, IMAGENET),
    "DTD": ({"split": "train"}, IMAGENET),
    "EuroSAT": ({}, IMAGENET),
    "FGVCAircraft": ({"split": "train"}, IMAGENET),
    "Flowers102": ({"split": "train"}, IMAGENET),
    "Food101": ({"split": "train"}, IMAGENET),
    "GTSRB": ({"split": "train"}, IMAGENET),
    "Imagenette": ({"split": "train"}, IMAGENET),
    "ImageNet": ({"split": "train"}, IMAGENET),
    "OxfordIIITPet": ({"split": "trainval"}, IMAGENET),
    "RenderedSST2": ({"split": "train"}, IMAGENET),
    "StanfordCars": ({"split": "train"}, IMAGENET),
    "SUN397": ({}, IMAGENET),
}
"""Sets of pictures with one class each: how to open the training part, and its
statistics, as published with the sets."""


class TorchvisionImages:
    """The pictures of a torchvision data set."""

    def __init__(self, dataset: Any, statistics: Statistics) -> None:
        self.statistics = statistics
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Any, int | None]:
        """Returns a picture and its class.

        Raises:
            Unreadable: the file of this picture is damaged.
        """
        try:
            picture, label = self._dataset[index]
        except (OSError, SyntaxError, ValueError) as error:
            raise Unreadable(f"sample {index}", visible(str(error))) from None
        return picture, None if label is None else int(label)


def open_set(spec: str, seed: int) -> Content:
    """Returns a part of a torchvision data set, training where none is named.

    Nothing is downloaded.

    Raises:
        UnknownSource: no such set, or it has no such part.
        CannotLoad: it is not on the disk, or torchvision cannot be imported.
    """
    called, _, place = spec.removeprefix(PREFIX).partition("@")
    name, _, part = called.partition("/")
    if name not in SETS:
        near = get_close_matches(name, SETS, n=3, cutoff=0.5)
        hint = (
            f"did you mean {' or '.join(near)}?"
            if near
            else f"known: {', '.join(SETS)}"
        )
        raise UnknownSource(
            f"no torchvision data set of labelled images is called '{visible(name)}'",
            hint=hint,
        )
    kind = _dataset_class(name)
    roots = [Path(place).expanduser()] if place else _usual_roots()
    settings, statistics = _settings(name, part), SETS[name][1]
    reasons = []
    for root in roots:
        try:
            dataset = kind(str(root), **settings)
        except (RuntimeError, OSError, ImportError, ValueError) as error:
            if part and "split" in str(error):
                raise _no_part(name, part, str(error)) from None
            reasons.append(f"{visible(str(root))} ({_reason(error)})")
            continue
        return Content(
            images=TorchvisionImages(dataset, statistics),
            notes=(f"{part or 'training'} part of {name}, {len(dataset)} images",),
        )
    raise CannotLoad(
        f"{name} is not in {' or '.join(reasons)}",
        hint=f"nothing is downloaded; give the folder as torchvision:{called}@ROOT, or "
        f"fetch it once: torchvision.datasets.{name}(ROOT, download=True)",
    )


def _settings(name: str, part: str) -> dict[str, Any]:
    """Returns what opens a part, or the training part, of a set."""
    settings = SETS[name][0]
    if not part:
        return settings
    if "train" in settings:
        if part not in ("train", "test"):
            raise _no_part(name, part, "its parts: train, test")
        return {**settings, "train": part == "train"}
    if "split" not in settings:
        raise _no_part(name, part, "it comes whole")
    return {**settings, "split": part}


def _no_part(name: str, part: str, reason: str) -> UnknownSource:
    return UnknownSource(
        f"{name} has no part '{visible(part)}'",
        hint=f"{visible(reason)}; torchvision:{name}@ROOT is the training part",
    )


def _dataset_class(name: str) -> Any:
    try:
        from torchvision import datasets
    except Exception as error:  # a mismatched build raises RuntimeError
        raise CannotLoad(
            f"torchvision cannot be imported: {visible(str(error))}",
            hint="install the torchvision that belongs to your torch",
        ) from error
    kind = getattr(datasets, name, None)
    if kind is None:
        raise CannotLoad(
            f"the installed torchvision has no data set {name}",
            hint="update torchvision",
        )
    return kind


def _usual_roots() -> list[Path]:
    return [Path("data"), Path(torch.hub.get_dir(), "datasets"), Path(os.curdir)]


def _reason(error: Exception) -> str:
    """Returns why it failed, without torchvision's advice to download."""
    text = str(error)
    return "not found or damaged" if "download=True" in text else visible(text)


SOURCE = Source(
    "torchvision:MNIST[/PART]@ROOT", lambda spec: spec.startswith(PREFIX), open_set
)
