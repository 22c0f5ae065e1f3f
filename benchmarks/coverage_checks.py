"""What ``coverage.py`` tries on one model, each check by itself.

A check that fails leaves its reason in the record, and the others go on.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from coverage_models import Entry, build
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vgaudit.conversion import ConvertOptions
from vgaudit.data import open_batches
from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRewrite, VgauditError
from vgaudit.job import DataOptions, ProbeOptions
from vgaudit.treatments import Treated, load, running, save, treat
from vgaudit.treatments.nodes import act_of
from vgaudit.treatments.recorded import Act, record
from vgaudit.treatments.source import locate

Record = dict[str, Any]
Say = Callable[[Record], None]

NATURE = (
    "an output activation",
    "a gate",
    "a soft cap",
    "it acts on",
    "the other parts go elsewhere",
    "another activation",
    "several layers feed it",
    "a product feeds it",
    "a product of data",
    "its scale cancels",
    "no layer feeds it",
    "the layer's output is also used elsewhere",
    "feeds it, which is no Linear or convolution",
    "is also used where no activation follows",
    "feeds different activations",
)
"""Reasons that lie in the architecture: there is no layer to rotate."""

HOPELESS = (
    "an output activation",
    "a gate",
    "a soft cap",
    "has parameters or randomness of its own",
)
"""Reasons for which an activation is not to be replaced."""

_KINDS = (
    "relu",
    "sigmoid",
    "tanh",
    "gelu",
    "silu",
    "mish",
    "elu",
    "leaky_relu",
    "hardswish",
    "hardsigmoid",
    "hardtanh",
    "softplus",
    "log_sigmoid_forward",
    "_prelu_kernel",
    "rrelu_with_noise",
)
_OPERATIONS = frozenset(f"{kind}{mark}" for kind in _KINDS for mark in ("", "_"))


class Counted(TorchDispatchMode):
    """Counts the activation kernels that run, whatever calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = func.__name__.partition(".")[0]
        if name in _OPERATIONS and args[0].is_floating_point():
            self.seen[name.rstrip("_")] += 1
        return func(*args, **(kwargs or {}))


def check(entry: Entry, say: Say) -> None:
    """Runs every check on a model; ``say`` takes what is known after each."""
    line: Record = {"name": entry.name, "part": entry.part}
    started = time.perf_counter()
    try:
        model, batch, side = prepared(entry, line)
    except VgauditError as error:
        say({**line, "built": f"{error.message} ({error.hint})"})
        return
    except Exception as error:
        say({**line, "built": _named(error)})
        return
    line["built"] = "yes"

    def again() -> nn.Module:
        return build(entry, side).module

    steps: dict[str, Callable[[], Any]] = {
        "scan": lambda: scanned(model, batch),
        "fx": lambda: traced(model, batch),
        "activations": lambda: activations(model, batch),
        "ar": lambda: converted(model, batch, "ar", again),
        "adact": lambda: converted(model, batch, "adact", again),
    }
    for name, step in steps.items():
        line["at"] = name
        say(line)
        before = time.perf_counter()
        try:
            line[name] = step()
        except VgauditError as error:
            line[name] = {"refused": error.message}
        except Exception as error:
            line[name] = {"failed": _named(error)}
        line[name]["seconds"] = round(time.perf_counter() - before, 1)
    del line["at"]
    line["seconds"] = round(time.perf_counter() - started, 1)
    say(line)


def _named(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300] if text else ''}"


def prepared(entry: Entry, line: Record) -> tuple[nn.Module, Batch, int]:
    """Returns a model with two samples of made-up input, as small as it takes them."""
    last: Exception | None = None
    for side in entry.sides:
        built = build(entry, side)
        line["parameters"] = sum(p.numel() for p in built.module.parameters())
        try:
            options = DataOptions(batches=1, batch_size=2, inputs=entry.inputs)
            opened = open_batches(built.module, options, built.hint)
            batch = next(iter(opened))
            running.outputs(built.module, [batch], "train")
        except Exception as error:
            last = error
            continue
        line["input"] = opened.facts.spec
        return built.module, batch, side
    assert last is not None
    raise last


