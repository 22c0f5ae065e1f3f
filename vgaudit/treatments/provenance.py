"""What feeds an activation, read from the recorded graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import fx

from vgaudit.nn import ACTIVATIONS
from vgaudit.treatments.recorded import Act

CONVOLUTIONS = frozenset(f"conv{n}d" for n in (1, 2, 3))
TRANSPOSED = frozenset(f"conv_transpose{n}d" for n in (1, 2, 3))
WEIGHTED = frozenset({"linear"}) | CONVOLUTIONS | TRANSPOSED
"""Functions that take input, weight and bias."""

_NORMS = frozenset(
    {"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"}
)
_DROPOUTS = frozenset(
    f"{kind}dropout{suffix}"
    for kind in ("", "alpha_", "feature_", "feature_alpha_")
    for suffix in ("", "1d", "2d", "3d")
)
_RESHAPES = frozenset(
    [
        "view",
        "reshape",
        "flatten",
        "permute",
        "transpose",
        "contiguous",
        "unsqueeze",
        "squeeze",
        "expand",
        "swapaxes",
        "movedim",
        "unflatten",
        "clone",
        "to",
        "float",
        "half",
        "double",
        "type",
        "type_as",
        "expand_as",
        "view_as",
        "reshape_as",
        "rearrange",
        "T",
        "mT",
        "pad",
    ]
)
_POOLS = frozenset(
    f"{kind}_pool{n}d"
    for kind in ("max", "avg", "adaptive_avg", "adaptive_max")
    for n in (1, 2, 3)
)
_TRANSPOSES = frozenset({"T", "mT", "t", "transpose", "swapaxes"})
_PARTS = frozenset({"chunk", "split", "getitem", "unbind", "select", "narrow"})
_MERGES = frozenset({"add", "sub", "cat", "concat", "stack", "sum", "iadd", "rsub"})
_PRODUCTS = frozenset({"mul", "imul", "rmul"})

_MATRIX_PRODUCTS = frozenset(
    {"matmul", "rmatmul", "mm", "addmm", "bmm", "einsum", "baddbmm"}
)

_GROUPED = frozenset({"grouped_mm", "scaled_grouped_mm"})
_GATE_STEPS = 4


@dataclass(slots=True)
class Chain:
    """The way from an activation back to the layer that feeds it.

    Attributes:
        nodes: from the activation's input back to the layer, both included.
        source: the layer's operation; None where there is none.
        norms: module paths of the normalizations in between.
        reason: why there is no source.
        stochastic: a dropout lies in between.
    """

    nodes: list[fx.Node] = field(default_factory=list)
    source: fx.Node | None = None
    norms: list[str] = field(default_factory=list)
    reason: str = ""
    stochastic: bool = False


def name_of(node: fx.Node) -> str:
    """Returns the bare name of the function that a node calls."""
    if node.op != "call_function":
        return node.op
    owner = getattr(node.target, "__self__", None)
    name = str(getattr(node.target, "__name__", node.target))
    if name == "__get__" and owner is not None:
        name = str(getattr(owner, "__name__", name))
    return name.strip("_")


def act_of(node: fx.Node) -> Act | None:
    """Returns the activation that a node computes, if it is one."""
    found = node.meta.get("act")
    assert found is None or isinstance(found, Act)
    return found


def path_of(node: fx.Node) -> str:
    """Returns the module in which a node ran."""
    return str(node.meta.get("path", ""))


def trace_back(activation: fx.Node) -> Chain:
    """Returns the chain behind an activation node."""
    chain = Chain()
    place = _first(activation)
    biases: list[str] = []
    while place is not None:
        chain.nodes.append(place)
        name = name_of(place)
        if name in WEIGHTED or weight_of(place) is not None:
            chain.source = place
            return _with_biases(chain, biases)
        added = _added_parameter(place)
        if added is not None:
            biases.append(added)
            place = next(arg for arg in operands(place) if arg.op != "get_attr")
            continue
        if name in _NORMS:
            chain.norms.append(path_of(place))
        elif name in _DROPOUTS:
            chain.stochastic = True
        elif name not in _RESHAPES and name not in _POOLS:
            chain.reason = _obstacle(place, name)
            return chain
        place = _first(place)
    chain.reason = "no layer feeds it"
    return chain


def _added_parameter(node: fx.Node) -> str | None:
    """Returns the parameter that is added to data, as a bias written by hand."""
    if name_of(node) not in ("add", "iadd", "radd"):
        return None
    names = [str(arg.target) for arg in operands(node) if arg.op == "get_attr"]
    return names[0] if len(names) == 1 and len(operands(node)) == 2 else None


def _with_biases(chain: Chain, biases: list[str]) -> Chain:
    """Returns a chain on which only the layer's own bias is added, or the reason."""
    assert chain.source is not None
    owner = (weight_name(chain.source) or "").rpartition(".")[0]
    own = f"{owner}.bias" if owner else "bias"
    for name in biases:
        if name != own:
            chain.source = None
            chain.reason = f"{name} is added between the layer and the activation"
    return chain


