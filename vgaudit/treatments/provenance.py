"""What feeds an activation, read from the recorded graph."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from torch import fx

from vgaudit.treatments.nodes import (
    ATTENTION,
    DROPOUTS,
    MATRIX_PRODUCTS,
    MERGES,
    NORMS,
    PARTS,
    POOLS,
    PRODUCTS,
    RESHAPES,
    WEIGHTED,
    act_of,
    factor_of,
    first_operand,
    is_parameter,
    name_of,
    operands,
    path_of,
)
from vgaudit.treatments.weights import declared_in, weight_name, weight_of


@dataclass(slots=True)
class Chain:
    """The way from an activation back to the layer that feeds it.

    Attributes:
        nodes: from the activation's input back to the layer, both included.
        source: the layer's operation; None where there is none.
        norms: module paths of the normalizations in between.
        reason: why there is no source.
        stochastic: a dropout lies in between.
        factor: product of the numbers that it is multiplied with on the way.
    """

    nodes: list[fx.Node] = field(default_factory=list)
    source: fx.Node | None = None
    norms: list[str] = field(default_factory=list)
    reason: str = ""
    stochastic: bool = False
    factor: float = 1.0


def trace_back(activation: fx.Node, declared: Collection[str] = ()) -> Chain:
    """Returns the chain behind an activation node.

    Args:
        activation: where to begin.
        declared: parameters whose products are a source, whatever their form.
    """
    chain = Chain()
    place = first_operand(activation)
    biases: list[str] = []
    while place is not None:
        chain.nodes.append(place)
        name = name_of(place)
        known = name in WEIGHTED or weight_of(place) is not None
        known = known or name == ATTENTION
        if known or declared_in(place, declared) is not None:
            chain.source = place
            return _with_biases(chain, biases)
        added = _added_parameter(place)
        if added is not None:
            biases.append(added)
            place = next(arg for arg in operands(place) if arg.op != "get_attr")
            continue
        factor = factor_of(place)
        if factor is not None:
            chain.factor *= factor
        elif name in NORMS:
            chain.norms.append(path_of(place))
        elif name in DROPOUTS:
            chain.stochastic = True
        elif name not in RESHAPES | POOLS and not _is_attended(place):
            chain.reason = _obstacle(place, name)
            return chain
        place = first_operand(place)
    chain.reason = "no layer feeds it"
    return chain


def _is_attended(node: fx.Node) -> bool:
    """Tells the values that fused attention gives, which its projection made."""
    before = first_operand(node) if name_of(node) == "getitem" else None
    if before is None or name_of(before) != ATTENTION:
        return False
    return bool(node.args[1] == 0)


def _added_parameter(node: fx.Node) -> str | None:
    """Returns the parameter that is added to data, as a bias written by hand."""
    if name_of(node) not in ("add", "iadd", "radd"):
        return None
    names = [str(arg.target) for arg in operands(node) if arg.op == "get_attr"]
    return names[0] if len(names) == 1 and len(operands(node)) == 2 else None


def _with_biases(chain: Chain, biases: list[str]) -> Chain:
    """Returns a chain on which only the layer's own bias is added, or the reason.

    Beside a matrix that a module multiplies with by hand, any may be.
    """
    assert chain.source is not None
    if biases and chain.factor != 1.0:
        chain.source, chain.reason = None, "a product with a number and a sum feed it"
        return chain
    owner, _, leaf = (weight_name(chain.source) or "").rpartition(".")
    if leaf != "weight":
        return chain
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
    if name in PARTS:
        return "it acts on a part of a layer's output; the other parts go elsewhere"
    if name in MERGES:
        return f"several layers feed it through `{name}`"
    if name in PRODUCTS:
        return "a product feeds it"
    if name in MATRIX_PRODUCTS:
        if not any(is_parameter(arg) for arg in operands(node)):
            return f"a product of data (`{name}`) feeds it"
        return (
            f"the weight is a raw parameter of `{name}`: its output axis is unknown; "
            "declare it with --ar-axis"
        )
    return f"`{name}` feeds it, which is no Linear or convolution"


def strangers(activation: fx.Node, chain: Chain) -> Iterator[fx.Node]:
    """Yields the nodes beside the chain that use what flows along it.

    What an activation module computes inside is no stranger.
    """
    act = act_of(activation)
    inside = path_of(activation) if act is not None and act.own else None
    above = [activation, *chain.nodes[:-1]]
    for user, node in zip(above, chain.nodes, strict=True):
        for other in node.users:
            if name_of(node) == ATTENTION and not _is_attended(other):
                continue  # The attention weights are no output of the projection.
            if other is not user and (inside is None or path_of(other) != inside):
                yield other
