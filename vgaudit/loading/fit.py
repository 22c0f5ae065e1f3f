"""Puts the weights of a file into an architecture, strictly."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vgaudit.errors import BadConfig, CannotLoad
from vgaudit.loading.keys import Match, Shape, fits, match_keys, unwrap
from vgaudit.loading.loaded import KeyReport
from vgaudit.loading.wording import SHOWN, listed, one_line, shorten

BATCH_COUNT = "num_batches_tracked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A state_dict from a file.

    Attributes:
        state: names to tensors, checked.
        versions: of the modules that wrote it (``state_dict()._metadata``);
            None where the format keeps none.
        place: the file, for messages.
    """

    state: Mapping[str, Any]
    versions: Mapping[str, Any] | None
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """Where the keys of a file and of an architecture differ.

    Attributes:
        missing: keys of the architecture alone.
        unexpected: keys of the file alone.
        shapes: for each key of both whose shapes differ, the two shapes.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shapes: dict[str, str]

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.missing or self.unexpected or self.shapes)


def fit(module: nn.Module, weights: Weights, *, allow_missing: bool) -> KeyReport:
    """Loads the weights into the module in place.

    A module with parameters on the meta device takes the file's tensors; any
    other copies them. Each weight gets the type that the architecture gives it.

    Raises:
        BadConfig: two sets of weights fit equally well.
        CannotLoad: keys or shapes differ, and ``allow_missing`` is not set.
    """
    wanted = dict(module.state_dict(keep_vars=True))
    match = match_keys(shapes(weights.state), shapes(wanted))
    refuse_rivals(match, weights.place)
    state = {match.names[key]: value for key, value in weights.state.items()}
    fill_counts(state, wanted)
    fill_tied(state, wanted)
    misfit = compare(state, wanted)
    tolerated = bool(misfit) and allow_missing
    if tolerated:
        state = fitting_part(state, wanted, misfit)
    notes = converted(state, wanted, weights.place)
    ordered = OrderedDict(state)
    # load_state_dict looks for the versions there.
    ordered._metadata = module_versions(module, weights, match)  # type: ignore[attr-defined]
    try:
        if not state:
            raise KeyError("no key fits")
        put(module, ordered, strict=not tolerated)
    except Exception as error:
        raise refuse(weights.place, type(module).__name__, misfit, error) from error
    if not tolerated:
        return KeyReport(stripped_prefixes=match.stripped, notes=tuple(notes))
    notes += [f"left as initialised: {text}" for text in misfit.shapes.values()]
    return KeyReport(
        stripped_prefixes=match.stripped,
        missing=misfit.missing,
        unexpected=misfit.unexpected,
        notes=tuple(notes),
    )


def put(module: nn.Module, state: OrderedDict[str, Any], *, strict: bool) -> None:
    """Loads a state_dict whose keys are the module's own."""
    values = module.state_dict().values()
    on_meta = any(isinstance(v, Tensor) and v.is_meta for v in values)
    if on_meta:
        separate(state)
    module.load_state_dict(state, strict=strict, assign=on_meta)


def separate(state: OrderedDict[str, Any]) -> None:
    """Gives each tensor a storage of its own, in place.

    A module that takes tensors as they are would otherwise train two weights
    at once, or keep a large storage alive for a small slice of it.
    """
    seen: set[int] = set()
    for key, value in state.items():
        if not isinstance(value, Tensor):
            continue
        storage = value.untyped_storage()
        whole = storage.nbytes() == value.numel() * value.element_size()
        if not whole or not value.is_contiguous() or storage.data_ptr() in seen:
            state[key] = value.clone(memory_format=torch.contiguous_format)
        seen.add(storage.data_ptr())


def refuse_rivals(match: Match, place: str) -> None:
    """Raises where the weights under two prefixes fit equally well.

    Raises:
        BadConfig: names the prefixes.
    """
    if match.rivals:
        names = [shorten(p.rstrip(".")) for p in (match.prefix, *match.rivals)]
        raise BadConfig(
            f"{place} holds several sets of weights: {', '.join(names)}",
            hint=f"choose --key {'|'.join(names)}",
        )


def shapes(state: Mapping[str, Any]) -> dict[str, Shape]:
    """Returns the shape of each value; None where it has none (yet)."""
    return {
        key: tuple(value.shape)
        if isinstance(value, Tensor) and not nn.parameter.is_lazy(value)
        else None
        for key, value in state.items()
    }


