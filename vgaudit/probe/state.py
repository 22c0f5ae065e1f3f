"""Keeping the user's model bit-equal while it is measured.

Clones stand in for its parameters and buffers, in the backward pass too (where
activation checkpointing runs modules again, after a ``functional_call`` would
have put the originals back), so weights, buffers and ``.grad`` are never touched.
What else a forward pass may change (modes, Python attributes, random states) is
noted before and put back after, also when the forward raises.
"""

from __future__ import annotations

import contextlib
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import DisableTorchFunction

from vgaudit.data.attributes import Attributes
from vgaudit.distributed.sharding import local, whole_norms
from vgaudit.errors import CannotRun
from vgaudit.probe import norms
from vgaudit.probe.clones import PAGE, clone_of
from vgaudit.probe.naming import class_of
from vgaudit.probe.parameters import Gradients, ParameterFigures

_WRAPPERS = ("DataParallel", "DistributedDataParallel", "OptimizedModule")
# Other libraries put the model's name in front: SwinDropPath, StableDropout.
_DROPS = re.compile(r"Dropout|Drop(Path|Block|Connect)|StochasticDepth")


def unwrap(model: nn.Module, *, live: bool = False) -> nn.Module:
    """Returns the module inside ``DataParallel``, DDP or ``torch.compile``.

    Args:
        model: as the user has it.
        live: it is watched where it runs, so FSDP2 may have sharded it.

    Raises:
        CannotRun: for FSDP, whose parameters are sharded, and for TorchScript.
    """
    while type(model).__name__ in _WRAPPERS:
        compiled = getattr(model, "_orig_mod", None)
        inner = model.module if compiled is None else compiled
        assert isinstance(inner, nn.Module)
        model = inner
    known = class_of(model) if live else type(model)
    if known.__name__.startswith(("FullyShardedDataParallel", "FSDP")):
        raise CannotRun(
            "the model is wrapped in FSDP, and its parameters are sharded",
            hint="scan the model before wrapping it",
        )
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise CannotRun(
                f"{name or 'the model'} is TorchScript, whose calls cannot be watched",
                hint="pass the eager module that was scripted",
            )
    return model


@contextlib.contextmanager
def untouched(model: nn.Module, device: torch.device | None = None) -> Iterator[None]:
    """Puts module attributes and random states back when the block ends.

    Tensors are protected by the clones that the model runs on.

    Args:
        model: the module.
        device: where it will run, if not where its weights are.
    """
    before = Attributes(model.modules())
    with _random_states(_devices(model, device)):
        try:
            yield
        finally:
            before.restore()


