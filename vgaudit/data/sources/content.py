"""What a source gives: samples by number, or ready batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from vgaudit.data.batches import Skips


class Unreadable(Exception):
    """One sample that cannot be read; another takes its place.

    Attributes:
        what: which sample. why: the reason.
    """

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")
        self.what = what
        self.why = why


class Samples(Protocol):
    """Samples by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any:
        """Returns one sample.

        Raises:
            Unreadable: this one cannot be read.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Mean and standard deviation of each channel, of images in [0, 1].

    Attributes:
        name: whose statistics they are.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Images(Protocol):
    """Pictures by number, before they are fitted to a model."""

    statistics: Statistics

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Any, int | None]:
        """Returns a PIL picture and its class, None without classes.

        Raises:
            Unreadable: this one cannot be read.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """An opened source: exactly one of ``images``, ``samples`` and ``stream``.

    Attributes:
        images: pictures, still to be fitted to the model.
        samples: tensors ready for the model, sample by sample. ``arrays`` says
            that they may be reshaped to fit it.
        stream: batches made by the user's own code.
        notes: statements for the user.
        skips: what could not be used; grows while samples are read.
    """

    images: Images | None = None
    samples: Samples | None = None
    stream: Iterable[Any] | None = None
    arrays: bool = False
    notes: tuple[str, ...] = ()
    skips: Skips = field(default_factory=Skips)


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of data source.

    Attributes:
        example: how its specs look.
        matches: tells whether a spec is meant for it.
        open: returns the content, from the spec and the seed.
    """

    example: str
    matches: Callable[[str], bool]
    open: Callable[[str, int], Content]