def fill_counts(state: dict[str, Any], wanted: Mapping[str, Any]) -> None:
    """Adds the batch counters that PyTorch did not save before 0.4.1."""
    for key, value in wanted.items():
        if key.endswith(BATCH_COUNT) and key not in state and value.dim() == 0:
            state[key] = torch.zeros((), dtype=value.dtype)


def fill_tied(state: dict[str, Any], wanted: Mapping[str, Any]) -> None:
    """Adds the other names of tied weights; safetensors keeps one name only."""
    present = {id(value): key for key, value in wanted.items() if key in state}
    for key, value in wanted.items():
        if key not in state and id(value) in present:
            state[key] = state[present[id(value)]]


def compare(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> Misfit:
    """Returns where the keys and shapes differ."""
    given, expected = shapes(state), shapes(wanted)
    return Misfit(
        missing=tuple(key for key in wanted if key not in state),
        unexpected=tuple(key for key in state if key not in wanted),
        shapes={
            key: f"{shorten(key)} is {list(shape or ())} in the file, "
            f"{list(expected[key] or ())} in the architecture"
            for key, shape in given.items()
            if key in expected and not fits(shape, expected[key])
        },
    )


def fitting_part(
    state: Mapping[str, Any], wanted: Mapping[str, Any], misfit: Misfit
) -> dict[str, Any]:
    """Returns the entries that the architecture has in the same shape."""
    return {
        key: value
        for key, value in state.items()
        if key in wanted and key not in misfit.shapes
    }


def converted(
    state: dict[str, Any], wanted: Mapping[str, Any], place: str
) -> list[str]:
    """Gives each weight the architecture's type, in place; returns notes.

    Raises:
        CannotLoad: integers or complex numbers where the architecture has
            floating-point numbers.
    """
    changed: dict[str, None] = {}
    for key, value in state.items():
        expected = wanted.get(key)
        if not isinstance(value, Tensor) or not isinstance(expected, Tensor):
            continue
        if value.dtype == expected.dtype:
            continue
        if expected.is_floating_point() and not value.is_floating_point():
            raise CannotLoad(
                f"{place}: {shorten(key)} holds {plain(value.dtype)} where the "
                f"architecture has {plain(expected.dtype)}",
                hint="quantised or wrong weights: give the model before quantisation",
            )
        state[key] = value.to(expected.dtype)
        if value.is_floating_point():
            change = f"{plain(value.dtype)} weights are loaded as "
            changed[change + plain(expected.dtype)] = None
    return list(changed)


def plain(dtype: torch.dtype) -> str:
    """Returns the name of a type without ``torch.``."""
    return str(dtype).removeprefix("torch.")


def module_versions(
    module: nn.Module, weights: Weights, match: Match
) -> dict[str, Any]:
    """Returns the versions of the modules that wrote the file, by our paths.

    safetensors keeps none, and some modules (torchvision's MNASNet) then take
    the file for an old one: a file without versions is taken as current.
    """
    current: dict[str, Any] = dict(getattr(module.state_dict(), "_metadata", {}))
    if weights.versions is None:
        return current
    written = {match.path(path): v for path, v in weights.versions.items()}
    return {path: written[unwrap(path)] for path in current if unwrap(path) in written}


def refuse(place: str, name: str, misfit: Misfit, error: Exception) -> CannotLoad:
    """Returns the error for weights that do not fit, with the first keys of each."""
    parts = []
    if misfit.missing:
        parts.append(f"{len(misfit.missing)} missing: {listed(misfit.missing)}")
    if misfit.unexpected:
        count = len(misfit.unexpected)
        parts.append(f"{count} unexpected: {listed(misfit.unexpected)}")
    if misfit.shapes:
        texts = tuple(misfit.shapes.values())
        parts.append(f"{len(texts)} of another shape: {'; '.join(texts[:SHOWN])}")
    reason = "; ".join(parts) or one_line(error)
    return CannotLoad(f"{place} does not fit {name}: {reason}", hint=way_out(misfit))


def way_out(misfit: Misfit) -> str:
    """Returns what to do about keys that differ."""
    if misfit.shapes and not (misfit.missing or misfit.unexpected):
        return (
            "another number of classes? build it so, --model-arg num_classes=N, "
            "or leave those weights as initialised: --allow-missing"
        )
    return "check --arch, or load what fits: --allow-missing"
