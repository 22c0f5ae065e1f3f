"""Files as honest and hostile programs write them."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vgaudit.errors import VgauditError
from vgaudit.job import LoadOptions
from vgaudit.loading import LoadedModel, load
from vgaudit.loading.built import EmptyOnMeta

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "fixtures" / "models.py"

UNSAFE_ADVICE = ("weights_only", "safe_globals", "WeightsUnpickler")


def torchvision_or_skip() -> Any:
    """torchvision; skips where it is missing or belongs to another torch."""
    try:
        import torchvision
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"torchvision: {error}", allow_module_level=True)
    return torchvision


def light(name: str, **options: Any) -> torch.nn.Module:
    """A torchvision model whose parameters need no memory."""
    torchvision = torchvision_or_skip()
    builder = torchvision.models.get_model_builder(name)
    if "weights_backbone" in builder.__wrapped__.__annotations__:
        options["weights_backbone"] = None
    with EmptyOnMeta(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: nn.Module = builder(weights=None, **options)
        return model


def fixture_arch(name: str) -> str:
    """The specification of a factory of ``fixtures/models.py``."""
    return f"{MODELS}:{name}"


def read(spec: Path | str, **options: Any) -> LoadedModel:
    """Loads with options given as keywords."""
    return load(str(spec), LoadOptions(**options))


def refusal(
    spec: Path | str, kind: type[VgauditError], **options: Any
) -> tuple[str, str]:
    """Message and hint of the error that loading raises.

    Checked for every error: no advice to load unsafely, one line each.
    """
    with pytest.raises(kind) as caught:
        read(spec, **options)

    error = caught.value
    assert kind is type(error)
    for text in (error.message, error.hint):
        assert not any(advice in text for advice in UNSAFE_ADVICE)
        assert "\n" not in text
    return error.message, error.hint


def saved(path: Path, value: Any, **options: Any) -> Path:
    """``torch.save`` into a path."""
    torch.save(value, path, **options)
    return path


def tiny() -> nn.Sequential:
    """A module of torch.nn classes, seeded."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


ARCH = "from torch import nn\n\n\ndef tiny():\n    return nn.Sequential({})\n".format(
    "nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)"
)


def tiny_arch(folder: Path) -> str:
    """A factory of ``tiny()`` in a file of its own."""
    path = folder / "tiny_arch.py"
    path.write_text(ARCH)
    return f"{path}:tiny"


def records(path: Path) -> dict[str, bytes]:
    """The records of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_records(
    path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED
) -> Path:
    """A zip archive of those records."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def edited(source: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """The archive with its records changed, its checksums right."""
    members = records(source)
    change(members)
    return write_records(source, members)


def with_pickle(path: Path, program: bytes) -> Path:
    """A file of ``torch.save`` whose pickle is that program."""
    return write_records(
        path,
        {
            "archive/data.pkl": program,
            "archive/byteorder": b"little",
            "archive/version": b"3\n",
        },
    )


def legacy(path: Path, value: Any) -> Path:
    """What ``torch.save`` wrote before 1.6."""
    torch.save(value, path, _use_new_zipfile_serialization=False)
    return path


def legacy_with_pickle(path: Path, program: bytes) -> Path:
    """A legacy file whose pickle is that program, without tensors."""
    magic = 0x1950A86A20F9469CFC6C
    head = [pickle.dumps(v, 2) for v in (magic, 1001, {"little_endian": True})]
    path.write_bytes(b"".join(head) + program + pickle.dumps([], 2))
    return path


def safetensors(path: Path, header: Any, data: bytes) -> Path:
    """A safetensors file with that header, written as it is."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    """One tensor of a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def same_state(first: nn.Module, second: nn.Module) -> bool:
    """Whether two modules hold the same tensors under the same names."""
    a, b = first.state_dict(), second.state_dict()
    return list(a) == list(b) and all(identical(a[key], b[key]) for key in a)


def identical(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have the same type, shape and bits."""
    return first.dtype == second.dtype and torch.equal(first, second)


def dumped(value: Any, protocol: int = 2) -> bytes:
    """A pickle of plain Python."""
    stream = io.BytesIO()
    pickle.Pickler(stream, protocol).dump(value)
    return stream.getvalue()
