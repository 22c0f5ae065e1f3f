"""A repository with a configuration: its models here, the rest in ``project/``."""

from __future__ import annotations

import shutil
from pathlib import Path

PROJECT = Path(__file__).parent / "project"
"""Further modules of the repository, as they are copied into it."""

MODELS = '''
"""Models of a repository under audit."""

from torch import nn


def classifier(depth=12, activation="Sigmoid", skips=False, carry=1.0):
    """Builds a plain net, or one with skips that carry a share of their input."""
    kind = getattr(nn, activation)
    blocks = [nn.Sequential(nn.Linear(32, 32), kind()) for _ in range(int(depth))]
    if str(skips).lower() == "true":
        blocks = [Residual(block, float(carry)) for block in blocks]
    return nn.Sequential(*blocks, nn.Linear(32, 4))


class Residual(nn.Module):
    """Adds its input to what a block makes of it."""

    def __init__(self, block: nn.Module, carry: float) -> None:
        super().__init__()
        self.block = block
        self.carry = carry

    def forward(self, x):
        return self.carry * x + self.block(x)


def single():
    """Builds a model with too little to measure."""
    return nn.Linear(8, 2)


def failing():
    """Builds a model that cannot run."""

    class Broken(nn.Linear):
        def forward(self, x):
            raise RuntimeError("this layer is broken")

    return nn.Sequential(Broken(8, 8), nn.ReLU(), nn.Linear(8, 2))
'''

CONFIG = """
[project]
name = "under-audit"
version = "1"

[tool.vgaudit]
preset = "recommended"
baseline = "vgaudit-baseline.json"

[tool.vgaudit.budgets]
nonfinite-gradients = 0

[[tool.vgaudit.targets]]
name = "legacy"
model = "src/models.py:classifier"

[[tool.vgaudit.targets]]
name = "residual"
model = "src/models.py:classifier"
model-args = { depth = 6, activation = "Tanh", skips = true }
"""


WHOLE = """
[[tool.vgaudit.targets]]
name = "images"
model = "src/images.py:resnet"
input = ["8x3x16x16"]
batches = 2

[[tool.vgaudit.targets]]
name = "text"
model = "src/text.py:encoder"
input = ["tokens=long:8x12:100"]
batches = 2
"""
"""The targets of the further modules."""


def made(folder: Path, config: str = CONFIG) -> Path:
    """Returns a repository of a few hundred lines in a folder."""
    shutil.copytree(
        PROJECT, folder / "src", ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder / "src" / "models.py").write_text(MODELS, encoding="utf-8")
    (folder / "pyproject.toml").write_text(config, encoding="utf-8")
    return folder
