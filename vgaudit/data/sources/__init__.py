"""Where real data comes from: one file a source, first match wins."""

from __future__ import annotations

from vgaudit.data.sources import (
    array_file,
    csv_file,
    factory,
    image_folder,
    tensor_file,
    torchvision_set,
)
from vgaudit.data.sources.content import Content, Source
from vgaudit.data.sources.local import missing
from vgaudit.errors import UnknownSource
from vgaudit.plain import visible

SOURCES: tuple[Source, ...] = (
    image_folder.SOURCE,
    torchvision_set.SOURCE,
    array_file.SOURCE,
    tensor_file.SOURCE,
    csv_file.SOURCE,
    factory.SOURCE,
)
"""In the order in which they are asked."""


def open_source(spec: str, *, seed: int = 0) -> Content:
    """Returns the content that a data spec names.

    Raises:
        UnknownSource: no source understands the spec.
        CannotLoad: the source is missing, refused or damaged.
    """
    for source in SOURCES:
        if source.matches(spec):
            return source.open(spec, seed)
    understood = ", ".join(source.example for source in SOURCES)
    raise UnknownSource(
        f"no data source understands '{visible(spec)}'{missing(spec)}",
        hint=f"understood: {understood}",
    )


__all__ = ["SOURCES", "Content", "Source", "open_source"]