def _obstacle(node: fx.Node, name: str) -> str:
    if node.op in ("placeholder", "get_attr"):
        what = "the model's input" if node.op == "placeholder" else "a parameter"
        return f"it acts on {what}, no layer feeds it"
    if act_of(node) is not None:
        return f"another activation ({name}) feeds it"
    attention = _first(node) if name == "getitem" else None
    if attention is not None and name_of(attention) == "multi_head_attention_forward":
        return (
            f"{path_of(attention)}.out_proj feeds it, whose own forward never runs: "
            "the fused attention reads its weight"
        )
    if name in _PARTS:
        return "it acts on a part of a layer's output; the other parts go elsewhere"
    if name in _MERGES:
        return f"several layers feed it through `{name}`"
    if name in _PRODUCTS:
        return "a product feeds it"
    if name in _MATRIX_PRODUCTS:
        if not any(_is_parameter(arg) for arg in operands(node)):
            return f"a product of data (`{name}`) feeds it"
        return f"the weight is a raw parameter of `{name}`: its output axis is unknown"
    return f"`{name}` feeds it, which is no Linear or convolution"


def _first(node: fx.Node) -> fx.Node | None:
    """Returns what flows into a node: of ``addmm`` not the bias, but the data."""
    found = operands(node)
    if name_of(node) in ("addmm", "baddbmm"):
        found = found[-2:]
    return found[0] if found else None


def strangers(activation: fx.Node, chain: Chain) -> Iterator[fx.Node]:
    """Yields the nodes beside the chain that use what flows along it.

    What an activation module computes inside is no stranger.
    """
    act = act_of(activation)
    inside = path_of(activation) if act is not None and act.own else None
    above = [activation, *chain.nodes[:-1]]
    for user, node in zip(above, chain.nodes, strict=True):
        for other in node.users:
            if other is not user and (inside is None or path_of(other) != inside):
                yield other


def is_gate(activation: fx.Node) -> bool:
    """Tells whether all that the activation's output does is multiply other data.

    In squeeze-and-excitation the sigmoid is a gate; the value that it multiplies
    also feeds the pooling before it, and is none. What cannot saturate on both sides
    is no gate either: SiLU times a value is the activation of a gated linear unit.
    """
    act = act_of(activation)
    known = ACTIVATIONS.get(act.site.kind) if act is not None else None
    if known is not None and not known.bounded:
        return False
    front, multiplies = [activation], False
    for _ in range(_GATE_STEPS):
        following = []
        for user in (user for node in front for user in node.users):
            if name_of(user) in _RESHAPES or _is_complement(user):
                following.append(user)
            elif name_of(user) in _PRODUCTS and _mixes_data(user):
                multiplies = True
            else:
                return False
        front = following
    return multiplies and not front


def _is_complement(node: fx.Node) -> bool:
    """Tells 1 − gate, the other half of a gate."""
    return name_of(node) in ("rsub", "sub") and len(operands(node)) == 1


def _mixes_data(product: fx.Node) -> bool:
    """Tells whether both factors are data; a parameter may be seen as data's view."""
    factors = [arg for arg in product.args if isinstance(arg, fx.Node)]
    return len(factors) > 1 and all(_is_data(factor) for factor in factors)


def _is_data(node: fx.Node) -> bool:
    for _ in range(6):
        if node.op == "get_attr":
            return False
        before = _first(node)
        if node.op == "placeholder" or before is None:
            return node.op == "placeholder"
        if name_of(node) not in _RESHAPES:
            return True
        node = before
    return True