def scanned(model: nn.Module, batch: Batch) -> Record:
    """Measures the model."""
    from vgaudit.probe import probe

    flow = probe(model, [batch], loss=None, options=ProbeOptions())
    return {
        "attenuation": flow.attenuation.value if flow.attenuation else None,
        "weight_layers": flow.weight_layers,
        "not_measured": [item.path for item in flow.not_measured],
    }


def traced(model: nn.Module, batch: Batch) -> Record:
    """Traces the model by torch.fx, and compares outputs in train and eval mode."""
    from vgaudit.treatments.traced import trace

    found = trace(model, [batch])
    return {"equal": True, "leaves": list(found.leaves)}


def activations(model: nn.Module, batch: Batch) -> Record:
    """Counts activations in the recorded graph, and kernels that ran, beside it."""
    counted = Counted()
    with running.observing(model, "train"), counted:
        running.call(model, batch)
    graph = record(model, batch)
    acts = [act for act in map(act_of, graph.nodes) if act is not None]
    without: Counter[str] = Counter()
    for act in acts:
        reason = handle(model, act)
        if reason:
            without[reason] += 1
    return {
        "nodes": len(graph.nodes),
        "found": len(acts),
        "kernels": counted.seen.total(),
        "kinds": dict(Counter(act.site.kind for act in acts)),
        "no_handle": dict(without),
    }


def handle(model: nn.Module, act: Act) -> str:
    """Returns why an activation call has no place where it could be replaced."""
    if act.caller is None:
        if not act.own:
            return f"{act.site.kind} at {act.site.key}: no method calls it"
        try:
            model.get_submodule(act.site.path)
        except AttributeError:
            return "its module is not registered"
        return ""
    try:
        locate(model.get_submodule(act.caller.path), act.caller)
    except CannotRewrite as error:
        return error.message
    return ""


def converted(
    model: nn.Module, batch: Batch, to: Any, again: Callable[[], nn.Module]
) -> Record:
    """Converts with ``preserve``, takes a training step, saves and loads."""
    recurrent = any(isinstance(m, nn.RNNBase) for m in model.modules())
    options = ConvertOptions(
        to=to, preserve=True, normed=True, unfuse=to == "adact" and recurrent
    )
    treated = treat(model, [batch], options)
    legitimate = NATURE if to == "ar" else HOPELESS
    left = [r.reason for r in treated.refusals]
    found: Record = {
        "edits": len(treated.edits),
        "preserved": treated.preserved,
        "by_nature": sum(any(n in r for n in legitimate) for r in left),
        "not_converted": dict(
            Counter(r for r in left if not any(n in r for n in legitimate))
        ),
    }
    found["reloaded"] = reloaded(treated, batch, again)
    found["trains"] = trains(treated, batch, to)
    return found


def trains(treated: Treated, batch: Batch, to: str) -> str:
    """Takes a step; every new parameter must get a finite gradient."""
    model = treated.model
    names = ("ar_limit",) if to == "ar" else ("values",)
    new = {n: p for n, p in model.named_parameters() if n.endswith(names)}
    model.train()
    outputs = running.call(model, batch)
    loss = torch.stack([t.float().square().mean() for t in floats(outputs)]).sum()
    loss.backward()
    lacking = [name for name, p in new.items() if p.grad is None]
    if lacking:
        return f"{len(lacking)} of {len(new)} get no gradient, {lacking[0]} first"
    wrong = [n for n, p in new.items() if not bool(p.grad.isfinite().all())]
    if wrong:
        return f"{len(wrong)} of {len(new)} gradients are not finite, {wrong[0]} first"
    torch.optim.SGD(new.values(), lr=1e-3).step()
    return "yes"


def floats(value: Any) -> list[Tensor]:
    from vgaudit.probe.tensors import tensors_in

    found = [t for t in tensors_in(value) if t.is_floating_point() and t.requires_grad]
    if not found:
        raise RuntimeError("no output has a gradient")
    return found


def reloaded(treated: Treated, batch: Batch, fresh: Callable[[], nn.Module]) -> str:
    """Writes the model, reads it into a fresh architecture, compares outputs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "converted.safetensors"
        try:
            save(treated.model, path)
            again = load(path, arch=fresh)
        except VgauditError as error:
            return error.message
    pair = [running.outputs(m, [batch], "eval") for m in (treated.model, again)]
    diff = running.largest_difference(*pair)
    return "yes" if diff == 0 else f"differs by {diff:.3g}"
