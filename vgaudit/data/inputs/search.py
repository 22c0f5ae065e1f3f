"""Finding the extents that a forward pass accepts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vgaudit.data.inputs.dry_run import DryRun, Trial
from vgaudit.data.inputs.form import CallForm

MAX_TRIES = 120
"""Dry runs that one search may take."""

_ENOUGH_MAP = 4
"""A deepest convolution that sees fewer pixels than this is fed too little."""

_LARGEST_PREFERRED = 256

_REPEATS = 2
"""The same failure at so many further extents: the extent is not the reason."""

_MISMATCHES = (
    re.compile(r"cannot be multiplied \(\d+x(\d+) and (\d+)x\d+\)"),
    re.compile(r"reduction dim, but got \[(?:\d+, )*(\d+)\] X \[(\d+), "),
    re.compile(r"size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\)"),
)
"""What was given, and what was wanted."""

_BROADCAST = re.compile(
    r"dimension of length (\d+) at (-\d+)!.*broadcastable to \[([\d, ]+)\]", re.DOTALL
)
_VIEW = re.compile(
    r"shape '\[(?:-1|\d+), ([\d, ]+)\]' is invalid for input of size (\d+)"
)
_TOO_SMALL = re.compile(
    r"Kernel size can't be greater|Output size is too small"
    r"|Expected more than 1 (?:value|spatial element)"
    r"|[Pp]adding size should be less|must be greater than zero|non-?zero size"
)


@dataclass(frozen=True, slots=True)
class Proposal:
    """Calls that differ in one extent.

    Attributes:
        build: the call for an extent.
        sizes: extents to try, in order.
        spatial: larger maps are better while deep convolutions see almost none.
    """

    build: Callable[[int], CallForm]
    sizes: tuple[int, ...] = (0,)
    spatial: bool = False


class Search:
    """Tries proposals until one runs.

    Attributes:
        error: why the last trial failed, once one has.
    """

    def __init__(self, runner: DryRun) -> None:
        self.error: Exception | None = None
        self._runner = runner
        self._fallback: CallForm | None = None

    def first(self, proposals: Iterable[Proposal]) -> CallForm | None:
        """Returns the first call that runs and keeps the batch apart.

        A call that runs and mixes the samples (its output has another number of
        them) is the answer only when nothing better is found.
        """
        for proposal in proposals:
            found = self._try(proposal)
            if found is not None:
                return found
            if self._runner.tries >= MAX_TRIES:
                break
        return self._fallback

    def _try(self, proposal: Proposal) -> CallForm | None:
        signs: dict[int, int] = {}
        best: CallForm | None = None
        last = ""
        best_size, repeats = 0, 0
        for size in proposal.sizes:
            if best is not None and not best_size < size <= _LARGEST_PREFERRED:
                continue
            # Small extents run by broadcasting: look between the others first.
            if size < min(signs, default=0) and {-1, 1} <= {*signs.values()}:
                break
            if self._runner.tries >= MAX_TRIES:
                break
            form = proposal.build(size)
            trial = self._run(form)
            if self._accepted(trial):
                if not proposal.spatial or _sees_enough(trial):
                    return form
                best, best_size = best or form, size
                continue
            repeats = repeats + 1 if str(trial.error) == last else 0
            last = str(trial.error)
            final = repeats == _REPEATS and _is_final(trial.error)
            if best is not None or final:
                break
            signs[size] = mismatch(trial.error, form.size)
        return best or self._bisect(proposal, signs)

    def _bisect(self, proposal: Proposal, signs: dict[int, int]) -> CallForm | None:
        """Looks between an extent that is too small and one that is too large."""
        if len(proposal.sizes) < 2 or not any(sign > 0 for sign in signs.values()):
            return None
        high = min(size for size, sign in signs.items() if sign > 0)
        low = max([1, *(s for s, sign in signs.items() if sign < 0 and s < high)])
        while high - low > 1 and self._runner.tries < MAX_TRIES:
            middle = (low + high) // 2
            form = proposal.build(middle)
            trial = self._run(form)
            if self._accepted(trial):
                return form
            sign = mismatch(trial.error, form.size)
            if sign == 0:
                return None
            low, high = (middle, high) if sign < 0 else (low, middle)
        return None

    def _run(self, form: CallForm) -> Trial:
        trial = self._runner.try_form(form)
        self.error = trial.error or self.error
        if trial.ran and not trial.keeps_batch:
            self._fallback = self._fallback or form
        return trial

    def _accepted(self, trial: Trial) -> bool:
        return trial.ran and trial.keeps_batch


def _is_final(error: Exception | None) -> bool:
    """Tells whether a failure that repeats itself will go on doing so.

    Not if the input is too small, and not if a size is asserted without a word.
    """
    asserted = isinstance(error, AssertionError)
    return not asserted and not _TOO_SMALL.search(str(error))


def mismatch(error: Exception | None, batch: int) -> int:
    """Returns −1 if the input was too small, +1 if too large, 0 if unknown.

    Read from the messages of torch: what a layer was given and what it wanted.
    """
    text = str(error) if error is not None else ""
    if _TOO_SMALL.search(text):
        return -1
    given, wanted = _given_and_wanted(text, batch)
    return (given > wanted) - (given < wanted)


def _given_and_wanted(text: str, batch: int) -> tuple[int, int]:
    for pattern in _MISMATCHES:
        if match := pattern.search(text):
            return int(match[1]), int(match[2])
    if match := _BROADCAST.search(text):
        extents = [int(extent) for extent in match[3].split(",")]
        return extents[int(match[2])], int(match[1])
    if match := _VIEW.search(text):
        wanted = 1
        for extent in match[1].split(","):
            wanted *= int(extent)
        return int(match[2]) // batch, wanted
    return 0, 0


def _sees_enough(trial: Trial) -> bool:
    return trial.smallest_map is None or trial.smallest_map >= _ENOUGH_MAP
