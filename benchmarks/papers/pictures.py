"""The images that the papers' studies train on, from files alone."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class Images:
    """Training and test images, floats with samples first, with labels ``[N]``."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def mnist(root: Path | None, device: str = "cpu") -> Images:
    """Returns all of MNIST, ``[N, 784]``, standardised; from root/MNIST/raw."""
    parts = []
    for name in ("train", "t10k"):
        images = _idx(needed(root) / "MNIST" / "raw" / f"{name}-images-idx3-ubyte")
        labels = _idx(needed(root) / "MNIST" / "raw" / f"{name}-labels-idx1-ubyte")
        scaled = (images.float().flatten(1) / 255 - 0.1307) / 0.3081
        parts += [scaled.to(device), labels.long().to(device)]
    return Images(*parts)


def cifar(root: Path | None, most: int, device: str = "cpu") -> Images:
    """Returns 32 × 32 images, ``[N, 3, 32, 32]`` in [0, 1].

    From root/cifar10-subset/{train,test}/CLASS/*, or root/{train,test}/CLASS/*. The
    training images are ``most``, classes taking turns.

    Raises:
        SystemExit: there are fewer.
    """
    place = needed(root)
    inner = place / "cifar10-subset"
    place = inner if inner.is_dir() else place
    train, labels = _folder(place / "train", most)
    if len(train) < most:
        raise SystemExit(f"{len(train)} images in {place}: pass --images {len(train)}")
    test, test_labels = _folder(place / "test", 10**9)
    return Images(*(t.to(device) for t in (train, labels, test, test_labels)))


def needed(root: Path | None) -> Path:
    """Returns ``root``.

    Raises:
        SystemExit: there is none.
    """
    if root is None:
        raise SystemExit("runs are missing: pass --data-root")
    return root


def _idx(path: Path) -> Tensor:
    """Returns the array of an IDX file, packed or not."""
    packed = Path(f"{path}.gz")
    raw = path.read_bytes() if path.exists() else gzip.decompress(packed.read_bytes())
    dimensions = raw[3]
    shape = [
        int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions)
    ]
    values = torch.frombuffer(bytearray(raw[4 + 4 * dimensions :]), dtype=torch.uint8)
    return values.view(shape)


def _folder(folder: Path, most: int) -> tuple[Tensor, Tensor]:
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [sorted(path.iterdir()) for path in classes]
    order = [
        (f[i], c)
        for i in range(max(map(len, files)))
        for c, f in enumerate(files)
        if i < len(f)
    ][:most]
    pixels = np.stack(
        [np.asarray(Image.open(path).convert("RGB")) for path, _ in order]
    )
    x = torch.from_numpy(pixels).movedim(-1, 1).float() / 255
    return x.contiguous(), torch.tensor([label for _, label in order])
