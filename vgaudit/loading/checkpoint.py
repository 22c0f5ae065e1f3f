"""Finds the weights in what a checkpoint holds.

Training loops save a dict of many things; which entry holds the weights is a
convention of each. Everything here visits each object once and is iterative,
so references to itself and to shared parts cost nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vgaudit.errors import BadConfig, CannotLoad
from vgaudit.loading.wording import shorten

MAX_LEVELS = 4
EXTRA_STATE = "_extra_state"

NOT_WEIGHTS = re.compile(
    r"optim|sched|scaler|callback|loops?$|hyper|hparam|config|metric|loss|rng|"
    r"^args$|^state$|^param_groups$|grad",
    re.IGNORECASE,
)
"""Entries of a checkpoint that hold tensors, or dicts of them, but no weights."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Weights, or a whole module, found in a file.

    Attributes:
        key: how to reach it, ``model`` or ``ema.module``; empty for the top.
        value: a state_dict or a module.
    """

    key: str
    value: Mapping[str, Any] | nn.Module


def select(root: Any, key: str | None, place: str) -> Entry:
    """Returns the weights of a checkpoint.

    Args:
        root: what the file holds.
        key: the entry to take, dots between levels; None for the only one.
        place: the file, for messages.

    Raises:
        BadConfig: several entries hold weights, or ``key`` names none.
        CannotLoad: none does.
    """
    if key:
        return Entry(key, reach(root, key, place))
    if is_weights(root):
        return Entry("", root)
    found = candidates(root)
    if len(found) > 1:
        names = "|".join(shorten(entry.key) for entry in found)
        raise BadConfig(
            f"{place} holds several sets of weights: {names.replace('|', ', ')}",
            hint=f"choose --key {names}",
        )
    if not found:
        raise CannotLoad(
            f"{place}: no state_dict found in {summary(root)}", hint=way_out(root)
        )
    return found[0]


def is_weights(value: object) -> bool:
    """Returns whether it is a module or a state_dict: names to tensors, some.

    A dict of single numbers, such as the metrics of an epoch, is none.
    """
    if isinstance(value, nn.Module):
        return True
    if not isinstance(value, Mapping) or not value:
        return False
    tensors = [v for k, v in value.items() if not ends_in_extra(k)]
    return (
        all(isinstance(k, str) for k in value)
        and all(isinstance(v, Tensor) for v in tensors)
        and any(v.dim() > 0 for v in tensors)
    )


def ends_in_extra(key: object) -> bool:
    """Returns whether a key holds what ``get_extra_state()`` returned."""
    return isinstance(key, str) and key.endswith(EXTRA_STATE)


def candidates(root: Any) -> list[Entry]:
    """Returns the entries that hold weights, nearest the top first."""
    return [entry for entry in walk(root) if is_weights(entry.value)]


def walk(root: Any) -> Iterator[Entry]:
    """Yields the dicts and modules below ``root``, each once, weights unopened."""
    level, seen = [("", root)], {id(root)}
    for _ in range(MAX_LEVELS):
        below: list[tuple[str, Any]] = []
        for prefix, holder in level:
            for key, value in holder.items() if isinstance(holder, Mapping) else ():
                if not isinstance(key, str) or NOT_WEIGHTS.search(key):
                    continue
                if id(value) in seen or not isinstance(value, Mapping | nn.Module):
                    continue
                seen.add(id(value))
                entry = Entry(f"{prefix}{key}", value)
                yield entry
                if not is_weights(value):
                    below.append((f"{entry.key}.", value))
        level = below


def reach(root: Any, key: str, place: str) -> Mapping[str, Any] | nn.Module:
    """Returns the entry of that name, or the tensors whose names begin with it.

    Raises:
        BadConfig: there is none, or it holds no weights.
    """
    value = root
    rest = key
    while rest and isinstance(value, Mapping):
        step = next((k for k in steps(rest) if k in value), None)
        if step is None:
            break
        value, rest = value[step], rest[len(step) + 1 :]
    if not rest and is_weights(value):
        return value  # type: ignore[no-any-return]
    prefix = f"{rest}."
    if isinstance(value, Mapping):
        part = {
            k[len(prefix) :]: v
            for k, v in value.items()
            if isinstance(k, str) and k.startswith(prefix)
        }
        if is_weights(part):
            return part
    choices = "|".join(shorten(entry.key) for entry in candidates(root))
    raise BadConfig(
        f"{place}: no weights under the key {key!r} in {summary(root)}",
        hint=f"choose --key {choices}" if choices else "leave --key out",
    )


def steps(key: str) -> Iterator[str]:
    """Yields what a dotted key may begin with, the longest first."""
    parts = key.split(".")
    for count in range(len(parts), 0, -1):
        yield ".".join(parts[:count])


def summary(root: Any) -> str:
    """Returns what an object is, in a few words; never its ``repr``."""
    if isinstance(root, Mapping):
        keys = [shorten(str(k), 40) for k in list(root)[:8] if isinstance(k, str | int)]
        more = ", …" if len(root) > len(keys) else ""
        return f"keys {', '.join(keys)}{more}" if root else "an empty dict"
    if isinstance(root, Tensor):
        return f"a bare tensor of shape {list(root.shape)}"
    if isinstance(root, list | tuple):
        return f"a {type(root).__name__} of {len(root)}"
    return f"an object of type {type(root).__name__}"


def way_out(root: Any) -> str:
    """Returns what to do about a file without weights."""
    if isinstance(root, Mapping) and root:
        return "name the entry that holds the weights: --key NAME"
    return "save the weights: torch.save(model.state_dict(), FILE)"
