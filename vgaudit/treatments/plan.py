"""What to convert and what not, with the reason: before anything is touched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import fx, nn

from vgaudit.conversion import ConvertOptions, Refusal
from vgaudit.errors import BadConfig
from vgaudit.nn import AutoRotation, Unfused, is_hub_conv1d, rotated_parameters
from vgaudit.treatments import nodes, provenance, roles, weights
from vgaudit.treatments.recorded import Act

LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
"""Layers whose output axis is known."""

ROTATED = "the layer that feeds it is already auto-rotated"
"""Why neither auto-rotation nor rescaling takes a layer once more."""

_ACTS_ALONE = frozenset({"prelu", "rrelu"})


@dataclass(slots=True)
class LayerTarget:
    """A layer to scale, and the activations that it feeds.

    Attributes:
        path: the module.
        kind: canonical name of the activations.
        acts: the activation calls, in order.
        norms: normalizations between layer and activation.
        calls: how often the layer runs in one pass.
        following: the Linear layer that alone takes what comes of it, or empty.
        parameter: of a module that multiplies with it by hand; empty for a layer.
        axis: of the parameter's units, from the end.
        factor: the number that the layer's output is multiplied with on its way.
    """

    path: str
    kind: str
    acts: list[Act] = field(default_factory=list)
    norms: list[str] = field(default_factory=list)
    calls: int = 0
    following: str = ""
    parameter: str = ""
    axis: int = 0
    factor: float = 1.0

    @property
    def name(self) -> str:
        """The module, or its parameter."""
        return f"{self.path}.{self.parameter}".strip(".")


@dataclass(slots=True)
class ActTarget:
    """An activation to replace: a module with all its calls, or one call of a function.

    Attributes:
        path: the module, or the module whose method calls the function.
        kind: canonical name.
        acts: its calls.
        fed_by: path of the layer that feeds the first call, where known.
    """

    path: str
    kind: str
    acts: list[Act] = field(default_factory=list)
    fed_by: str = ""


@dataclass(slots=True)
class Plan:
    """Layers or activations to convert, in forward order, and refusals."""

    layers: list[LayerTarget] = field(default_factory=list)
    activations: list[ActTarget] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)

    def refuse(self, act: Act, reason: str) -> None:
        """Notes why an activation call is left as it is."""
        site = act.site
        self.refusals.append(
            Refusal(path=site.key, kind=site.kind, reason=reason, source=site.source)
        )


def plan_layers(graph: fx.Graph, model: nn.Module, options: ConvertOptions) -> Plan:
    """Returns the layers that feed hidden activations, for ``ar`` and ``rescale``."""
    plan, declared = Plan(), axes_of(options)
    alive = roles.hidden(graph)
    found: dict[str, LayerTarget] = {}
    for node in graph.nodes:
        act = nodes.act_of(node)
        if act is None:
            continue
        fed, norms, reason = _source(node, model, alive, declared)
        if not reason and not chosen(options, fed.path, fed.name, act.site.key):
            reason = "left out by --layers or --skip"
        if not reason and norms and not options.normed:
            reason = (
                f"its scale cancels in {norms[0] or 'the normalization'}: nothing "
                "would change (--normed converts it all the same)"
            )
        if reason:
            plan.refuse(act, reason)
            continue
        target = found.setdefault(fed.name, fed)
        if target.factor != fed.factor:
            plan.refuse(act, f"{fed.name} feeds activations through different factors")
            continue
        target.kind, target.norms = target.kind or act.site.kind, target.norms or norms
        target.acts.append(act)
        target.following = _following(node, graph)
    for name, target in found.items():
        weight = name if target.parameter else f"{name}.weight".lstrip(".")
        _settle(plan, graph, target, weight)
    _recurrent(plan, graph, model, options)
    return plan


def _recurrent(
    plan: Plan, graph: fx.Graph, model: nn.Module, options: ConvertOptions
) -> None:
    """Plans fused recurrent layers, whose gates no operation of the graph shows."""
    counts: Counter[str] = Counter()
    for node in graph.nodes:
        name = nodes.name_of(node)
        if name not in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
            continue
        path = nodes.path_of(node)
        counts[path] += 1
        if counts[path] > 1:
            continue
        reason = ""
        if options.to == "adact":
            reason = (
                f"its activations are inside the fused {name}: --unfuse opens it, two "
                "to five times slower"
            )
        elif options.to != "ar":
            reason = f"{options.to} does not reach the gates inside the fused {name}"
        elif name == "rnn_relu" or not isinstance(
            model.get_submodule(path), nn.RNNBase
        ):
            reason = f"the gates of {name} are not those of an LSTM, GRU or tanh RNN"
        elif not chosen(options, path):
            reason = "left out by --layers or --skip"
        if reason:
            plan.refusals.append(
                Refusal(path=path, kind=name, reason=reason, source=None)
            )
        else:
            plan.layers.append(LayerTarget(path, name, calls=1))
    for target in plan.layers:
        target.calls = counts.get(target.path, target.calls)


def _following(node: fx.Node, graph: fx.Graph) -> str:
    """Returns the Linear layer after an activation, if nothing else uses its weight."""
    path = weights.next_linear(node)
    users = weights.users_of_parameter(graph, f"{path}.weight") if path else []
    return path if len(users) == 1 else ""


def _settle(plan: Plan, graph: fx.Graph, target: LayerTarget, weight: str) -> None:
    """Accepts a layer if every call of it feeds a planned activation of one kind."""
    users = weights.users_of_parameter(graph, weight)
    target.calls = len(users)
    kinds = {act.site.kind for act in target.acts}
    if len(kinds) > 1:
        reason = (
            f"{target.path} feeds different activations: {', '.join(sorted(kinds))}"
        )
    elif len(users) != len(target.acts):
        reason = f"the weight of {target.path} is also used where no activation follows"
    else:
        plan.layers.append(target)
        return
    for act in target.acts:
        plan.refuse(act, reason)


def _source(
    node: fx.Node, model: nn.Module, alive: set[fx.Node], declared: Mapping[str, int]
) -> tuple[LayerTarget, list[str], str]:
    """Returns the layer, norms and an empty reason, or why there is no such layer."""
    nothing = LayerTarget("", "")
    reason = _no_hidden_activation(node, alive)
    if reason:
        return nothing, [], reason
    chain = provenance.trace_back(node, declared)
    if chain.source is None:
        return nothing, [], chain.reason
    if any(True for _ in provenance.strangers(node, chain)):
        return nothing, [], "the layer's output is also used elsewhere"
    name = weights.declared_in(chain.source, declared)
    name = name or weights.weight_name(chain.source)
    if name is None and _is_rotated(model, nodes.path_of(chain.source)):
        return nothing, [], ROTATED
    if name is None:
        return nothing, [], weights.computed(chain.source)
    path, _, leaf = name.rpartition(".")
    module, fed = model.get_submodule(path), LayerTarget(path, "", factor=chain.factor)
    if nodes.name_of(chain.source) == nodes.ATTENTION:
        # Its forward never runs: the weight is rotated where it is read.
        fed.parameter, fed.axis = leaf, -2
        return fed, chain.norms, ""
    if leaf == "weight" and name not in declared and _fits(module, chain.source):
        if nodes.path_of(chain.source) != path:
            return nothing, [], f"the weight of {path} is used outside its forward"
        return fed, chain.norms, ""
    axis = declared.get(name) or _axis(module, leaf, chain.source)
    if axis is None:
        kind = type(module).__name__
        reason = f"fed by {path} ({kind}), whose axis is unknown: declare --ar-axis"
        return nothing, [], reason
    fed.parameter, fed.axis = leaf, axis
    return fed, chain.norms, ""


def _is_rotated(model: nn.Module, path: str) -> bool:
    """Tells whether a layer, or a parameter that a module reads, is auto-rotated."""
    module = model.get_submodule(path)
    return isinstance(module, AutoRotation) or bool(rotated_parameters(module))


def axes_of(options: ConvertOptions) -> dict[str, int]:
    """Returns the axes that were declared: parameter → −1 or −2.

    Raises:
        BadConfig: no such form.
    """
    found: dict[str, int] = {}
    for text in options.ar_axis:
        name, _, axis = text.rpartition("=")
        if not name or axis not in ("-1", "-2"):
            raise BadConfig(
                f"--ar-axis {text}",
                hint="give NAME=-1 or NAME=-2: the dimension of the units",
            )
        found[name] = int(axis)
    return found


def _axis(module: nn.Module, leaf: str, source: fx.Node) -> int | None:
    """Returns the axis of the units of a matrix used by hand, where its use tells."""
    parameter = module._parameters.get(leaf)
    if parameter is None or parameter.dim() < 2 or isinstance(module, LAYERS):
        return None
    product = weights.weight_of(source)
    if product is not None:
        return -2 if product.rows else -1
    return -2 if nodes.name_of(source) == "linear" else None


def _fits(module: nn.Module, source: fx.Node) -> bool:
    """Tells whether an operation uses a layer's weight as that layer does."""
    product = weights.weight_of(source)
    if is_hub_conv1d(type(module)):
        return product is not None and not product.rows
    if product is not None:
        return isinstance(module, nn.Linear) and product.rows
    return isinstance(module, LAYERS)


