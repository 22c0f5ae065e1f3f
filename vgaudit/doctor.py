"""What torch finds on this machine, for ``vgaudit doctor``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch

_OPTIONAL = ("torchvision", "timm", "transformers", "safetensors")


def examine(progress: Callable[[str], None]) -> dict[str, Any]:
    """Returns versions, devices and threads, and which libraries can be imported."""
    progress("devices")
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "devices": _devices(),
        "gradient": _gradient(),
    }
    for name in _OPTIONAL:
        progress(f"importing {name}")
        found[name] = _imported(name)
    return found


def _devices() -> list[str]:
    """Returns the CPU, and every GPU by its name."""
    found = ["cpu"]
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        found += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(count)]
    return found


def _gradient() -> bool:
    """Tells whether the smallest backward pass gives the gradient it must."""
    x = torch.tensor(3.0, requires_grad=True)
    (slope,) = torch.autograd.grad(x * x, x)
    return bool(slope.item() == 6.0)


def _imported(name: str) -> str:
    """Returns ``works``, or why a library cannot be imported."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return "not installed"
    except Exception as error:
        # A library built for another torch fails with errors of any kind.
        return f"cannot be imported: {type(error).__name__}: {error}"
    return "works"
