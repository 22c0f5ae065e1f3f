"""Which models ``coverage.py`` tries, and how each is built: small, random weights.

torchvision: every model that it lists. timm: a small one of each module of
``timm.models``, and more families that share a module with one of those; where the
smallest is large, fewer of its equal blocks. transformers: configurations of two
layers and few units; ``AutoModel`` builds the bare model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vgaudit.job import LoadOptions
from vgaudit.loading import InputHint, hf_example, load

PARTS = ("torchvision", "timm", "transformers")
SMALL_SIDES = (64, 128)
"""Images that are tried before the size that an architecture states itself."""
LISTED: dict[str, Any] = json.loads(
    Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
)
RESIZING = ("fasterrcnn", "maskrcnn", "keypointrcnn", "retinanet", "fcos")
"""Detectors that bring every image to 800 pixels, if they are not told otherwise."""
DETECTED_SIDE = 128
VIT_PATCHES = 4
"""Patches along a side of the smaller images that vision transformers get."""


def filled(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns settings with those that they are ``like``."""
    own = {
        name: filled(value) if isinstance(value, dict) else value
        for name, value in settings.items()
    }
    return {**LISTED["bases"].get(own.pop("like", ""), {}), **own}


@dataclass(frozen=True)
class Entry:
    """One model: in which library, and its name there."""

    part: str
    name: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """Inputs of which nothing tells, as for ``--input``."""
        if self.part != "transformers":
            return ()
        return tuple(LISTED["transformers"][self.name].get("inputs", ()))

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of images to try; 0 is the architecture's own."""
        return (0,) if self.part == "transformers" else (*SMALL_SIDES, 0)


@dataclass(frozen=True)
class Built:
    """A model with an input that fits, where its library states one."""

    module: nn.Module
    hint: InputHint | None


def entries(part: str) -> list[Entry]:
    """Returns the models of a part, light ones first where that is known."""
    if part == "timm":
        return [Entry(part, name) for name in (*LISTED["timm"], *LISTED["timm_more"])]
    if part == "transformers":
        return [Entry(part, name) for name in LISTED["transformers"]]
    from torchvision.models import get_model_weights, list_models

    def work(name: str) -> float:
        known = [w.meta.get("_ops", 0.0) for w in get_model_weights(name)]
        return min(known, default=0.0)

    return [Entry(part, name) for name in sorted(list_models(), key=work)]


def build(entry: Entry, side: int) -> Built:
    """Returns a model with random weights, for images of a side; 0 for its own."""
    torch.manual_seed(0)
    if entry.part == "transformers":
        module = build_transformers(entry.name)
        return Built(module, hf_example.example(module))
    arguments = dict(LISTED["timm_shallow"].get(entry.name, {}))
    if side and entry.part == "torchvision" and entry.name.startswith("vit_"):
        side = VIT_PATCHES * int(entry.name.rpartition("_")[2])
        arguments = {"image_size": side}
    if entry.part == "torchvision" and entry.name.startswith(RESIZING):
        arguments = {"min_size": DETECTED_SIDE, "max_size": DETECTED_SIDE}
    texts = {name: str(value) for name, value in arguments.items()}
    loaded = load(f"{entry.part}:{entry.name}", LoadOptions(model_args=texts))
    hint = loaded.example
    if hint is not None and side:
        smaller = (replace(x, shape=(*x.shape[:-2], side, side)) for x in hint.inputs)
        hint = replace(hint, inputs=tuple(smaller))
    return Built(loaded.module, hint)


def build_transformers(name: str) -> nn.Module:
    """Returns the bare model of a small configuration."""
    from transformers import AutoConfig, AutoModel

    settings = filled(LISTED["transformers"][name])
    settings.pop("inputs", None)
    config = AutoConfig.for_model(name, **settings)
    model: nn.Module = AutoModel.from_config(config)
    return model
