"""Which tier of trust a pickle needs, judged by the names it asks for.

T0 is what ``torch.load(weights_only=True)`` accepts by itself. T1 adds the
module classes of the installed torch.nn, torchvision and timm, and a fixed list
of functions without side effects. T2 adds module classes of code that the user
names. The rest is T3. There is no way from one tier to the next but an option.
"""

from __future__ import annotations

import importlib
import io
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.serialization import get_unsafe_globals_in_checkpoint

from vgaudit.loading.pickle_facts import PickleFacts

PURE: dict[str, tuple[str, ...]] = {
    "torch.nn.functional": (
        *("celu", "elu", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish"),
        *("hardtanh", "leaky_relu", "log_softmax", "logsigmoid", "mish", "relu"),
        *("relu6", "relu_", "rrelu", "selu", "sigmoid", "silu", "softmax"),
        *("softmin", "softplus", "softshrink", "softsign", "tanh", "tanhshrink"),
        *("threshold", "cross_entropy", "mse_loss", "l1_loss", "nll_loss"),
        *("binary_cross_entropy", "binary_cross_entropy_with_logits"),
    ),
    "torch._C._nn": (
        *("elu_", "gelu", "hardtanh_", "leaky_relu_", "log_sigmoid", "softplus"),
        *("softshrink", "scaled_dot_product_attention"),
    ),
    "torch.nn.modules.module": ("_WrappedHook",),
    "torch.nn.utils.weight_norm": ("WeightNorm",),
    "torch.nn.utils.spectral_norm": (
        "SpectralNorm",
        "SpectralNormLoadStateDictPreHook",
        "SpectralNormStateDictHook",
    ),
    "torchvision.ops.boxes": ("box_iou",),
    "torchvision.models.optical_flow.raft": ("_pass_through_h", "CorrBlock"),
    "torchvision.models.detection._utils": (
        *("BalancedPositiveNegativeSampler", "BoxCoder", "BoxLinearCoder"),
        *("Matcher", "SSDMatcher"),
    ),
    "timm.layers.activations": ("gelu", "swish", "mish", "sigmoid", "tanh"),
    "functools": ("partial",),
    "argparse": ("Namespace",),
    "pathlib": ("PosixPath", "PurePosixPath", "PureWindowsPath"),
    "numpy": ("dtype",),
    "numpy.core.multiarray": ("scalar",),
    "numpy._core.multiarray": ("scalar",),
}
"""Functions and plain classes without side effects, by module.

``functools.partial`` only binds what is itself on a list. ``getattr`` is not
here and never will be: it turns every name into every other.
"""

PACKAGES: dict[str, tuple[str, ...]] = {
    "torch": ("torch.nn.",),
    "torchvision": ("torchvision.models.", "torchvision.ops."),
    "timm": ("timm.models.", "timm.layers."),
}
"""Packages whose module classes are known, and where in them."""

CALLABLE_AT_LOAD = frozenset(
    {"functools.partial", "numpy.dtype", "numpy.core.multiarray.scalar"}
    | {"numpy._core.multiarray.scalar", "torch.nn.parameter.Parameter"}
    | {f"pathlib.{name}" for name in PURE["pathlib"]}
)
"""Names of T1 that a pickle may call; a module is made empty and filled."""

TORCH_PROTOCOL = 2

FORBIDDEN_BASES = ("GraphModule", "ScriptModule", "RecursiveScriptModule")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a pickle needs.

    Attributes:
        tier: ``T0``, ``T1`` or ``T3``.
        unsafe: names that no known class or function answers to.
        reasons: why else T3 is needed.
        allowed: objects for ``torch.serialization.safe_globals``, with names.
    """

    tier: str
    unsafe: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    allowed: tuple[tuple[Any, str], ...] = ()


def judge(facts: PickleFacts) -> Verdict:
    """Returns the tier that a pickle needs, importing nothing it names.

    Of torchvision and timm the package itself is imported, and only where the
    pickle asks for one of its classes.
    """
    reasons = []
    if facts.protocol > TORCH_PROTOCOL:
        reasons.append(
            f"pickle protocol {facts.protocol}, where torch reads {TORCH_PROTOCOL}"
        )
    elif facts.foreign_opcodes:
        names = ", ".join(sorted(facts.foreign_opcodes)[:5])
        reasons.append(f"opcodes that torch.save never writes: {names}")
    needed = unknown_to_torch(facts.globals)
    if "module" in facts.persistent:
        reasons.append("a whole module in the legacy format, with its source code")
    allowed: list[tuple[Any, str]] = []
    unsafe: list[str] = []
    for name in needed:
        found = known(name)
        if found is None:
            unsafe.append(name)
        else:
            allowed.append((found, name))
    if "numpy.dtype" in needed:
        allowed += numpy_types()
    reasons += called_classes(facts, [name for _, name in allowed])
    tier = "T3" if unsafe or reasons else "T1" if allowed else "T0"
    return Verdict(
        tier=tier,
        unsafe=tuple(unsafe),
        reasons=tuple(reasons),
        allowed=tuple(allowed),
    )


def called_classes(facts: PickleFacts, allowed: Iterable[str]) -> list[str]:
    """Returns a reason for each known class that the pickle calls.

    An honest pickle makes an empty module and fills in its state; one that calls
    the constructor could ask it for a terabyte.
    """
    return [
        f"it calls {name} instead of restoring it"
        for name in allowed
        if name in facts.called and name not in CALLABLE_AT_LOAD
    ]


def unknown_to_torch(names: Iterable[str]) -> list[str]:
    """Returns the names that ``weights_only=True`` refuses, in their order.

    Asked through torch's own public function, with an archive whose pickle
    names nothing else, so that the answer is the installed version's.
    """
    # A name with a line end cannot be asked for, and is no honest one.
    askable = [n for n in names if "." in n and n.isascii() and n.isprintable()]
    program = b"\x80\x02" + b"".join(
        b"c%s\n%s\n" % (module.encode(), name.encode())
        for module, _, name in (n.rpartition(".") for n in askable)
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("names/data.pkl", program + b"N.")
        archive.writestr("names/version", b"3\n")
    buffer.seek(0)
    refused = set(get_unsafe_globals_in_checkpoint(buffer))
    return [name for name in names if name not in askable or name in refused]


def known(full: str) -> Any | None:
    """Returns the known class or pure function of that name, else None."""
    module_name, _, name = full.rpartition(".")
    if name in PURE.get(module_name, ()):
        return find(module_name, name)
    package = module_name.partition(".")[0]
    if not module_name.startswith(PACKAGES.get(package, ("\0",))):
        return None
    found = find(module_name, name)
    return found if is_plain_module_class(found) else None


def find(module_name: str, name: str) -> Any | None:
    """Returns an object of an installed package, or None."""
    package = module_name.partition(".")[0]
    try:
        importlib.import_module(
            "torchvision.models" if package == "torchvision" else package
        )
    except (ImportError, RuntimeError, OSError):
        return None
    module = sys.modules.get(module_name)
    return None if module is None else vars(module).get(name)


def numpy_types() -> list[tuple[Any, str]]:
    """Returns the classes of NumPy's dtypes, which a pickled dtype is one of."""
    types = importlib.import_module("numpy").dtypes
    return [(getattr(types, name), f"numpy.dtypes.{name}") for name in types.__all__]


def is_plain_module_class(found: object) -> bool:
    """Returns whether it is an ``nn.Module`` class without code of its own to load.

    GraphModule compiles source text from its state, ScriptModule bytecode.
    """
    return (
        isinstance(found, type)
        and issubclass(found, nn.Module)
        and not any(base.__name__ in FORBIDDEN_BASES for base in found.__mro__)
        and not issubclass(found, nn.parallel.DistributedDataParallel)
        and "__reduce__" not in vars(found)
    )


def quantisation(names: Iterable[str]) -> str | None:
    """Returns the first name that belongs to quantisation, if any does."""
    starts = ("torch.ao.", "torch._utils._rebuild_qtensor", "torch.nn.quantized.")
    return next((name for name in names if name.startswith(starts)), None)
