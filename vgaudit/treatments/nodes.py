"""Nodes of a recorded graph: what they call, where, and on what."""

from __future__ import annotations

import math

from torch import fx

from vgaudit.treatments.recorded import Act

CONVOLUTIONS = frozenset(f"conv{n}d" for n in (1, 2, 3))
TRANSPOSED = frozenset(f"conv_transpose{n}d" for n in (1, 2, 3))
WEIGHTED = frozenset({"linear"}) | CONVOLUTIONS | TRANSPOSED
"""Functions that take input, weight and bias."""

NORMS = frozenset(
    {"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"}
)
DROPOUTS = frozenset(
    f"{kind}dropout{suffix}"
    for kind in ("", "alpha_", "feature_", "feature_alpha_")
    for suffix in ("", "1d", "2d", "3d")
)
RESHAPES = frozenset(
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
POOLS = frozenset(
    f"{kind}_pool{n}d"
    for kind in ("max", "avg", "adaptive_avg", "adaptive_max")
    for n in (1, 2, 3)
)
TRANSPOSES = frozenset({"T", "mT", "t", "transpose", "swapaxes"})
PARTS = frozenset({"chunk", "split", "getitem", "unbind", "select", "narrow"})
MERGES = frozenset({"add", "sub", "cat", "concat", "stack", "sum", "iadd", "rsub"})
PRODUCTS = frozenset({"mul", "imul", "rmul", "multiply"})
QUOTIENTS = frozenset({"div", "truediv", "itruediv", "divide", "true_divide"})

MATRIX_PRODUCTS = frozenset(
    {"matmul", "rmatmul", "mm", "addmm", "bmm", "einsum", "baddbmm"}
)

GROUPED = frozenset({"grouped_mm", "scaled_grouped_mm"})


ATTENTION = "multi_head_attention_forward"
"""torch's fused attention: it reads the weight of its output projection itself."""
ATTENTION_WEIGHT, ATTENTION_BIAS = 11, 12
"""Where that weight and its bias stand among the arguments."""


def name_of(node: fx.Node) -> str:
    """Returns the bare name of the function that a node calls.

    An operation of an exported program, ``aten.linear.default``, is ``linear`` too.
    """
    if node.op != "call_function":
        return node.op
    owner = getattr(node.target, "__self__", None)
    name = str(getattr(node.target, "__name__", node.target))
    if name == "__get__" and owner is not None:
        name = str(getattr(owner, "__name__", name))
    return name.partition(".")[0].strip("_")


def act_of(node: fx.Node) -> Act | None:
    """Returns the activation that a node computes, if it is one."""
    found = node.meta.get("act")
    assert found is None or isinstance(found, Act)
    return found


def path_of(node: fx.Node) -> str:
    """Returns the module in which a node ran."""
    return str(node.meta.get("path", ""))


def operands(node: fx.Node) -> list[fx.Node]:
    """Returns the arguments of an operation that are nodes."""
    return [arg for arg in node.args if isinstance(arg, fx.Node)]


def first_operand(node: fx.Node) -> fx.Node | None:
    """Returns what flows into a node: of ``addmm`` not the bias, but the data."""
    found = operands(node)
    if name_of(node) in ("addmm", "baddbmm"):
        found = found[-2:]
    return found[0] if found else None


def factor_of(node: fx.Node) -> float | None:
    """Returns the number that an operation multiplies data with, if it is one."""
    name = name_of(node)
    if name in ("neg", "negative"):
        return -1.0
    if name not in PRODUCTS | QUOTIENTS or len(operands(node)) != 1:
        return None
    if len(node.args) != 2 or node.kwargs or not isinstance(node.args[1], (int, float)):
        return None
    number = float(node.args[1])
    if not math.isfinite(number) or number == 0.0:
        return None
    return number if name in PRODUCTS else 1.0 / number


def is_data(node: fx.Node) -> bool:
    """Tells what is computed from the model's input, from views of parameters."""
    for _ in range(6):
        if node.op == "get_attr":
            return False
        before = first_operand(node)
        if node.op == "placeholder" or before is None:
            return node.op == "placeholder"
        if name_of(node) not in RESHAPES:
            return True
        node = before
    return True


def is_parameter(node: fx.Node) -> bool:
    """Tells a parameter or a view of one."""
    return not is_data(node) and node.op != "placeholder"
