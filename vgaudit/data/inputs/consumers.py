"""Which layer each argument of ``forward`` reaches first.

A symbolic trace follows every argument to the layers that consume it, through
reshapes, concatenations and dict entries. Traces that break off half-way (data
dependent control flow) still tell what happened before. Where nothing can be
followed, the layers in order of registration are the best guess.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from vgaudit.data.inputs.signature import forward_signature, unwrap
from vgaudit.data.inputs.traceless import quiet, stand_ins
from vgaudit.data.seeding import private_random

_METADATA = frozenset(
    {"shape", "size", "dim", "ndim", "device", "dtype", "numel", "type", "ndimension"}
)
_CONCATENATIONS = frozenset({torch.cat, torch.concat, torch.concatenate, torch.hstack})
_WHOLE: tuple[type[nn.Module], ...] = (
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)
"""Modules that are one layer here although they have children."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A layer, or a bare parameter, that an argument reaches.

    Attributes:
        path: qualified name.
        layer: the module or parameter.
        position: which of its inputs the argument is.
        width: features or channels of the argument, where it is concatenated
            with others before the layer; None where it is all the layer gets.
        sharers: other arguments that ``width`` covers as well.
    """

    path: str
    layer: nn.Module | nn.Parameter
    position: int = 0
    width: int | None = None
    sharers: int = 0


@dataclass(slots=True)
class Use:
    """What becomes of one argument.

    Attributes:
        entries: the layers it reaches, in forward order.
        members: what becomes of ``argument[key]``, for text and number keys.
        attributes: what becomes of ``argument.name``.
    """

    entries: list[Entry] = field(default_factory=list)
    members: dict[str | int, Use] = field(default_factory=dict)
    attributes: dict[str, Use] = field(default_factory=dict)


def registered_entries(model: nn.Module) -> list[Entry]:
    """Returns the layers and bare parameters in order of registration."""
    found: list[Entry] = []
    inside: list[str] = []
    for path, module in unwrap(model).named_modules():
        if any(path.startswith(f"{whole}.") for whole in inside):
            continue
        if isinstance(module, _WHOLE):
            inside.append(path)
            found.append(Entry(path, module))
        elif module.__module__.startswith("torch.nn."):
            if next(module.parameters(recurse=False), None) is not None:
                found.append(Entry(path, module))
        else:
            found += [
                Entry(f"{path}.{name}".lstrip("."), parameter)
                for name, parameter in module.named_parameters(recurse=False)
            ]
    return found


def consumers(model: nn.Module) -> dict[str, Use]:
    """Returns what becomes of each required argument, as far as it can be traced."""
    model = unwrap(model)
    if isinstance(model, (*_WHOLE, nn.Bilinear)):
        return _of_one_layer(model)
    graph = _trace(model)
    if graph is None:
        return {}
    modules = dict(model.named_modules())
    return {
        str(node.target).lstrip("*"): _follow(node, modules, model)
        for node in graph.nodes
        if node.op == "placeholder"
    }


def _of_one_layer(model: nn.Module) -> dict[str, Use]:
    names = list(forward_signature(model).parameters)
    return {
        name: Use(entries=[Entry("", model, position)])
        for position, name in enumerate(names)
    }


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            return False
        return m.__module__.startswith("torch.nn.")


def _trace(model: nn.Module) -> fx.Graph | None:
    """Returns the graph of ``forward``, up to where tracing broke off."""
    tracer = _Tracer()
    defaults = {
        name: parameter.default
        for name, parameter in forward_signature(model).parameters.items()
        if parameter.default is not parameter.empty
    }
    try:
        with quiet(), private_random(0), stand_ins(model), torch.no_grad():
            return tracer.trace(model, concrete_args=defaults or None)
    except Exception:  # user code on proxies may raise anything
        return getattr(tracer, "graph", None)


def _follow(node: fx.Node, modules: dict[str, nn.Module], model: nn.Module) -> Use:
    """Walks from an argument to the first layers on every path."""
    use = Use()
    waiting: list[tuple[fx.Node, _Joined]] = [(node, _Joined())]
    seen = {node}
    while waiting:
        current, joined = waiting.pop(0)
        for user in current.users:
            if user in seen or str(user.target) in _METADATA or _metadata(user):
                continue
            seen.add(user)
            if current is node and _member(use, user, modules, model):
                continue
            entry = _entry(current, user, modules, model)
            if entry is None:
                waiting.append((user, joined.through(current, user, modules)))
            else:
                use.entries.append(joined.narrow(entry))
    return use


@dataclass(frozen=True, slots=True)
class _Joined:
    """What an argument was concatenated with on its way.

    Attributes:
        known: features that layers contribute.
        sharers: other parts, of unknown width.
    """

    known: int = 0
    sharers: int = 0

    def through(
        self, current: fx.Node, user: fx.Node, modules: dict[str, nn.Module]
    ) -> _Joined:
        if user.target not in _CONCATENATIONS or not user.args:
            return self
        parts = user.args[0]
        if not isinstance(parts, (list, tuple)):
            return self
        widths = [_width(part, modules) for part in parts if part is not current]
        return _Joined(
            self.known + sum(width for width in widths if width is not None),
            self.sharers + widths.count(None),
        )

    def narrow(self, entry: Entry) -> Entry:
        if not self.known and not self.sharers:
            return entry
        total = None
        for name in ("in_features", "in_channels", "input_size"):
            total = total or getattr(entry.layer, name, None)
        if total is None:
            return entry
        width = total - self.known
        return dataclasses.replace(entry, width=width, sharers=self.sharers)


def _width(part: Any, modules: dict[str, nn.Module]) -> int | None:
    """Returns how many features a part of a concatenation has, if a layer tells."""
    while isinstance(part, fx.Node) and part.all_input_nodes:
        if part.op == "call_module":
            module = modules[str(part.target)]
            for name in ("out_features", "out_channels", "embedding_dim"):
                width = getattr(module, name, None)
                if isinstance(width, int):
                    return width
            if next(module.parameters(), None) is not None:
                return None
        part = part.all_input_nodes[0]
    return None


def _metadata(user: fx.Node) -> bool:
    return user.target is getattr and user.args[1] in _METADATA


def _member(
    use: Use, user: fx.Node, modules: dict[str, nn.Module], model: nn.Module
) -> bool:
    """Notes ``argument[key]``, ``argument.get(key)`` and ``argument.name``."""
    name = getattr(user.target, "__name__", user.target)
    key = user.args[1] if len(user.args) > 1 else None
    if user.target is getattr and isinstance(key, str):
        if key in ("T", "mT", "H", "data", "real", "imag"):
            return False
        use.attributes[key] = _follow(user, modules, model)
        return True
    if name not in ("getitem", "get", "pop") or isinstance(key, bool):
        return False
    if isinstance(key, str):
        use.members[key] = _follow(user, modules, model)
        return True
    if isinstance(key, int):  # a tuple's item or a tensor's row: keep both readings
        use.members[key] = _follow(user, modules, model)
    return False


def _entry(
    current: fx.Node, user: fx.Node, modules: dict[str, nn.Module], model: nn.Module
) -> Entry | None:
    if user.op == "call_module":
        path = str(user.target)
        module = modules[path]
        if next(module.parameters(), None) is None:
            return None
        given = [*user.args, *user.kwargs.values()]
        position = next((i for i, arg in enumerate(given) if arg is current), 0)
        return Entry(path, module, position)
    for other in user.all_input_nodes:
        if other.op != "get_attr":
            continue
        path = str(other.target)
        parameter = _attribute(model, path)
        if isinstance(parameter, nn.Parameter):
            return Entry(path, parameter)
    return None


def _attribute(model: nn.Module, path: str) -> Any:
    value: Any = model
    for name in path.split("."):
        value = getattr(value, name, None)
    return value
