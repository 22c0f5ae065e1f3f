"""The parameters that operations of a recorded graph multiply with."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import fx

from vgaudit.treatments.nodes import (
    ATTENTION,
    ATTENTION_WEIGHT,
    DROPOUTS,
    MATRIX_PRODUCTS,
    NORMS,
    PARTS,
    RESHAPES,
    TRANSPOSES,
    first_operand,
    is_parameter,
    name_of,
    operands,
    path_of,
)


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
    if len(factors) != 2 or is_parameter(factors[0]):
        return None
    node, turns = factors[1], 0
    while node.op == "call_function" and name_of(node) in TRANSPOSES:
        turns += 1
        before = first_operand(node)
        if before is None:
            return None
        node = before
    if node.op != "get_attr" or node.target == "constant":
        return None
    return Weight(str(node.target), rows=turns % 2 == 1)


def declared_in(product: fx.Node, declared: Collection[str]) -> str | None:
    """Returns the parameter of a product of any kind whose axis the user declared.

    It may be one of a stack (``experts[index]``), or a view.
    """
    if name_of(product) not in MATRIX_PRODUCTS | {"linear"}:
        return None
    for operand in operands(product):
        node = operand
        while node.op == "call_function" and operands(node):
            if name_of(node) not in RESHAPES | PARTS | TRANSPOSES:
                break
            node = operands(node)[0]
        if node.op == "get_attr" and node.target in declared:
            return str(node.target)
    return None


def weight_name(source: fx.Node) -> str | None:
    """Returns the name of the parameter that a layer multiplies with."""
    product = weight_of(source)
    if product is not None:
        return product.name
    args = source.args
    place = ATTENTION_WEIGHT if name_of(source) == ATTENTION else 1
    weight = args[place] if len(args) > place else source.kwargs.get("weight")
    if isinstance(weight, fx.Node) and weight.op == "get_attr":
        return str(weight.target)
    return None


_STANDARDISING = NORMS | {"var_mean", "std_mean", "var", "std"}


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
        part = part or name_of(place) in PARTS
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
        if name not in DROPOUTS and name not in ("flatten", "view", "reshape"):
            break
    return ""