def chosen(options: ConvertOptions, *names: str) -> bool:
    """Tells whether the globs take a layer or activation of one of these names."""

    def matches(globs: Iterable[str]) -> bool:
        return any(fnmatchcase(name, glob) for glob in globs for name in names)

    return (not options.layers or matches(options.layers)) and not matches(options.skip)


def plan_activations(
    graph: fx.Graph, model: nn.Module, options: ConvertOptions
) -> Plan:
    """Returns the activations to replace, for ``adact``."""
    plan = Plan()
    alive = roles.hidden(graph)
    found: dict[object, ActTarget] = {}
    rejected: dict[object, str] = {}
    for node in graph.nodes:
        act = nodes.act_of(node)
        if act is None:
            continue
        key = _identity(act)
        chain = provenance.trace_back(node)
        path = _feeder(chain)
        reason = _no_replacement(node, act, model, alive)
        if not reason and not chosen(options, path, act.site.key, act.site.path):
            reason = "left out by --layers or --skip"
        if reason:
            plan.refuse(act, reason)
            rejected.setdefault(key, reason)
            continue
        target = found.setdefault(
            key, ActTarget(_place(act), act.site.kind, fed_by=path)
        )
        target.acts.append(act)
    for key, target in found.items():
        kinds = sorted({act.site.kind for act in target.acts})
        if len(kinds) > 1:
            rejected.setdefault(key, f"{' and '.join(kinds)} at one place")
        if key in rejected:
            for act in target.acts:
                plan.refuse(act, f"another call of the same: {rejected[key]}")
        else:
            plan.activations.append(target)
    _recurrent(plan, graph, model, options)
    return plan


