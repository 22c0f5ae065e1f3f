"""Which parameters form a layer, read from their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from vgaudit.errors import BadConfig
from vgaudit.optim.sharding import is_sharded, rows_match

Scope = Literal["tensor", "layer", "global"]

_ROLE = re.compile(r"^(?P<before>.*?)(?P<role>weight|bias)(?P<after>.*)$")


@dataclass(frozen=True, slots=True)
class Slot:
    """One parameter of the optimizer: its name, and the group it belongs to."""

    name: str
    param: Tensor
    group: int


@dataclass(frozen=True, slots=True)
class Layer:
    """Parameters that move together, as positions in the list of slots.

    Attributes:
        name: path of the module, with what its parameters' names share
            (``rnn._ih_l0`` for the first weight of an ``nn.LSTM`` called ``rnn``).
        members: all its parameters.
        pairs: (weight, bias) of each affine map, which centring works on.
        blocks: which members share one damping μ and one radius R.
    """

    name: str
    members: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    blocks: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The parameters of an optimizer in order, with its own groups and state.

    Attributes:
        slots: every parameter.
        layers: how they belong together.
        groups, state: the optimizer's own, by reference.
        sharded: whether any parameter is spread over processes.
    """

    slots: tuple[Slot, ...]
    layers: tuple[Layer, ...]
    groups: list[dict[str, Any]]
    state: MutableMapping[Tensor, dict[str, Any]]
    sharded: bool

    def param(self, index: int) -> Tensor:
        """Returns the parameter at ``index``."""
        return self.slots[index].param

    def option(self, index: int, name: str) -> Any:
        """Returns what the group of the parameter at ``index`` says."""
        return self.groups[self.slots[index].group][name]

    def kept(self, index: int) -> dict[str, Any]:
        """Returns the state of the parameter at ``index``, to read and write."""
        return self.state[self.slots[index].param]

    def spread(self, indices: Iterable[int]) -> list[Tensor]:
        """Returns the parameters that sums must be taken over, none if all are here."""
        return [self.slots[index].param for index in indices] if self.sharded else []


def layout_of(
    groups: list[dict[str, Any]],
    state: MutableMapping[Tensor, dict[str, Any]],
    scope: Scope,
) -> Layout:
    """Returns the layout of an optimizer whose groups hold ``param_names``."""
    slots = slots_of(groups)
    sharded = any(is_sharded(slot.param) for slot in slots)
    return Layout(slots, layers_of(slots, scope), groups, state, sharded)


def named_groups(params: Iterable[Any], *, owner: str) -> list[dict[str, Any]]:
    """Returns the parameters as groups, each a list of (name, tensor).

    Raises:
        BadConfig: no parameters, parameters without names, or complex ones.
    """
    listed: list[Any] = [params] if isinstance(params, Tensor | dict) else list(params)
    grouped = bool(listed) and isinstance(listed[0], dict)
    result = []
    for group in listed if grouped else [{"params": listed}]:
        members = group["params"]
        members = [members] if isinstance(members, Tensor) else list(members)
        if not members:
            raise BadConfig(
                f"{owner} got a parameter group without parameters",
                hint="leave empty groups out",
            )
        for member in members:
            _check(member, owner)
        result.append({**group, "params": members})
    return result


def _check(member: object, owner: str) -> None:
    if not isinstance(member, tuple):
        raise BadConfig(
            f"{owner} got a parameter without a name",
            hint="pass model.named_parameters(): names tell which bias belongs to "
            "which weight",
        )
    name, tensor = member
    if isinstance(tensor, Tensor) and tensor.is_complex():
        raise BadConfig(
            f"{owner} cannot train the complex parameter {name!r}",
            hint="train it with torch.optim.Adam, or store real and imaginary parts",
        )


def weight_layers(groups: Iterable[dict[str, Any]]) -> int:
    """Returns how many layers of ``named_groups`` train a weight of 2 dimensions."""
    return sum(
        len({_key(name)[0] for name, param in group["params"] if _is_weight(param)})
        for group in groups
    )


def _is_weight(param: Tensor) -> bool:
    return param.requires_grad and param.dim() >= 2


def slots_of(groups: Sequence[dict[str, Any]]) -> tuple[Slot, ...]:
    """Returns every parameter of every group, with a name that is unique.

    Where two groups use the same name (bare modules listed one by one), the names
    get the number of their group in front.

    Raises:
        BadConfig: one group holds a name twice.
    """
    for index, group in enumerate(groups):
        for name, times in Counter(group["param_names"]).most_common(1):
            if times > 1:
                raise BadConfig(
                    f"parameter group {index} holds the name {name!r} {times} times",
                    hint="pass model.named_parameters() of the whole model, or one "
                    "group for each module",
                )
    counted = Counter(name for group in groups for name in group["param_names"])
    clash = any(times > 1 for times in counted.values())
    return tuple(
        Slot(f"{index}.{name}" if clash else name, param, index)
        for index, group in enumerate(groups)
        for name, param in zip(group["param_names"], group["params"], strict=True)
    )


def layers_of(slots: Sequence[Slot], scope: Scope) -> tuple[Layer, ...]:
    """Returns the layers in the order of their first parameter.

    ``weight`` and ``bias`` of a module form a layer, so do ``weight_ih_l0`` and
    ``bias_ih_l0`` of an ``nn.LSTM`` or ``in_proj_weight`` and ``in_proj_bias`` of
    an attention. A parameter with neither word in its name is a layer of its own:
    two tensors that are not known to share a depth must not share a μ.
    """
    found: dict[str, dict[str, int]] = {}
    for index, slot in enumerate(slots):
        key, role = _key(slot.name)
        found.setdefault(key, {})[role] = index
    layers = [_layer(key, roles, slots, scope) for key, roles in found.items()]
    if scope != "global":
        return tuple(layers)
    members = tuple(range(len(slots)))
    pairs = tuple(pair for layer in layers for pair in layer.pairs)
    return (Layer("all parameters", members, pairs, (members,)),)


def _key(name: str) -> tuple[str, str]:
    module, _, leaf = name.rpartition(".")
    match = _ROLE.match(leaf)
    if match is None:
        return name, "own"
    rest = match["before"] + match["after"]
    return ".".join(part for part in (module, rest) if part) or "model", match["role"]


def _layer(
    key: str, roles: dict[str, int], slots: Sequence[Slot], scope: Scope
) -> Layer:
    members = tuple(sorted(roles.values()))
    blocks = tuple((m,) for m in members) if scope == "tensor" else (members,)
    pairs: tuple[tuple[int, int], ...] = ()
    if "weight" in roles and "bias" in roles:
        weight, bias = roles["weight"], roles["bias"]
        if _is_affine(slots[weight].param, slots[bias].param):
            pairs = ((weight, bias),)
    return Layer(key, members, pairs, blocks)


def _is_affine(weight: Tensor, bias: Tensor) -> bool:
    """Returns whether ``weight`` has one row for each entry of ``bias``."""
    if weight.dim() < 2 or bias.dim() != 1 or weight.shape[0] != bias.shape[0]:
        return False
    return rows_match(weight, bias)
