"""Honest files of every kind, for fuzzing to damage."""

from __future__ import annotations

import io
import json
import zipfile
from functools import cache

import torch
from safetensors.torch import save as safetensors
from torch import nn

import vgaudit
from vgaudit.baseline import from_suite, render
from vgaudit.judge import judge
from vgaudit.reports import json as report
from vgaudit.rules.examples import chain
from vgaudit.suite import single


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2))


def saved(value: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


@cache
def models() -> dict[str, bytes]:
    """Returns the content of model files by suffix-bearing name."""
    state = net().state_dict()
    exported = io.BytesIO()
    program = torch.export.export(net(), (torch.zeros(2, 3),))
    torch.export.save(program, exported)
    return {
        "state.pt": saved(state),
        "legacy.pt": saved(state, _use_new_zipfile_serialization=False),
        "module.pt": saved(net()),
        "checkpoint.pt": saved({"epoch": 3, "model": state, "ema": {"a": [1, "b"]}}),
        "weights.safetensors": safetensors(state, {"note": "x"}),
        "program.pt2": exported.getvalue(),
    }


@cache
def report_json() -> str:
    return report.render(judge(chain()))


@cache
def baseline_json() -> str:
    return render(from_suite(single(judge(chain()))))


def recipe_json(folder: str) -> str:
    done = vgaudit.convert(net(), to="ar", data=torch.randn(32, 3), compare=False)
    vgaudit.save(done.model, f"{folder}/out.safetensors", force=True)
    with open(f"{folder}/out.recipe.json", encoding="utf-8") as file:
        return file.read()


def json_paths(value: object, path: tuple[object, ...] = ()) -> list[tuple]:
    """Returns the place of every value inside a JSON document."""
    found: list[tuple] = [path] if path else []
    inner: list[tuple[object, object]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    for key, item in inner:
        found += json_paths(item, (*path, key))
    return found


def with_value(text: str, place: int, value: object) -> str:
    """Returns a JSON text with the value at one of its places replaced."""
    record = json.loads(text)
    paths = json_paths(record)
    *way, last = paths[place % len(paths)]
    target = record
    for key in way:
        target = target[key]
    target[last] = value
    return json.dumps(record)


def rezipped(content: bytes, member: int, change: bytes, at: int) -> bytes:
    """Returns an archive with one member's bytes changed and its checksums right."""
    result = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(result, "w") as new,
    ):
        infos = old.infolist()
        chosen = infos[member % len(infos)]
        for info in infos:
            data = bytearray(old.read(info))
            if info is chosen and data:
                data[at % len(data) : at % len(data) + len(change)] = change
            new.writestr(info.filename, bytes(data))
    return result.getvalue()
