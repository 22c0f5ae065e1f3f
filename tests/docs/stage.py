"""What the examples of the documents find when they run: a folder, and names."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

MODELS = '''"""A small net, as a user would have it in a module."""

from torch import nn


def net(inputs: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 2)
    )
'''
PROJECT = """
[[tool.vgaudit.targets]]
name = "net"
model = "mypackage/models.py:net"
"""


def furnish(folder: Path) -> None:
    """Writes the files that commands of the documents name."""
    import torch
    from safetensors.torch import save_file

    from vgaudit.cli import tour

    (folder / "fixtures").symlink_to(ROOT / "fixtures")
    (folder / "mypackage").mkdir()
    (folder / "mypackage/__init__.py").touch()
    for place in ("mypackage/models.py", "models.py", "mynet.py"):
        (folder / place).write_text(MODELS)
    (folder / "pyproject.toml").write_text(PROJECT)
    with tour.folder(folder / "tour") as made:
        for name in ("points.csv", "net.py"):
            (folder / name).write_bytes((made / name).read_bytes())
    torch.manual_seed(0)
    make = runpy.run_path(str(folder / "models.py"))["net"]
    save_file(make().state_dict(), folder / "model.safetensors")


def names(folder: Path) -> dict[str, Any]:
    """Returns what code of the documents takes as given."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    import vgaudit
    from vgaudit.data.calls import to_batch

    torch.manual_seed(0)
    make = runpy.run_path(str(folder / "models.py"))["net"]
    model = make()
    x, y = torch.randn(32, 8), torch.randint(0, 2, (32,))
    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    return {
        "torch": torch,
        "nn": nn,
        "F": nn.functional,
        "vgaudit": vgaudit,
        "model": model,
        "make_net": make,
        "MyModel": make,
        "x": x,
        "y": y,
        "loader": loader,
        "batches": list(loader),
        "example": to_batch((x, y)),
        "z": torch.randn(32, 64),
        "layer": nn.Linear(8, 16),
        "targets": torch.randn(32, 3),
        "x_held": torch.randn(16, 8),
        "targets_held": torch.randn(16, 3),
        "total_steps": 10,
        "criterion": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.01),
    }
