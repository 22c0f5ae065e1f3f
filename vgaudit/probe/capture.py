"""Watching a forward pass: which activation is called where, on which data.

A ``TorchFunctionMode`` sees every torch function, method and in-place
operation; global module hooks say inside which module it happens. Nothing is
replaced and no tensor is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.autograd.graph import Node
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from vgaudit.probe import activations, fused, hooked, operations, state, units
from vgaudit.probe.activations import Activation, Slope, by_autograd_of
from vgaudit.probe.callsite import caller
from vgaudit.probe.dropout import without_dropout
from vgaudit.probe.histograms import histogram
from vgaudit.probe.naming import class_of, name_of
from vgaudit.probe.observe import observe
from vgaudit.probe.provenance import Provenance
from vgaudit.probe.recording import Call, Habits, Recording, Site, Visit
from vgaudit.probe.tensors import tensors_in, wide


class Recorder(TorchFunctionMode):
    """Records one forward pass of ``model``; a context manager.

    Args:
        model: the module that will be called.
        samples: samples in the batch.
        habits: what the structure pass learned; None makes this one it: source
            lines, the call behind every node, and where the data enters.
        on_recompute: called with (path, node) when a module runs again during
            the backward pass (activation checkpointing).
        only: ``watch`` leaves dropout as it is; ``structure`` lists activations
            without measuring them.

    Attributes:
        histograms: set, to take one of the inputs of every activation.
        replays: set, to run fused recurrent kernels again step by step.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        samples: int,
        habits: Habits | None = None,
        on_recompute: Callable[[str, Node], None] | None = None,
        only: Literal["", "watch", "structure"] = "",
    ) -> None:
        super().__init__()
        self.recording = Recording()
        self.habits = habits or Habits()
        self.backward = False
        self.histograms = False
        self.samples = samples
        self._dropout_off = only != "watch"
        self._statistics = only != "structure"
        self._structure = habits is None
        self.replays = habits is None and only == ""
        self.on_recompute = on_recompute
        self._root = model
        self.provenance = Provenance(samples)
        self._names: dict[int, str] = {}
        for name, module in model.named_modules():
            self._names.setdefault(id(module), name)
        self._stack: list[tuple[nn.Module, str]] = []
        self._marks: list[tuple[int, int]] = []
        self._counts: Counter[tuple[str, str]] = Counter()
        self._handles: list[RemovableHandle] = []
        self._inside_unit = 0

    def __enter__(self) -> Recorder:
        if self._structure:
            self.provenance.add_all_of(self._root)
        self._handles = [
            register_module_forward_pre_hook(self._enter_module),
            register_module_forward_hook(self._leave_module, always_call=True),
        ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    def path(self, module: nn.Module) -> str:
        """Returns the qualified name; of a module made on the fly, its parent's."""
        known = self._names.get(id(module))
        if known is not None:
            return known
        parent = self._stack[-1][1] if self._stack else ""
        return f"{parent}.{type(module).__name__}".lstrip(".")

    # ------------------------------------------------------------ modules

    def enter_root(self, module: nn.Module, args: Any) -> None:
        """Notes a call of the root that began before the recorder was entered."""
        self._enter_module(module, args)

    def _enter_module(self, module: nn.Module, args: Any) -> None:
        path = self.path(module)
        self._stack.append((module, path))
        recording = self.recording
        self._marks.append((len(recording.sites), len(recording.observations)))
        if not self.backward:
            self.recording.calls_of[path] += 1
            self.recording.last_inputs[path] = _shapes(args)
            self._inside_unit += path in self.habits.units

    def _leave_module(self, module: nn.Module, args: Any, output: Any) -> None:
        while self._stack:
            top, path = self._stack.pop()
            mark = self._marks.pop()
            if not self.backward:
                self._inside_unit -= path in self.habits.units
            if top is module:
                self._left(module, path, args, output, mark)
                return

    def _left(
        self,
        module: nn.Module,
        path: str,
        args: Any,
        output: Any,
        mark: tuple[int, int],
    ) -> None:
        if self.backward:
            own = any(p is not None for p in module._parameters.values())
            wanted = own and isinstance(output, Tensor) and output.grad_fn is not None
            if wanted and self.on_recompute is not None:
                self.on_recompute(path, output.grad_fn)
        elif isinstance(output, Tensor) and len(args) == 1:
            if self._structure and units.may_be_activation(module):
                self._recognise(module, path, args[0], output, mark)
            if path in self.habits.units and not self._inside_unit:
                self._observe_unit(module, path, args[0], output)

    def _recognise(
        self,
        module: nn.Module,
        path: str,
        z: Any,
        output: Tensor,
        mark: tuple[int, int],
    ) -> None:
        """Finds out whether a user's own module is one activation as a whole."""
        if path in self.habits.units or not isinstance(z, Tensor):
            return
        recording = self.recording
        inside = list(recording.sites.values())[mark[0] :]
        if len(inside) == 1 and _is_all(inside[0], z, output):
            return
        with torch._C.DisableTorchFunction(), state.aside(module, z.device):
            try:
                found = self._found(module, z, output)
            except Exception as error:
                recording.unmeasured[path] = f"not recognised: {error}"
                return
        if found is not None:
            self.habits.units[path] = found
            del recording.observations[mark[1] :]
            for site in inside:
                del recording.sites[site.key]

    def _found(self, module: nn.Module, z: Tensor, out: Tensor) -> Activation | None:
        name = type(module).__name__
        if self._statistics:
            return units.recognise(name, module.forward, z, out)
        with unset_fake_temporarily():
            sample = units.sample_like(z)
            if sample is None or next(module.buffers(), None) is not None:
                return None
            return units.recognise(name, module.forward, sample, module.forward(sample))

    def _observe_unit(self, module: nn.Module, path: str, z: Any, out: Tensor) -> None:
        activation = self.habits.units[path]
        if isinstance(z, Tensor) and z.shape == out.shape and z is not out:
            site = self._site(path, activation.name, out.grad_fn, own=True)
            site.type, site.entry = class_of(module).__name__, operations.made_by(z)
            with state.aside(module, z.device):
                form = activation.slope or by_autograd_of(module.forward)
                self._observe(site, activation, (z.detach(), out), form)

    # ---------------------------------------------------------- functions

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Runs one torch function, dropout off, and records what it shows."""
        kwargs = kwargs or {}
        if self._dropout_off:
            args, kwargs = without_dropout(func, args, kwargs)
        if self.backward:
            return func(*args, **kwargs)
        activation = activations.canonical(func, args, kwargs)
        if activation is not None and "input" in kwargs:
            args, kwargs = activations.positional(args, kwargs)
        wanted = activation is not None and not self._inside_unit
        if wanted and args and isinstance(args[0], Tensor):
            assert activation is not None
            out = self._activation(activation, func, args, kwargs)
        else:
            out = func(*args, **kwargs)
        if self._structure:
            self._note(func, args, kwargs, out)
        elif self.replays:
            self._replay(func, args, out)
        return out

    def _activation(
        self,
        activation: Activation,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        given = args[0]
        if torch._C._functorch.is_functorch_wrapped_tensor(given):
            where = self._stack[-1][1] if self._stack else ""
            self.recording.unmeasured[f"{where} {activation.name}".lstrip()] = (
                "it runs inside torch.vmap or another transform of functions"
            )
            return func(*args, **kwargs)
        inplace = activations.is_inplace(func, kwargs, args)
        z = given.detach().clone() if inplace else given.detach()
        axis, entry = units.axis_of(given), operations.made_by(given)
        constant = self._structure and not self.provenance.is_data(given)
        out = func(*args, **kwargs)
        if not isinstance(out, Tensor) or out.shape != z.shape or z.numel() == 0:
            return out
        module, path = self._stack[-1] if self._stack else (None, "")
        own = module is not None and units.is_torch_activation(module)
        site = self._site(path, activation.name, out.grad_fn, own=own)
        site.entry = entry
        if own and module is not None:
            site.type = class_of(module).__name__
        if constant:
            self.habits.ignored.add(site.key)
        ignored = site.key in self.habits.ignored
        if self._structure:
            key = "" if ignored or not z.is_floating_point() else site.key
            visit = Visit(activation.name, key, axis)
            self.recording.visits.append((visit, out.grad_fn))
        if not ignored:
            call = activations.call_without_inplace(func, args, kwargs)
            form = activations.slope_of(activation, kwargs) or by_autograd_of(call)
            self._observe(site, activation, (z, out), form, axis=axis)
        return out

    def _observe(
        self,
        site: Site,
        activation: Activation,
        values: tuple[Tensor, Tensor],
        form: Slope,
        *,
        axis: int | None = None,
    ) -> None:
        z, out = values
        self.recording.sites[site.key] = site
        if not self._statistics:
            return
        if not z.is_floating_point():
            self.recording.unmeasured[site.key] = f"statistics of {z.dtype} values"
            return
        axis = units.axis_of(z) if axis is None else axis
        with torch.no_grad(), torch._C.DisableTorchFunction():
            z, out = wide(z), wide(out.detach())
            self.recording.observations.append(
                observe(
                    site.key,
                    activation,
                    (z, out, lambda: form(z, out)),
                    axis=axis,
                    samples=self.samples,
                )
            )
            if self.histograms:
                taken = histogram(activation, z, form(z, out))
                self.recording.histograms[site.key] = taken

    def _site(self, path: str, kind: str, node: Node | None, *, own: bool) -> Site:
        count = self._counts[path, kind]
        self._counts[path, kind] += 1
        if own:
            key = path if count == 0 else f"{path} call {count + 1}"
        else:
            key = f"{path} {kind}#{count + 1}".lstrip()
        return Site(
            key=key,
            path=path,
            type=kind,
            kind=kind,
            source=caller(self._root) if self._structure else None,
            node=node,
            order=len(self.recording.sites),
            own=own,
            after=self.recording.latest,
        )

    # ---------------------------------------------------------- structure

    def _note(
        self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any], out: Any
    ) -> None:
        made = list(tensors_in(out))
        hooked.note(self.recording, func, args, made)
        if not made:
            return
        given = [*tensors_in(args), *tensors_in(kwargs)]
        data = [tensor for tensor in given if self.provenance.is_data(tensor)]
        self.recording.used.update(id(t) for t in given if isinstance(t, nn.Parameter))
        path = self._stack[-1][1] if self._stack else ""
        name = (name_of(func) or "call").strip("_")
        enters = bool(data) and not any(tensor.requires_grad for tensor in data)
        for tensor in made:
            self.provenance.note(tensor, data=bool(data))
            node = tensor.grad_fn
            if node is not None and node not in self.recording.calls:
                self.recording.latest = node
                self.recording.calls[node] = Call(path, name, caller(self._root))
                if enters:
                    self.recording.entries.append(node)
        if name in fused.KERNELS and self.replays:
            fused.record(self.recording, path, name, args, out)
        elif name in fused.KERNELS and not self._statistics:
            self.recording.unmeasured[f"{path or 'the model'}: gates"] = (
                f"the gates inside the fused {name} kernel; its weights are measured"
            )
        elif name == "glu":
            self.recording.unmeasured[f"{path or 'the model'}: glu"] = (
                "the sigmoid gate inside F.glu"
            )

    def _replay(self, func: Callable[..., Any], args: Any, out: Any) -> None:
        name = name_of(func).strip("_")
        if name in fused.KERNELS:
            path = self._stack[-1][1] if self._stack else ""
            fused.record(self.recording, path, name, args, out)


def _is_all(site: Site, z: Tensor, output: Tensor) -> bool:
    """Tells whether one recorded activation is all that a module does."""
    whole = site.node is not None and site.node is output.grad_fn
    return whole and site.entry is operations.made_by(z)


def _shapes(args: Any) -> list[tuple[torch.Size, torch.dtype]]:
    # To read an attribute of a tensor is a torch function too, while a mode is on.
    with torch._C.DisableTorchFunction():
        return [(tensor.shape, tensor.dtype) for tensor in tensors_in(args)]
