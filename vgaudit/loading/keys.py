"""Matches the keys of a file with those of an architecture.

Wrappers leave their attribute in every key: DataParallel ``module.``,
``torch.compile`` ``_orig_mod.`` (anywhere), a Lightning module the name of the
attribute that holds the network. A prefix is stripped only where the keys then
fit better than with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

Shape = tuple[int, ...] | None
"""None fits every shape: a lazy parameter has none yet."""

WRAPPERS = (
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
)
MIN_SHARE = 0.2
MAX_PREFIX = 6


@dataclass(frozen=True, slots=True)
class Match:
    """Which key of the architecture each key of the file stands for.

    Attributes:
        names: from file to architecture; unmatched keys keep their names.
        stripped: prefixes removed, each with its dot.
        prefix: the one of them that every matching key began with.
        rivals: further prefixes under which as many keys would fit.
    """

    names: dict[str, str]
    stripped: tuple[str, ...] = ()
    prefix: str = ""
    rivals: tuple[str, ...] = ()

    def path(self, path: str) -> str:
        """Returns a module's path in the architecture, without wrappers."""
        return f"{unwrap(path)}.".removeprefix(self.prefix).strip(".")


def match_keys(given: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> Match:
    """Returns the renaming of the file's keys under which most of them fit.

    Of renamings that fit equally well, the one that strips least is taken.
    """
    best = Match({key: key for key in given})
    score = fitting(best, given, wanted)
    if score == len(given) == len(wanted):
        return best
    targets: dict[str, str] = {}
    for key in wanted:
        targets.setdefault(unwrap(key), key)
    rivals: list[str] = []
    for prefix in ("", *prefixes(given)):
        match = strip(given, targets, prefix)
        reached = fitting(match, given, wanted)
        if reached > score:
            best, score, rivals = match, reached, []
        elif reached == score and prefix and best.stripped:
            rivals += disjoint(match, best, wanted)
    return replace(best, rivals=tuple(rivals))


def fitting(
    match: Match, given: Mapping[str, Shape], wanted: Mapping[str, Shape]
) -> int:
    """Returns how many keys of the file fit under a renaming."""
    return sum(
        fits(shape, wanted[match.names[key]])
        for key, shape in given.items()
        if match.names[key] in wanted
    )


def fits(shape: Shape, expected: Shape) -> bool:
    """Returns whether a tensor of that shape can be loaded."""
    return shape is None or expected is None or shape == expected


def unwrap(key: str) -> str:
    """Returns the key without the attributes that wrappers add."""
    return ".".join(part for part in key.split(".") if part not in WRAPPERS)


def strip(given: Iterable[str], targets: Mapping[str, str], prefix: str) -> Match:
    """Returns the match of keys without wrappers and without ``prefix``.

    Args:
        given: keys of the file.
        targets: keys of the architecture, by their form without wrappers.
        prefix: what only matching keys begin with; may be empty.
    """
    names = {}
    for key in given:
        bare = unwrap(key)
        inner = bare.removeprefix(prefix)
        applies = inner != bare or not prefix
        names[key] = targets.get(inner, key) if applies else key
    names = unique(names)
    removed = {
        part: None
        for key, new in names.items()
        if key != new
        for part in key.split(".")
        if part in WRAPPERS and part not in new.split(".")
    }
    stripped = (*(f"{part}." for part in removed), *([prefix] if prefix else []))
    return Match(names, stripped, prefix)


def prefixes(keys: Mapping[str, Shape]) -> list[str]:
    """Returns the dotted beginnings that many keys share, the shortest first."""
    counts: Counter[str] = Counter()
    for key in keys:
        parts = unwrap(key).split(".")[:-1]
        for length in range(1, min(len(parts), MAX_PREFIX) + 1):
            counts[".".join(parts[:length]) + "."] += 1
    enough = [p for p, count in counts.items() if count >= MIN_SHARE * len(keys)]
    return sorted(enough, key=lambda prefix: prefix.count("."))


def unique(names: dict[str, str]) -> dict[str, str]:
    """Returns the renaming with each new name used once.

    A key that keeps its name comes first, then the one that stands first.
    """
    taken = {key for key, new in names.items() if key == new}
    result = {}
    for key, new in names.items():
        result[key] = key if key != new and new in taken else new
        taken.add(result[key])
    return result


def disjoint(match: Match, best: Match, wanted: Mapping[str, Shape]) -> list[str]:
    """Returns the prefix of ``match`` if it takes other keys than ``best`` does."""
    used = {key for key, new in best.names.items() if new in wanted}
    other = {key for key, new in match.names.items() if new in wanted}
    return [] if used & other else [match.prefix]
