"""Which torchvision architecture bare weights may belong to.

torchvision states the number of parameters of each architecture, so nearly all
are ruled out by one number. A head with another number of classes counts as if
it had the original's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from vgaudit.loading import torchvision_zoo
from vgaudit.loading.guess import Guess
from vgaudit.loading.keys import Shape

BUFFERS = re.compile(
    r"running_mean$|running_var$|num_batches_tracked$|relative_position_index$|"
    r"relative_coords_table$|anchors$"
)
AUXILIARY = re.compile(r"(^|\.)(aux\d?|AuxLogits|aux_classifier)\.")
HEAD = re.compile(r"(^|\.)(fc|classifier|heads?)(\.head|\.\d+)?\.weight$")
BACKBONE = re.compile(r"(^|\.)backbone\.")
FINAL = re.compile(r"(cls_score|^classifier\.4|high_classifier)\.weight$")

SHARE = 0.2
USUAL_CLASSES = {"image": 1000, "video": 400, "segmentation": 21, "detection": 91}


def guesses(given: Mapping[str, Shape]) -> Iterator[Guess]:
    """Yields architectures with as many parameters, the likeliest first.

    Raises:
        CannotLoad: torchvision cannot be imported.
    """
    models: Any = torchvision_zoo.zoo()
    counts = parameter_counts(given)
    auxiliary = any(AUXILIARY.search(key) for key in given)
    composed = any(BACKBONE.search(key) for key in given)
    # Of two architectures with the same weights, the plainer name comes first.
    for name in sorted(models.list_models(), key=len):
        if name.startswith("quantized_"):
            continue
        task = torchvision_zoo.task_of(models, name)
        known = {w.meta["num_params"] for w in models.get_model_weights(name)}
        if composed and task in ("segmentation", "detection"):
            if not any(near(count, known) for count in counts):
                continue
            extra = {"aux_loss": "True"} if auxiliary else {}
            yield Guess(name, classes(given, FINAL, task) | extra)
        elif known & counts:
            extra = {} if auxiliary else no_auxiliary(name)
            yield Guess(name, classes(given, HEAD, task) | extra)


def near(count: int, known: set[int]) -> bool:
    """Returns whether a count is within a fifth of one that torchvision states.

    Its figures for composed models leave frozen norms and auxiliary heads out.
    """
    return any(abs(count - stated) < SHARE * stated for stated in known)


def classes(
    given: Mapping[str, Shape], pattern: re.Pattern[str], task: str
) -> dict[str, str]:
    """Returns the argument for the number of classes, where it is unusual."""
    shape = given.get(head(given, pattern))
    usual = USUAL_CLASSES.get(task)
    if not shape or usual is None or shape[0] == usual:
        return {}
    return {"num_classes": str(shape[0])}


def no_auxiliary(name: str) -> dict[str, str]:
    """Returns the argument that leaves out auxiliary heads, where there are some."""
    has_some = name in ("googlenet", "inception_v3")
    return {"aux_logits": "False"} if has_some else {}


def parameter_counts(given: Mapping[str, Shape]) -> set[int]:
    """Returns how many parameters the weights have, by several ways of counting.

    As they are, without auxiliary heads, and each with the original classes.
    """
    counts = set()
    for skip in (None, AUXILIARY):
        kept = {
            key: shape
            for key, shape in given.items()
            if not BUFFERS.search(key) and not (skip and skip.search(key))
        }
        total = sum(math.prod(shape) for shape in kept.values() if shape is not None)
        extra = [more_classes(kept, usual) for usual in USUAL_CLASSES.values()]
        counts |= {total, *(total + more for more in extra)}
    return counts


def more_classes(given: Mapping[str, Shape], usual: int) -> int:
    """Returns how many parameters the heads lack for the usual classes."""
    main = given.get(head(given, HEAD))
    lacking = 0
    for key, shape in given.items():
        if not main or not shape or not HEAD.search(key) or shape[0] != main[0]:
            continue
        has_bias = key.removesuffix("weight") + "bias" in given
        lacking += (usual - shape[0]) * (math.prod(shape[1:]) + has_bias)
    return lacking


def head(given: Mapping[str, Shape], pattern: re.Pattern[str]) -> str:
    """Returns the last weight named like a classifier; empty if there is none."""
    found = [k for k in given if pattern.search(k) and not AUXILIARY.search(k)]
    return max(found, key=numbers, default="")


def numbers(key: str) -> tuple[int, ...]:
    """Returns the numbers in a key, by which layers of one name are ordered."""
    return tuple(int(part) for part in key.split(".") if part.isdigit())