def hidden(graph: fx.Graph) -> set[fx.Node]:
    """Returns the nodes whose value reaches a later operation with a weight."""
    found: set[fx.Node] = set()
    for node in reversed(list(graph.nodes)):
        for user in node.users:
            if user in found or (_has_weight(user) and not _is_weight(node, user)):
                found.add(node)
                break
    return found


def _has_weight(node: fx.Node) -> bool:
    name = name_of(node)
    if name in WEIGHTED or name in {"lstm", "gru", "rnn_tanh", "rnn_relu"}:
        return True
    fused = {"multi_head_attention_forward", "scaled_dot_product_attention"}
    return name in fused or name in _MATRIX_PRODUCTS or name in _GROUPED


def _is_weight(node: fx.Node, user: fx.Node) -> bool:
    return node.op == "get_attr" and node in user.args[1:]


def next_linear(activation: fx.Node) -> str:
    """Returns the module whose Linear alone takes an activation's output, or nothing.

    Dropout and flattening may lie in between.
    """
    node = activation
    while len(node.users) == 1:
        node = next(iter(node.users))
        name = name_of(node)
        if name == "linear":
            found = weight_name(node) or ""
            path = found.rpartition(".")[0]
            return path if path == path_of(node) else ""
        if name not in _DROPOUTS and name not in ("flatten", "view", "reshape"):
            break
    return ""


@dataclass(frozen=True, slots=True)
class Weight:
    """The parameter that a matrix product multiplies data with.

    Attributes:
        name: of the parameter.
        rows: its units are its rows, as in ``linear``; else its columns.
    """

    name: str
    rows: bool


def weight_of(product: fx.Node) -> Weight | None:
    """Returns the parameter of a ``matmul`` or ``addmm`` with one matrix of weights."""
    name = name_of(product)
    if name not in ("matmul", "mm", "addmm"):
        return None
    factors = operands(product)[-2:]
    if len(factors) != 2 or _is_parameter(factors[0]):
        return None
    node, turns = factors[1], 0
    while node.op == "call_function" and name_of(node) in _TRANSPOSES:
        turns += 1
        before = _first(node)
        if before is None:
            return None
        node = before
    if node.op != "get_attr" or node.target == "constant":
        return None
    return Weight(str(node.target), rows=turns % 2 == 1)


def operands(node: fx.Node) -> list[fx.Node]:
    """Returns the arguments of an operation that are nodes."""
    return [arg for arg in node.args if isinstance(arg, fx.Node)]


def _is_parameter(node: fx.Node) -> bool:
    return not _is_data(node) and node.op != "placeholder"


def weight_name(source: fx.Node) -> str | None:
    """Returns the name of the parameter that a layer multiplies with."""
    product = weight_of(source)
    if product is not None:
        return product.name
    args = source.args
    weight = args[1] if len(args) > 1 else source.kwargs.get("weight")
    if isinstance(weight, fx.Node) and weight.op == "get_attr":
        return str(weight.target)
    return None


_STANDARDISING = _NORMS | {"var_mean", "std_mean", "var", "std"}


def computed(source: fx.Node) -> str:
    """Returns why the weight that a layer multiplies with is no parameter of its own.

    Standardised weights (``ScaledStdConv2d``) lose every scale, and AR with it.
    """
    args = operands(source)
    node = args[1] if len(args) > 1 else None
    seen: set[fx.Node] = set()
    front = [node] if node is not None else []
    standardised, part, names = False, False, []
    while front:
        place = front.pop()
        if place in seen:
            continue
        seen.add(place)
        if place.op == "get_attr":
            names.append(str(place.target))
        standardised = standardised or name_of(place) in _STANDARDISING
        part = part or name_of(place) in _PARTS
        front += operands(place)
    name = names[0] if names else "a parameter"
    if standardised:
        return f"its scale cancels: {name} is standardised at every call"
    if part:
        return f"the layer's weight is a part of {name}: its output axis is unknown"
    return f"the layer's weight is computed from {name} (a parametrization)"


def users_of_parameter(graph: fx.Graph, name: str) -> list[fx.Node]:
    """Returns every operation that takes the parameter."""
    node = next(
        (n for n in graph.nodes if n.op == "get_attr" and n.target == name), None
    )
    return [] if node is None else list(node.users)