@contextlib.contextmanager
def aside(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Runs a leaf module to look at it, as if it had not run."""
    with untouched(module, device):
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.clone()
        yield


def _devices(model: nn.Module, device: torch.device | None) -> list[torch.device]:
    found = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    if device is not None:
        found.add(device)
    return sorted((place for place in found if place.type == "cuda"), key=str)


@contextlib.contextmanager
def _random_states(devices: list[torch.device]) -> Iterator[None]:
    """Restores the random states of torch, Python and numpy."""
    python = random.getstate()
    numpy = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy else None
    indices = [device.index or 0 for device in devices]
    with torch.random.fork_rng(indices):
        try:
            yield
        finally:
            random.setstate(python)
            if numpy and numpy_state is not None:
                numpy.random.set_state(numpy_state)


def prepare_mode(model: nn.Module, mode: str) -> None:
    """Sets train or eval mode; dropout of every kind stays off.

    Only plain attributes change, and ``untouched`` restores them.
    """
    for module in model.modules():
        drops = _DROPS.search(type(module).__name__) is not None
        module.training = mode == "train" and not drops
        if isinstance(module, nn.RNNBase):
            module.dropout = 0.0


def seed_all(seed: int, device: torch.device) -> None:
    """Seeds all random numbers that a forward pass may draw on ``device``."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy:
        numpy.random.seed(seed % 2**32)


@dataclass(slots=True)
class Weights:
    """The parameters of a model, as the measurement needs to know them.

    Attributes:
        parameters: name → parameter, each distinct one once.
        tied: name → further names of the same parameter.
        norms: name → L2 norm of its values.
        types: module path → class name.
    """

    parameters: dict[str, nn.Parameter]
    tied: dict[str, list[str]]
    norms: dict[str, float]
    types: dict[str, str]

    def forget_values(self) -> None:
        """Keeps names, shapes and figures alone, so that the memory can be used."""
        for name, parameter in self.parameters.items():
            if type(parameter) is nn.Parameter:
                self.parameters[name] = nn.Parameter(
                    torch.empty_like(parameter, device="meta"),
                    requires_grad=parameter.requires_grad,
                )


def weights_of(model: nn.Module) -> Weights:
    """Returns the parameters of a live model."""
    tied: dict[str, list[str]] = {}
    first: dict[int, str] = {}
    parameters: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in first:
            tied.setdefault(first[id(parameter)], []).append(name)
        else:
            first[id(parameter)] = name
            parameters[name] = parameter
    held = [norms.norm(local(p.detach())) for p in parameters.values()]
    figures = whole_norms(norms.read(held), list(parameters.values()))
    return Weights(
        parameters=parameters,
        tied=tied,
        norms=dict(zip(parameters, figures, strict=True)),
        types={name: class_of(m).__name__ for name, m in model.named_modules()},
    )


class Twin:
    """Clones of all tensors of a model, on one device and in one type.

    Attributes:
        state: name → clone; tied tensors share a clone.
        weights: the cloned parameters, with the norms that the user's have.
        quantized: some layers are quantised: their weights are no parameters.
        holding: gradients are kept until the backward pass has ended, because some
            come in several parts.
        sharded: the parameters are spread over ranks, which take each step together.
    """

    sharded = False

    def __init__(
        self,
        model: nn.Module,
        *,
        device: torch.device,
        dtype: torch.dtype | None,
        unfreeze: bool = False,
    ) -> None:
        self.state: dict[str, Tensor] = {}
        self.holding = False
        self._listener: Gradients | None = None
        self.weights = weights_of(model)
        self.quantized = any(
            ".quantized" in type(module).__module__ for module in model.modules()
        )
        clones: dict[int, Tensor] = {}
        for name, tensor in _named_tensors(model):
            if id(tensor) not in clones:
                clones[id(tensor)] = clone_of(
                    tensor, device=device, dtype=dtype, unfreeze=unfreeze
                )
            self.state[name] = clones[id(tensor)]
        for name in self.weights.parameters:
            clone = self.state[name]
            assert isinstance(clone, nn.Parameter)
            self.weights.parameters[name] = clone

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The cloned parameters by name, each distinct one once."""
        return self.weights.parameters

    @contextlib.contextmanager
    def standing_in(self, model: nn.Module) -> Iterator[None]:
        """Puts the clones in place of the model's own tensors for a while."""
        replaced: list[tuple[dict[str, Any], str, Tensor]] = []
        hooks = [
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                self._arrived(name)
            )
            for name, parameter in self.parameters.items()
            if parameter.requires_grad and _worth_letting_go(parameter)
        ]
        try:
            for path, module in model.named_modules(remove_duplicate=False):
                prefix = f"{path}." if path else ""
                for table in (module._parameters, module._buffers, module.__dict__):
                    for name, tensor in list(table.items()):
                        clone = self.state.get(prefix + name)
                        if isinstance(tensor, Tensor) and clone is not None:
                            replaced.append((table, name, tensor))
                            table[name] = clone
            yield
        finally:
            for table, name, tensor in reversed(replaced):
                table[name] = tensor
            for hook in hooks:
                hook.remove()

    def _arrived(self, name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            listener = self._listener
            if listener is None or self.holding:
                return
            with DisableTorchFunction():
                gradient = parameter.grad
                # On a device, what is not finite is counted once the norms are read.
                if gradient is not None and gradient.is_cpu:
                    listener.take(name, gradient)
                    parameter.grad = None

        return hook

    @contextlib.contextmanager
    def shielding(self, leaves: Iterable[Tensor]) -> Iterator[None]:
        """Keeps the gradients of leaves that are not cloned: weights of no module."""
        cloned = {id(parameter) for parameter in self.parameters.values()}
        others = [(leaf, leaf.grad) for leaf in leaves if id(leaf) not in cloned]
        for leaf, _ in others:
            leaf.grad = None
        try:
            yield
        finally:
            for leaf, gradient in others:
                leaf.grad = gradient

    def zero_grad(self) -> None:
        """Forgets the gradients of the last batch."""
        for parameter in self.parameters.values():
            parameter.grad = None

    @contextlib.contextmanager
    def listening(self, *, zeros: bool) -> Iterator[Gradients]:
        """Looks at each gradient when it is complete, and lets go of it.

        So a pass has room for one gradient, not for those of all weights, and looks
        at it while it is in the cache.

        Args:
            zeros: count the exact zeros too, which costs more than the norm.
        """
        self._listener = gradients = Gradients(zeros=zeros)
        try:
            yield gradients
        finally:
            self._listener = None

    def figures(self, gradients: Gradients) -> dict[str, ParameterFigures]:
        """Returns the gradient of every parameter that got one.

        Args:
            gradients: those that were listened to.
        """
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                gradients.keep(name, parameter.grad)
        found = gradients.read()
        return {name: found[name] for name in self.parameters if name in found}

    @torch.no_grad()
    def fill(self, name: str, values: Tensor) -> None:
        """Gives a weight other values."""
        self.parameters[name].copy_(values)


def _worth_letting_go(parameter: Tensor) -> bool:
    """Tells whether a gradient takes enough memory to be looked at on its own.

    Many small ones are looked at in less time one after another.
    """
    return parameter.numel() * parameter.element_size() >= PAGE


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)
    # Tensors that are plain attributes: no state, and a forward may change them.
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for name, value in module.__dict__.items():
            if isinstance(value, Tensor):
                yield prefix + name, value


@contextlib.contextmanager
def eager(model: nn.Module) -> Iterator[None]:
    """Runs what is compiled eagerly: hooks see nothing inside of it.

    A compiled function is not to be found in the model; to compile it, its author
    has loaded the compiler.
    """
    compiled = "torch._dynamo" in sys.modules or any(
        type(module).__name__ == "OptimizedModule"
        or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )
    if not compiled:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def uncalibrated(model: nn.Module, mode: str) -> tuple[str, ...]:
    """Returns the normalisation layers whose running statistics mean nothing.

    In eval mode they are used as they were initialised: never updated.
    """
    if mode != "eval":
        return ()
    found = []
    for name, module in model.named_modules():
        norm = isinstance(module, nn.modules.batchnorm._NormBase)
        if not norm or not module.track_running_stats or module.running_mean is None:
            continue
        mean, var = module.running_mean, module.running_var
        if bool((mean == 0).all()) and var is not None and bool((var == 1).all()):
            found.append(name)
    return tuple(found)
