"""``imagefolder:DIR``: one folder for each class, images at any depth in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vgaudit.data.sources.content import Content, Source, Statistics, Unreadable
from vgaudit.errors import CannotLoad
from vgaudit.plain import visible

PREFIX = "imagefolder:"
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp", ".gif"}
)
IMAGENET = Statistics(
    name="ImageNet", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)


class ImageFolder:
    """The pictures under a folder, in the order of their names."""

    def __init__(self, root: Path, files: list[tuple[Path, int | None]]) -> None:
        self.statistics = IMAGENET
        self._root = root
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Any, int | None]:
        """Returns a decoded picture and the number of its class.

        Raises:
            Unreadable: the file is no picture, is damaged, or too large.
        """
        from PIL import Image

        path, label = self._files[index]
        try:
            with Image.open(path) as picture:
                picture.load()
                return picture.copy(), label
        except (
            OSError,
            SyntaxError,
            ValueError,
            Image.DecompressionBombError,
        ) as error:
            name = visible(str(path.relative_to(self._root)))
            reason = str(error).replace(str(path), path.name) or type(error).__name__
            raise Unreadable(name, visible(reason)) from None


def open_folder(spec: str, seed: int) -> Content:
    """Returns the pictures of ``imagefolder:DIR``.

    Raises:
        CannotLoad: the folder is missing or holds no picture.
    """
    root = Path(spec.removeprefix(PREFIX)).expanduser()
    if not root.is_dir():
        what = "not a folder" if root.exists() else "no such folder"
        raise CannotLoad(
            f"{what}: {visible(str(root))}",
            hint="imagefolder:DIR needs a folder with one folder of images per class",
        )
    classes = sorted(
        (entry.name for entry in os.scandir(root) if entry.is_dir()), key=os.fsencode
    )
    files: list[tuple[Path, int | None]] = []
    found: list[str] = []
    for name in classes:
        pictures = list(_pictures(root / name))
        if pictures:
            files += [(path, len(found)) for path in pictures]
            found.append(name)
    if not files:
        files = [(path, None) for path in _pictures(root)]
    if not files:
        raise CannotLoad(
            f"no image in {visible(str(root))}",
            hint=f"looked for {', '.join(sorted(SUFFIXES))}, in it and below",
        )
    empty = len(classes) - len(found)
    return Content(images=ImageFolder(root, files), notes=_notes(files, found, empty))


def _notes(
    files: list[tuple[Path, int | None]], found: list[str], empty: int
) -> tuple[str, ...]:
    if not found:
        return (f"{len(files)} images without class folders: there are no labels",)
    notes = [f"{len(files)} images in {len(found)} classes"]
    if len(found) == 1:
        notes = [
            f"{len(files)} images in a single class, '{visible(found[0])}': "
            "the labels say nothing, and a loss of classes is close to trivial"
        ]
    if empty:
        notes.append(f"{empty} folders hold no image and count as no class")
    return tuple(notes)


def _pictures(folder: Path) -> Iterator[Path]:
    """Yields the images below a folder, sorted; a loop of links is entered once."""
    entered: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders.sort()
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in SUFFIXES:
                yield Path(place, name)


SOURCE = Source("imagefolder:DIR", lambda spec: spec.startswith(PREFIX), open_folder)
