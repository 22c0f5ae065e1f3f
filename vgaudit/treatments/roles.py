"""What an activation is for: between layers, a gate, a cap, or an output."""

from __future__ import annotations

from torch import fx

from vgaudit.treatments.nodes import (
    DROPOUTS,
    GROUPED,
    MATRIX_PRODUCTS,
    PRODUCTS,
    RESHAPES,
    WEIGHTED,
    act_of,
    is_data,
    name_of,
    operands,
)

_GATE_STEPS = 4


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
    return name in fused or name in MATRIX_PRODUCTS or name in GROUPED


def _is_weight(node: fx.Node, user: fx.Node) -> bool:
    return node.op == "get_attr" and node in user.args[1:]


def is_gate(activation: fx.Node) -> bool:
    """Tells whether all that the activation's output does is multiply other data.

    In squeeze-and-excitation the sigmoid is a gate; the value that it multiplies
    also feeds the pooling before it, and is none. What cannot saturate on both sides
    is no gate either: SiLU times a value is the activation of a gated linear unit.
    Nor is the sigmoid in x·sigmoid(x), which multiplies what it acts on.
    """
    act = act_of(activation)
    if act is not None and not act.bounded:
        return False
    entered = _unscaled(operands(activation)[0]) if operands(activation) else None
    front, multiplies = [activation], False
    for _ in range(_GATE_STEPS):
        following = []
        for user in (user for node in front for user in node.users):
            if name_of(user) in RESHAPES or _is_complement(user):
                following.append(user)
            elif name_of(user) in PRODUCTS and _mixes_data(user):
                if any(_unscaled(factor) is entered for factor in operands(user)):
                    return False
                multiplies = True
            else:
                return False
        front = following
    return multiplies and not front


def is_cap(activation: fx.Node) -> bool:
    """Tells a soft cap of logits: a rail on each side, scaling, and then a softmax."""
    act = act_of(activation)
    if act is None or not act.bounded:
        return False
    node = activation
    for _ in range(2 * _GATE_STEPS):
        users = [user for user in node.users if name_of(user) not in DROPOUTS]
        if len(users) != 1:
            return False
        node = users[0]
        if name_of(node) in ("softmax", "log_softmax"):
            return True
        scaled = name_of(node) in PRODUCTS and len(operands(node)) == 1
        masked = name_of(node) in ("add", "iadd", "masked_fill", "where")
        if not scaled and not masked and name_of(node) not in RESHAPES:
            return False
    return False


def _unscaled(node: fx.Node) -> fx.Node:
    """Returns what a node is a multiple of: itself, but for constant factors."""
    while name_of(node) in PRODUCTS and len(operands(node)) == 1:
        node = operands(node)[0]
    return node


def _is_complement(node: fx.Node) -> bool:
    """Tells 1 − gate, the other half of a gate."""
    return name_of(node) in ("rsub", "sub") and len(operands(node)) == 1


def _mixes_data(product: fx.Node) -> bool:
    """Tells whether both factors are data; a parameter may be seen as data's view."""
    factors = [arg for arg in product.args if isinstance(arg, fx.Node)]
    return len(factors) > 1 and all(is_data(factor) for factor in factors)