def _identity(act: Act) -> object:
    """Returns what all calls of one activation have in common."""
    if act.caller is None:
        return act.site.path
    return act.caller


def _place(act: Act) -> str:
    """Returns the module that is replaced, or whose method makes the call."""
    return act.site.path if act.caller is None else act.caller.path


def _feeder(chain: provenance.Chain) -> str:
    name = weights.weight_name(chain.source) if chain.source is not None else ""
    return (name or "").rpartition(".")[0]


def _no_replacement(
    node: fx.Node, act: Act, model: nn.Module, alive: set[fx.Node]
) -> str:
    if _opened(model, act.site.path):
        return ""
    reason = _no_hidden_activation(node, alive)
    if reason:
        return reason
    if act.site.kind in _ACTS_ALONE:
        return f"{act.site.kind} has parameters or randomness of its own"
    if act.caller is not None or (act.own and _registered(model, act.site.path)):
        return ""
    what = "called" if not act.own else "its module is not registered, and called"
    return f"{what} by functions of which none is a method of a module"


def _no_hidden_activation(node: fx.Node, alive: set[fx.Node]) -> str:
    """Returns why an activation is none between two layers, or nothing."""
    if node not in alive:
        return "an output activation: no layer follows it"
    if roles.is_gate(node):
        return "a gate: its output multiplies other data"
    if roles.is_cap(node):
        return "a soft cap of logits: a softmax follows it"
    return ""


def _opened(model: nn.Module, path: str) -> bool:
    """Tells whether an activation is the candidate or output of an unfused layer.

    Its output multiplies a gate, and the last step's goes nowhere: neither counts.
    """
    layer, _, name = path.rpartition(".acts.")
    return bool(name) and isinstance(model.get_submodule(layer), Unfused)


def _registered(model: nn.Module, path: str) -> bool:
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True
