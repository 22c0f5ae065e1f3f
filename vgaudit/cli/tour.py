"""The steps of ``vgaudit demo``: each is a command that anybody could type."""

from __future__ import annotations

import contextlib
import math
import os
import random
import shlex
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vgaudit.cli.output import show
from vgaudit.errors import CannotRun, CannotWrite
from vgaudit.plain import visible

NET = '''"""A deep sigmoid net: the textbook case of a vanishing gradient."""

from torch import nn


def net(depth: int = 10, width: int = 32) -> nn.Module:
    """Builds hidden layers of sigmoid units, and two outputs."""
    layers: list[nn.Module] = []
    inputs = 8
    for _ in range(depth):
        layers += [nn.Linear(inputs, width), nn.Sigmoid()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(width, 2))
'''
SAMPLES, FEATURES, NOISE = 512, 8, 0.1


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the tour, what it shows, and how it must exit."""

    says: str
    arguments: str
    code: int = 0


STEPS = (
    Step(
        "A net of ten sigmoid layers, fresh from its factory. The scan fails:",
        "scan net.py:net --data points.csv",
        code=1,
    ),
    Step(
        "Auto-rotation brings the pre-activations where sigmoids have a slope:",
        "convert net.py:net --to ar --data points.csv -o converted.safetensors",
    ),
    Step(
        "The converted net trains:",
        "retrain converted.safetensors --arch net.py:net --with sdagd "
        "--data points.csv --epochs 5 -o trained.safetensors",
    ),
    Step(
        "And the trained net passes:",
        "scan trained.safetensors --arch net.py:net --data points.csv",
    ),
)


@contextlib.contextmanager
def folder(keep: Path | None) -> Iterator[Path]:
    """Yields a folder with the model and its data in it.

    Args:
        keep: where it shall stay; a temporary one without.

    Raises:
        CannotWrite: the folder exists, or cannot be made.
    """
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="vgaudit-demo-") as place:
            yield _furnished(Path(place))
        return
    try:
        keep.mkdir()
    except OSError as error:
        raise CannotWrite(
            f"{visible(str(keep))} cannot be made: {error.strerror or error}",
            hint="give the name of a folder that does not exist yet",
        ) from error
    yield _furnished(keep)


def tour(place: Path) -> int:
    """Runs the steps in a folder, and returns 0 where each went as it should.

    Raises:
        CannotRun: a step went otherwise.
    """
    for number, step in enumerate(STEPS, 1):
        show(f"── {number}/{len(STEPS)}  {step.says}\n\n{_typed(step)}\n")
        code = _run(step, place)
        if code != step.code:
            raise CannotRun(
                f"step {number} of the tour exited with {code} and not {step.code}",
                hint="`vgaudit doctor` examines the environment",
            )
        show("\n")
    show("The exit codes of both scans are the verdict: 1 before, 0 after.\n")
    return 0


def _typed(step: Step) -> str:
    """Returns the command of a step as one types it, in lines of 80 columns."""
    text = f"$ vgaudit {step.arguments}"
    lines = textwrap.wrap(text, 78, subsequent_indent="    ", break_on_hyphens=False)
    return " \\\n".join(lines)


def _run(step: Step, place: Path) -> int:
    """Runs one command; its report goes to standard output through ``show``."""
    root = str(Path(__file__).resolve().parents[2])
    # `python -m vgaudit` would not find a package that is not installed.
    start = (
        f"import sys; sys.path.append({root!r})\nfrom vgaudit.cli import main; main()"
    )
    words = shlex.split(step.arguments)
    done = subprocess.run(
        [sys.executable, "-P", "-c", start, *words, "--no-progress"],
        stdout=subprocess.PIPE,
        encoding="utf-8",
        errors="backslashreplace",
        cwd=place,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    show(done.stdout)
    return done.returncode


def _furnished(place: Path) -> Path:
    (place / "net.py").write_text(NET, encoding="utf-8")
    (place / "points.csv").write_text(_points(), encoding="utf-8")
    return place


def _points() -> str:
    """Returns points on two spheres, one inside the other: the label tells which."""
    draw = random.Random(0)
    names = [f"x{i}" for i in range(FEATURES)]
    lines = [",".join([*names, "label"])]
    for index in range(SAMPLES):
        label = index % 2
        radius = 1.0 if label else 3.0
        direction = [draw.gauss(0.0, 1.0) for _ in names]
        length = math.hypot(*direction)
        point = [radius * x / length + draw.gauss(0.0, NOISE) for x in direction]
        lines.append(",".join([*(f"{x:.4f}" for x in point), str(label)]))
    return "\n".join(lines) + "\n"
