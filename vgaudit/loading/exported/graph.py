"""The graph of an exported program: operators of aten, and plain arguments."""

from __future__ import annotations

import json
import re
from typing import Any

from vgaudit.loading.exported.shapes import SYMBOL, Refused, check_expression
from vgaudit.loading.wording import shorten

DEEPEST = 200
OPERATORS = re.compile(r"torch\.ops\.(aten|prims?)\.\w+\.\w+")
FILE_OPERATORS = re.compile(r"torch\.ops\.\w+\.\w*(file|save|load|print)\w*\.")
BLOCKS = re.compile(r"torch\.ops\.higher_order\.wrap_with_(set_grad_enabled|autocast)")
ARITHMETIC = re.compile(
    r"(_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge"
    r"|and_|or_|not_|getitem)|torch\.sym_(int|float|max|min|not|ite|sum|sqrt)"
    r"|math\.(ceil|floor|trunc|sqrt))"
)
CONTAINERS = frozenset(
    {
        *("builtins.tuple", "builtins.list", "builtins.dict"),
        *("collections.OrderedDict", "collections.deque"),
    }
)


def clean_program(program: Any) -> bool:
    """Checks a program and empties what torch would evaluate, in place.

    Returns:
        Whether batch norm or dropout was exported switched to evaluation.

    Raises:
        Refused: names the part that could run.
    """
    program["guards_code"] = []
    module = program["graph_module"]
    module["metadata"] = {}
    module["treespec_namedtuple_fields"] = {}
    for symbol in program["range_constraints"]:
        if not SYMBOL.fullmatch(symbol):
            raise Refused(f"a dimension is named {shorten(symbol)}")
    for call in module["module_call_graph"]:
        _check_signature(call.get("signature"))
    return _clean(program)


def _clean(root: Any) -> bool:
    """Walks over all nodes and shape expressions, however deep blocks are nested."""
    eval_mode = False
    rest: list[tuple[Any, int]] = [(root, 0)]
    while rest:
        value, depth = rest.pop()
        if depth > DEEPEST:
            raise Refused(f"nested more than {DEEPEST} deep")
        if isinstance(value, list):
            rest += [(item, depth + 1) for item in value]
            continue
        if not isinstance(value, dict):
            continue
        if "expr_str" in value:
            check_expression(value["expr_str"])
        if "target" in value and "inputs" in value:
            eval_mode |= _clean_node(value)
        if "device" in value and "strides" in value:
            value["device"] = {"type": "cpu", "index": None}
        for kind in ("as_custom_obj", "custom_obj", "as_operator", "opaque_obj"):
            if value.get(kind) is not None:
                raise Refused(f"an argument that is no tensor or number ({kind})")
        rest += [(item, depth + 1) for item in value.values()]
    return eval_mode


def _clean_node(node: Any) -> bool:
    """Checks a node's operator; returns whether it is switched to evaluation."""
    target = node["target"]
    known = any(
        kind.fullmatch(target) for kind in (OPERATORS, BLOCKS, ARITHMETIC)
    ) and not FILE_OPERATORS.match(target)
    if not known:
        raise Refused(f"the operator {shorten(str(target))} is none of aten's")
    stack = node["metadata"].get("nn_module_stack")
    node["metadata"] = {"nn_module_stack": stack} if stack else {}
    switches = {
        entry["name"]: entry["arg"].get("as_bool")
        for entry in node["inputs"]
        if isinstance(entry.get("arg"), dict)
    }
    if ".aten." in target and ("batch_norm" in target or "dropout" in target):
        off = False in (switches.get("training"), switches.get("train"))
        return off or "no_training" in target
    return False


def _check_signature(signature: Any) -> None:
    """Refuses arguments and outputs in containers that name a class to import."""
    if signature is None:
        return
    for key in ("in_spec", "out_spec"):
        rest = json.loads(signature[key])[1:]
        while rest:
            node = rest.pop()
            kind, words = node["type"], node["context"]
            if kind is not None and kind not in CONTAINERS:
                raise Refused(f"an argument or output of class {shorten(str(kind))}")
            content = json.loads(words) if words else None
            keys = content if isinstance(content, list) else [content]
            if not all(key is None or isinstance(key, (str, int)) for key in keys):
                raise Refused(f"a container with the keys {shorten(str(words))}")
            rest += node["children_spec"]
