"""Measuring by other tools, each as its own manual says: one step at a time."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from workloads import Workload

from vgaudit.data.batch import Batch
from vgaudit.probe import state
from vgaudit.probe.forward import Setting
from vgaudit.probe.state import Twin
from vgaudit.probe.step import measure

Step = Callable[[], None]
Arm = Callable[[Workload], contextlib.AbstractContextManager[Step]]


def step_of(work: Workload) -> Step:
    """Returns one plain forward and backward pass."""

    def step() -> None:
        torch.autograd.backward(work.model(work.x), work.cotangent)

    return step


@contextlib.contextmanager
def plain(work: Workload) -> Iterator[Step]:
    yield step_of(work)


@contextlib.contextmanager
def vgaudit(work: Workload) -> Iterator[Step]:
    """The default measurement of every batch after the first."""
    device = torch.device("cpu")
    batch = Batch(args=(work.x,), size=work.x.shape[0])
    with state.untouched(work.model):
        twin = Twin(work.model, device=device, dtype=None)
        with twin.standing_in(work.model):
            setting = Setting(
                model=work.model,
                twin=twin,
                loss=None,
                device=device,
                dtype=None,
                seed=0,
            )
            _, blueprint = measure(setting, batch, number=0, known=(), zeros=True)

            def step() -> None:
                measure(setting, batch, number=1, known=(blueprint,), zeros=False)

            yield step


def leaves(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if next(m.children(), None) is None]


def tensor_of(output: Any) -> Tensor | None:
    while isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


@contextlib.contextmanager
def naive(work: Workload) -> Iterator[Step]:
    """What most notebooks do: hooks that read four figures each with ``.item()``."""
    read: list[float] = []

    def backward(gradient: Tensor) -> None:
        read.append(gradient.norm().item())

    def forward(module: nn.Module, _: Any, output: Any) -> None:
        tensor = tensor_of(output)
        if tensor is None:
            return
        z = tensor.detach()
        read.extend((z.mean().item(), z.std().item(), z.min().item(), z.max().item()))
        if tensor.requires_grad:
            tensor.register_hook(backward)  # type: ignore[no-untyped-call]

    handles = [m.register_forward_hook(forward) for m in leaves(work.model)]
    once = step_of(work)

    def step() -> None:
        read.clear()
        once()
        for parameter in work.model.parameters():
            if parameter.grad is not None:
                read.append(parameter.grad.norm().item())

    yield step
    for handle in handles:
        handle.remove()


@contextlib.contextmanager
def activation_stats(work: Workload) -> Iterator[Step]:
    """Mean, deviation and share near zero of each output, as in fastai's callback."""
    read: list[tuple[float, float, float]] = []

    def forward(module: nn.Module, _: Any, output: Any) -> None:
        tensor = tensor_of(output)
        if tensor is not None:
            z = tensor.detach()
            near = float((z <= 0.05).long().sum()) / z.numel()
            read.append((z.mean().item(), z.std().item(), near))

    handles = [m.register_forward_hook(forward) for m in leaves(work.model)]
    once = step_of(work)

    def step() -> None:
        read.clear()
        once()

    yield step
    for handle in handles:
        handle.remove()


@contextlib.contextmanager
def lightning(work: Workload) -> Iterator[Step]:
    from lightning.pytorch.utilities import grad_norm

    once = step_of(work)

    def step() -> None:
        once()
        grad_norm(work.model, norm_type=2)

    yield step


@contextlib.contextmanager
def transformers(work: Workload) -> Iterator[Step]:
    from transformers.debug_utils import DebugUnderflowOverflow

    DebugUnderflowOverflow(work.model)
    yield step_of(work)


@contextlib.contextmanager
def torchlens(work: Workload) -> Iterator[Step]:
    import torchlens as library

    once = step_of(work)

    def step() -> None:
        library.trace(work.model, work.x)
        once()

    yield step


@contextlib.contextmanager
def torchdiag(work: Workload) -> Iterator[Step]:
    import torchdiag as library

    once = step_of(work)

    def step() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            once()
            library.check_gradients(work.model)
            library.check_dead_neurons(work.model, work.x)
        work.model.train()

    yield step


@contextlib.contextmanager
def torchmortem(work: Workload) -> Iterator[Step]:
    from torchmortem import Autopsy

    once = step_of(work)
    with Autopsy(work.model) as autopsy:

        def step() -> None:
            once()
            autopsy.step(loss=0.0)

        yield step


@contextlib.contextmanager
def wandb_watch(work: Workload) -> Iterator[Step]:
    import wandb

    once = step_of(work)
    quiet = wandb.Settings(silent=True, console="off")
    with (
        tempfile.TemporaryDirectory() as folder,
        wandb.init(mode="offline", dir=folder, settings=quiet) as run,
    ):
        run.watch(work.model, log="all", log_freq=1)

        def step() -> None:
            once()
            run.log({})

        yield step


@contextlib.contextmanager
def observatory(work: Workload) -> Iterator[Step]:
    from neural_observatory import Observatory

    once = step_of(work)
    watching = Observatory(work.model)
    watching.watch()
    count = 0

    def step() -> None:
        nonlocal count
        watching.step(step=count, epoch=0)
        count += 1
        once()

    yield step


ARMS: dict[str, tuple[Arm, str]] = {
    "A/A": (plain, "the plain step against itself: the control"),
    "vgaudit": (
        vgaudit,
        "8 statistics, slope, saturated and dead units per activation; gradient "
        "norms at layers, cuts and parameters, safe from underflow",
    ),
    "naive hooks": (
        naive,
        "4 statistics per module output; gradient norms of outputs and parameters",
    ),
    "neural-observatory": (observatory, "activation and gradient statistics"),
    "torchmortem": (torchmortem, "activations, gradients, rank, findings"),
    "torchlens": (
        torchlens,
        "the graph and all tensors of a forward pass, traced beside the plain step",
    ),
    "wandb offline": (
        wandb_watch,
        "histograms of parameters and of their gradients, written; no activations",
    ),
    "torchdiag": (torchdiag, "dead ReLU units and the gradients of weights"),
    "DebugUnderflowOverflow": (
        transformers,
        "least and largest magnitude of inputs, outputs and weights; no gradients",
    ),
    "ActivationStats": (
        activation_stats,
        "3 statistics per module output, as fastai computes them; no gradients",
    ),
    "Lightning grad_norm": (lightning, "gradient norms of the parameters alone"),
}
