"""Writes the suites of models, readable as loops.

    python benchmarks/detection/grid.py

``suite.json`` is what limits are fitted on, together with draws from the same kinds of
models, with other depths, widths, lags and initial weights, whose results have been
looked at: ``fresh.json``, and ``seen.json``, ``unseen.json`` and ``later.json``, on
which rates were reported once before limits were fitted on them. ``last.json`` is what
rates are reported on: it was labelled and scanned for the first time after all limits
were frozen.
"""

from __future__ import annotations

import json
import random
import sys
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.detection.build import Spec

SMOOTH = ("sigmoid", "tanh", "relu")


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A random sample of the grid, with other sizes and initial weights.

    Attributes:
        prefix: of the names of its models, so that no name stands in two suites.
        models: how many, without repetition.
        seed: of the sample.
        first: seed of the first model's weights; the others count on from it.
    """

    prefix: str
    models: int
    seed: int
    first: int


FRESH = Draw(prefix="fresh-", models=150, seed=20_261_121, first=100)
UNSEEN = Draw(prefix="unseen-", models=400, seed=20_261_122, first=1_000)
LATER = Draw(prefix="later-", models=400, seed=20_261_123, first=2_000)
LAST = Draw(prefix="last-", models=400, seed=20_261_124, first=3_000)
HERE = Path(__file__).parent
NAMES = ("suite", "fresh", "seen", "unseen", "later", "last")
FILES = {name: HERE / f"{name}.json" for name in NAMES}
SEEN = 270
"""Models of the second draw, first in the order of their digests, that were seen."""


def load() -> list[Spec]:
    """Returns the specs of all suites."""
    return [Spec(**row) for name in NAMES for row in _rows(name)]


@cache
def members(name: str) -> frozenset[str]:
    """Returns the names of the models in one file."""
    return frozenset(row["name"] for row in _rows(name))


def _rows(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(FILES[name].read_text())["models"]
    return found


def half(name: str) -> Literal["fit", "seen", "report"]:
    """Returns what a model serves for.

    ``fit``: limits were fitted on it from the first. ``seen``: rates were reported on
    it once, and limits are fitted on it since. ``report``: nothing was fitted on it.
    """
    if name.startswith(LAST.prefix):
        return "report"
    return "seen" if name.startswith((UNSEEN.prefix, LATER.prefix)) else "fit"


def digest(spec: Spec) -> int:
    """Returns a hash of a spec: an order that is a fair draw."""
    return zlib.crc32(json.dumps(asdict(spec), sort_keys=True).encode())


def grid() -> Iterator[dict[str, object]]:
    """Yields every model as keyword arguments of ``Spec``, without its name."""
    yield from _mlps()
    yield from _initialised()
    yield from _killed_and_exponential()
    yield from _normed()
    yield from _cnns()
    yield from _sequences()
    yield from _others()
    yield from _narrow_types()
    yield from _further_sequences()


def _mlps() -> Iterator[dict[str, object]]:
    depths = (2, 3, 4, 5, 6, 8, 10, 14, 20)
    for act, depth in product((*SMOOTH, "gelu"), depths):
        yield _row("mlp", depth, 64, activation=act)
    for act, depth in product((*SMOOTH, "elu"), (2, 3, 5, 7, 12)):
        yield _row("mlp", depth, 64, activation=act, seed=1)
    for act, depth in product(SMOOTH, depths):
        yield _row("mlp", depth, 64, activation=act, seed=2)
    for act, depth in product(SMOOTH, (2, 4, 7, 10, 16)):
        yield _row("mlp", depth, 24, activation=act)


def _initialised() -> Iterator[dict[str, object]]:
    for act, depth in product(SMOOTH, (2, 5, 10, 20)):
        yield _row("mlp", depth, 48, activation=act, init="xavier")
    for act, depth in product(("tanh", "relu", "gelu"), (2, 5, 10, 20)):
        yield _row("mlp", depth, 64, activation=act, init="he")
    for act, depth in product(SMOOTH, (2, 3, 5, 10)):
        yield _row("mlp", depth, 64, activation=act, init="small")
    for act, depth in product(SMOOTH, (2, 5, 10, 20)):
        yield _row("mlp", depth, 64, activation=act, init="large")


def _killed_and_exponential() -> Iterator[dict[str, object]]:
    for depth, width in product((2, 3, 5, 8), (24, 64)):
        yield _row("mlp", depth, width, init="dead")
    for init, depth in product(("default", "small", "large", "huge"), (1, 2, 3, 5)):
        yield _row("mlp", depth, 32, activation="exp", init=init)
    for act, depth in product(("relu", "gelu", "leaky"), (3, 5, 10, 20, 30)):
        yield _row("mlp", depth, 64, activation=act, init="huge")
    for depth in (3, 5, 10):
        yield _row("mlp", depth, 64, activation="tanh", init="huge")
        yield _row("mlp", depth, 64, activation="sigmoid", init="huge")


def _normed() -> Iterator[dict[str, object]]:
    for act, norm, depth, seed in product(
        SMOOTH, ("batch", "layer"), (3, 10, 20), (0, 1)
    ):
        yield _row("mlp", depth, 32, activation=act, norm=norm, seed=seed)
    for act, norm, depth, seed in product(
        ("tanh", "relu"), ("", "layer"), (2, 5, 10), (0, 1)
    ):
        yield _row("residual", depth, 32, activation=act, norm=norm, seed=seed)
    for init, depth in product(("large", "huge"), (3, 6, 12)):
        yield _row("residual", depth, 32, init=init)
    for depth, seed in product((2, 4, 6), (0, 1)):
        yield _row("residual", depth, 8, task="images", norm="batch", seed=seed)


def _cnns() -> Iterator[dict[str, object]]:
    for act, depth, seed in product(SMOOTH, (2, 4, 6, 10), (0, 1)):
        yield _row("cnn", depth, 8, task="images", activation=act, seed=seed)
    for init, depth in product(("he", "large", "huge", "small"), (3, 6, 12)):
        yield _row("cnn", depth, 8, task="images", init=init)
    for act, depth, seed in product(("tanh", "relu"), (2, 4), (0, 1)):
        yield _row(
            "cnn", depth, 8, task="images", activation=act, norm="batch", seed=seed
        )
    for depth in (2, 4):
        yield _row("cnn", depth, 8, task="images", init="dead")
        yield _row("cnn", depth, 8, task="images", activation="tanh", init="small")


def _sequences() -> Iterator[dict[str, object]]:
    for kind, lag in product(("vanilla", "lstm", "gru"), (2, 5, 10, 20, 40)):
        yield _row("recurrent", 1, 32, task=f"recall:{lag}", variant=kind)
    for act, lag in product(SMOOTH, (2, 6, 12, 25)):
        yield _row("unrolled", 1, 32, task=f"recall:{lag}", activation=act)
    for init, lag in product(("large", "huge"), (6, 12, 25)):
        yield _row("unrolled", 1, 32, task=f"recall:{lag}", init=init)
    for kind, depth, seed in product(("pre", "post"), (1, 2, 4, 8), (0, 1)):
        yield _row("transformer", depth, 16, task="tokens", variant=kind, seed=seed)


def _others() -> Iterator[dict[str, object]]:
    pairs = tuple(product(("", "batch"), (0, 1)))
    for act, (norm, seed), depth in product(("relu", "sigmoid"), pairs, (1, 2)):
        rest = {"activation": act, "norm": norm, "seed": seed}
        yield _row("unet", depth, 4, task="segment", **rest)
    for act, (norm, seed), depth in product(("leaky", "sigmoid"), pairs, (2, 4)):
        rest = {"activation": act, "norm": norm, "seed": seed}
        yield _row("discriminator", depth, 8, task="real-or-noise", **rest)
    for act, depth, seed in product(SMOOTH, (1, 2, 4), (0, 1)):
        rest = {"activation": act, "seed": seed}
        yield _row("autoencoder", depth, 48, task="reconstruct", **rest)
    for act, depth in product(SMOOTH, (2, 5, 10)):
        yield _row("functional", depth, 48, activation=act)
        yield _row("shared", depth, 48, activation=act)
    for act, depth in product(("tanh", "relu"), (1, 2, 3)):
        yield _row("detached", depth, 32, activation=act)
    for act, width in product(SMOOTH, (32, 128)):
        yield _row("mlp", 1, width, activation=act)


def _narrow_types() -> Iterator[dict[str, object]]:
    for act, depth in product(SMOOTH, (2, 5, 10)):
        yield _row("mlp", depth, 64, activation=act, dtype="bfloat16")
    for act, depth in product(("tanh", "relu"), (2, 5, 10)):
        yield _row("mlp", depth, 64, activation=act, dtype="float16")


def _further_sequences() -> Iterator[dict[str, object]]:
    kinds = ("vanilla", "lstm", "gru")
    for kind, lag, seed in product(kinds, (3, 8, 15, 30), (1, 2)):
        yield _row("recurrent", 1, 16, task=f"recall:{lag}", variant=kind, seed=seed)
    for kind, init, lag in product(kinds, ("small", "large"), (8, 20)):
        yield _row("recurrent", 1, 32, task=f"recall:{lag}", variant=kind, init=init)
    for act, lag in product(("tanh", "sigmoid"), (4, 9, 18, 36)):
        yield _row("unrolled", 1, 24, task=f"recall:{lag}", activation=act, seed=1)
    for init, lag in product(("small", "large", "xavier"), (6, 18)):
        task = f"recall:{lag}"
        yield _row("unrolled", 1, 32, task=task, activation="tanh", init=init)
    for kind, lag in product(("lstm", "gru"), (5, 12, 24)):
        yield _row("unrolled", 1, 24, task=f"recall:{lag}", variant=kind)
    for lag in (6, 12, 25):
        yield _row("unrolled", 1, 32, task=f"recall:{lag}", init="he")


def drawn(plan: Draw) -> Iterator[dict[str, object]]:
    """Yields models drawn from the grid, each with another size and seed."""
    draw = random.Random(plan.seed)
    for number, row in enumerate(draw.sample(list(grid()), plan.models)):
        deeper, wider = draw.choice((-1, 0, 1, 2)), draw.choice((0.75, 1.0, 1.5))
        later = draw.choice((-1, 1, 3))
        kind, _, lag = str(row["task"]).partition(":")
        depth = max(int(str(row["depth"])) + deeper, 1)
        limit = {"unet": 2, "recurrent": 1, "unrolled": 1}.get(
            str(row["family"]), depth
        )
        changed = {
            **row,
            "task": f"{kind}:{max(int(lag) + later, 2)}" if lag else kind,
            "depth": min(depth, limit),
            "width": 2 * round(int(str(row["width"])) * wider / 2),
            "seed": plan.first + number,
        }
        name = named(changed)["name"]
        yield {**changed, "name": f"{plan.prefix}{name}"}


def _row(family: str, depth: int, width: int, **rest: object) -> dict[str, object]:
    return {"family": family, "task": "blobs", "depth": depth, "width": width, **rest}


def named(row: dict[str, object]) -> dict[str, object]:
    """Returns a row with its name, made of everything that is not a default."""
    defaults = {f.name: f.default for f in fields(Spec)}
    parts = [str(row["family"])]
    parts += [f"{key[0]}{row[key]}" for key in ("depth", "width")]
    for key in ("task", "activation", "init", "norm", "variant", "dtype", "seed"):
        value = row.get(key, defaults[key])
        if key == "activation" or (key == "task" and value != "blobs"):
            parts.append(str(value).replace(":", ""))
        elif key != "task" and value != defaults[key]:
            parts.append(f"s{value}" if key == "seed" else str(value))
    return {"name": "-".join(parts), **row}


def main() -> None:
    """Writes all files anew."""
    suite, fresh, second, later, last = (
        [Spec(**row) for row in rows]  # type: ignore[arg-type]
        for rows in (map(named, grid()), *map(drawn, (FRESH, UNSEEN, LATER, LAST)))
    )
    looked_at = set(sorted(second, key=digest)[:SEEN])
    seen = [spec for spec in second if spec in looked_at]
    unseen = [spec for spec in second if spec not in looked_at]
    parts = (suite, fresh, seen, unseen, later, last)
    for file, specs in zip(FILES.values(), parts, strict=True):
        _write(file, specs)


def _write(file: Path, specs: list[Spec]) -> None:
    if len({spec.name for spec in specs}) != len(specs):
        raise SystemExit("two models have one name")
    rows = ",\n".join(f"  {json.dumps(asdict(spec))}" for spec in specs)
    head = '"optimizers": ["sgd", "adam"],\n "models": [\n'
    file.write_text(f"{{{head}{rows}\n]}}\n")
    sys.stderr.write(f"{len(specs)} models written to {file.name}\n")


if __name__ == "__main__":
    main()
