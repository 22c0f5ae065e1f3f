"""Tensors that are not what they say, and tensors of every kind (rows 25-29)."""

from __future__ import annotations

import time
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.loading.builders import (
    edited,
    fixture_arch,
    identical,
    legacy,
    read,
    refusal,
    same_state,
    saved,
    tiny,
    tiny_arch,
    torchvision_or_skip,
)
from vgaudit.errors import BadConfig, CannotLoad


@pytest.fixture
def arch(tmp_path: Path) -> str:
    return tiny_arch(tmp_path)


def tiny_state(weight: Any = None) -> dict[str, Any]:
    """The state_dict of ``tiny()``, perhaps with another first weight."""
    state = dict(tiny().state_dict())
    return state if weight is None else {**state, "0.weight": weight}


@pytest.mark.parametrize("write", [saved, legacy])
def test_a_tensor_larger_than_its_storage_is_refused(
    tmp_path: Path, arch: str, write: Any
) -> None:
    huge = torch.zeros(1).expand(10**12)
    path = write(tmp_path / "a.pt", tiny_state(huge))

    began = time.process_time()
    message, hint = refusal(path, CannotLoad, arch=arch)

    assert "numel exceeds storage: 1000000000000 elements over 1" in message
    assert "save it contiguous: tensor.clone()" == hint
    assert time.process_time() - began < 5


def test_a_meta_tensor_has_no_data(tmp_path: Path, arch: str) -> None:
    meta = torch.empty(3, 4, device="meta")
    path = saved(tmp_path / "a.pt", tiny_state(meta))

    message, _ = refusal(path, CannotLoad, arch=arch)

    assert f"{path}: 0.weight is a meta tensor: no data" == message


def test_a_module_on_meta_has_no_data(tmp_path: Path) -> None:
    message, _ = refusal(saved(tmp_path / "a.pt", tiny().to("meta")), CannotLoad)

    assert "weight is a meta tensor: no data" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nonfinite_weights_are_named(tmp_path: Path, arch: str, value: float) -> None:
    weight = tiny()[0].weight.detach().clone()
    weight[1, 2] = value
    path = saved(tmp_path / "a.pt", tiny_state(weight))

    loaded = read(path, arch=arch)

    assert ("0.weight",) == loaded.target.nonfinite_weights
    assert () == read(saved(path, tiny_state()), arch=arch).target.nonfinite_weights


class Buffered(nn.Module):
    def __init__(self, **buffers: torch.Tensor) -> None:
        super().__init__()
        for name, value in buffers.items():
            self.register_buffer(name, value)


def test_infinity_in_a_buffer_is_no_defect() -> None:
    from vgaudit.loading.loaded import nonfinite

    observed = torch.ao.quantization.MinMaxObserver()
    masked = Buffered(
        mask=torch.full((3, 3), -torch.inf).triu(1),
        slopes=torch.tensor([1.0, -torch.inf]),
        best_loss=torch.tensor(torch.inf),
    )

    assert torch.isinf(observed.min_val)
    assert torch.isinf(observed.max_val)
    assert () == nonfinite(nn.Sequential(observed, masked))


@pytest.mark.parametrize("kind", [torch.float32, torch.float8_e5m2, torch.complex64])
def test_nan_in_a_buffer_is_a_defect(kind: torch.dtype) -> None:
    from vgaudit.loading.loaded import nonfinite

    table = torch.tensor([1.0, torch.nan, torch.inf]).to(kind)

    assert ("table",) == nonfinite(Buffered(table=table, whole=torch.ones(3)))


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_running_statistics_that_overflowed_are_a_defect(name: str) -> None:
    from vgaudit.loading.loaded import nonfinite

    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    net[1].get_buffer(name)[2] = torch.inf

    assert (f"1.{name}",) == nonfinite(net)


def test_a_small_sparse_weight_is_made_dense(tmp_path: Path, arch: str) -> None:
    weight = tiny()[0].weight.detach()
    path = saved(tmp_path / "a.pt", tiny_state(weight.to_sparse()))

    loaded = read(path, arch=arch)

    assert identical(weight, loaded.module[0].weight.detach())
    assert "sparse weights are made dense" in loaded.target.notes


def test_a_large_sparse_weight_is_refused(tmp_path: Path, arch: str) -> None:
    zero = torch.tensor([[0], [0]])
    with torch.sparse.check_sparse_tensor_invariants():
        sparse = torch.sparse_coo_tensor(zero, torch.ones(1), (10**6, 10**6))
    path = saved(tmp_path / "a.pt", tiny_state(sparse))

    message, _ = refusal(path, CannotLoad, arch=arch)

    assert "0.weight is sparse, and 1000000000000 elements when dense" in message


def test_quantised_weights_are_refused(tmp_path: Path, arch: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(torch.ones(3, 4), 0.1, 0, torch.qint8)
        path = saved(tmp_path / "a.pt", tiny_state(quantised))

    message, _ = refusal(path, CannotLoad, arch=arch)

    assert "is quantised: there are no trainable float weights" in message


def test_integers_in_place_of_weights_are_refused(tmp_path: Path, arch: str) -> None:
    weight = torch.ones(3, 4, dtype=torch.int8)
    path = saved(tmp_path / "a.pt", tiny_state(weight))

    message, hint = refusal(path, CannotLoad, arch=arch)

    assert "0.weight holds int8 where the architecture has float32" in message
    assert "before quantisation" in hint


def test_complex_weights_load(tmp_path: Path) -> None:
    (tmp_path / "waves.py").write_text(
        "import torch\nfrom torch import nn\n\n"
        "def net():\n    return nn.Linear(4, 3, dtype=torch.complex64)\n"
    )
    weights = nn.Linear(4, 3, dtype=torch.complex64).state_dict()
    weights["bias"][0] = complex(0, float("nan"))
    path = saved(tmp_path / "a.pt", weights)

    loaded = read(path, arch=f"{tmp_path / 'waves.py'}:net")

    assert identical(weights["weight"], loaded.module.weight.detach())
    assert ("bias",) == loaded.target.nonfinite_weights


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_weights_are_read_as_float32(
    tmp_path: Path, arch: str, kind: torch.dtype
) -> None:
    weight = tiny()[0].weight.detach().to(kind)
    path = saved(tmp_path / "a.pt", tiny_state(weight))

    loaded = read(path, arch=arch)

    assert identical(weight.float(), loaded.module[0].weight.detach())
    name = str(kind).removeprefix("torch.")
    assert (f"{name} weights are read as float32",) == loaded.target.notes


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_take_the_type_of_the_architecture(
    tmp_path: Path, arch: str, kind: torch.dtype
) -> None:
    state = {key: value.to(kind) for key, value in tiny().state_dict().items()}

    loaded = read(saved(tmp_path / "a.pt", state), arch=arch)

    assert identical(state["0.weight"].float(), loaded.module[0].weight.detach())
    name = str(kind).removeprefix("torch.")
    assert (f"{name} weights are loaded as float32",) == loaded.target.notes


NO_WEIGHTS = {
    "integer keys": ({0: torch.ones(2), 1: torch.ones(2)}, "keys 0, 1"),
    "numbers": ({"epoch": 3, "lr": 0.1}, "keys epoch, lr"),
    "list": ([torch.ones(2)], "a list of 1"),
    "tensor": (torch.ones(2, 3), "a bare tensor of shape [2, 3]"),
    "empty": ({}, "an empty dict"),
    "ordered": (OrderedDict(), "an empty dict"),
    "text": ("weights", "an object of type str"),
    "metrics": ({"metrics": {"loss": torch.ones(())}}, "keys metrics"),
    "optimizer": (
        {"optimizer": {"state": {"a": torch.ones(2)}}, "epoch": 1},
        "keys optimizer, epoch",
    ),
}


@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_what_holds_no_weights_says_what_it_holds(
    tmp_path: Path, arch: str, name: str
) -> None:
    value, described = NO_WEIGHTS[name]
    path = saved(tmp_path / "a.pt", value)

    message, hint = refusal(path, CannotLoad, arch=arch)

    assert f"{path}: no state_dict found in {described}" == message
    assert hint


def test_several_sets_of_weights_ask_for_a_key(tmp_path: Path, arch: str) -> None:
    state = tiny().state_dict()
    average = {key: value / 2 for key, value in state.items()}
    path = saved(tmp_path / "a.pt", {"model": state, "ema": average, "epoch": 1})

    message, hint = refusal(path, BadConfig, arch=arch)

    assert f"{path} holds several sets of weights: model, ema" == message
    assert "choose --key model|ema" == hint
    for spec, key in ((f"{path}#ema", None), (str(path), "ema")):
        loaded = read(spec, arch=arch, key=key)
        assert identical(average["0.weight"], loaded.module[0].weight.detach())
        assert ("taken from the entry ema",) == loaded.target.notes
    refusal(f"{path}#ema", BadConfig, key="model", arch=arch)
    message, hint = refusal(path, BadConfig, key="swa", arch=arch)
    assert "no weights under the key 'swa' in keys model, ema, epoch" in message


@pytest.mark.parametrize(
    ("wrap", "key"),
    [
        (lambda s: {"state_dict": s, "epoch": 3}, None),
        (lambda s: {"model_state_dict": s, "optimizer_state_dict": {"a": s}}, None),
        (lambda s: {"net": s}, None),
        (lambda s: {"state": {"model": {"weights": s}}}, "state.model.weights"),
        (lambda s: {"trainer": {"model": s}, "epoch": 1}, None),
        (lambda s: {"a.b": {"c": s}, "other": s}, "a.b.c"),
        (lambda s: {f"ema.{k}": v for k, v in s.items()} | s, "ema"),
    ],
)
def test_weights_are_found_where_training_loops_put_them(
    tmp_path: Path, arch: str, wrap: Any, key: str | None
) -> None:
    path = saved(tmp_path / "a.pt", wrap(tiny().state_dict()))

    loaded = read(path, arch=arch, key=key)

    assert identical(tiny()[0].weight.detach(), loaded.module[0].weight.detach())


def test_a_checkpoint_may_hold_a_whole_module(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"epoch": 2, "model": tiny()})

    loaded = read(path)

    assert ("module-pickle", "T1") == (loaded.target.format, loaded.target.trust_tier)
    assert ("taken from the entry model",) == loaded.target.notes


def test_plain_objects_of_training_loops_need_no_trust(
    tmp_path: Path, arch: str
) -> None:
    import argparse
    import pathlib

    import numpy as np

    extra = {
        "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("a/b")),
        "best": np.float64(0.93),
        "epoch": 3,
        "state_dict": tiny().state_dict(),
    }

    loaded = read(saved(tmp_path / "a.pt", extra), arch=arch)

    assert "T2" == loaded.target.trust_tier  # the architecture's; the file is T1


@pytest.mark.slow
def test_a_lightning_checkpoint_loads(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")

    class Wrapped(lightning.LightningModule):
        def __init__(self, lr: float = 0.1, width: int = 4) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.model = tiny()

        def training_step(self, batch: Any, index: int) -> Any:
            return self.model(batch[0]).sum()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0, momentum=0.9)

    data = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.ones(4, 4)), batch_size=2
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_epochs=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
            default_root_dir=tmp_path,
        )
        trainer.fit(Wrapped(), data)
        trainer.save_checkpoint(tmp_path / "a.ckpt")

    loaded = read(tmp_path / "a.ckpt", arch=tiny_arch(tmp_path))

    assert ("model.",) == loaded.target.stripped_prefixes
    assert identical(tiny()[0].weight.detach(), loaded.module[0].weight.detach())


def test_weights_of_another_device_load_on_the_cpu(tmp_path: Path, arch: str) -> None:
    path = saved(tmp_path / "a.pt", tiny_state())

    def on_cuda(members: dict[str, bytes]) -> None:
        cpu, cuda = b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:7"
        assert cpu in members["a/data.pkl"]
        members["a/data.pkl"] = members["a/data.pkl"].replace(cpu, cuda)

    loaded = read(edited(path, on_cuda), arch=arch)

    assert same_state(tiny(), loaded.module)
    assert {"cpu"} == {p.device.type for p in loaded.module.parameters()}


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    arch = fixture_arch("tied_embeddings")
    model = read(arch).module
    state = {k: v * 2 for k, v in model.state_dict().items() if k != "head.weight"}

    loaded = read(saved(tmp_path / "a.pt", state), arch=arch).module

    assert loaded.head.weight is loaded.embedding.weight
    assert identical(state["embedding.weight"], loaded.head.weight.detach())


def test_views_of_one_storage_are_separate_weights(tmp_path: Path) -> None:
    # Saved as slices of one buffer, as fused optimisers keep them.
    torchvision = torchvision_or_skip()
    model = torchvision.models.squeezenet1_1()
    names = list(model.state_dict())
    flat = torch.cat([v.flatten() for v in model.state_dict().values()])
    state, at = {}, 0
    for name in names:
        shape = model.state_dict()[name].shape
        state[name] = flat[at : at + shape.numel()].view(shape)
        at += shape.numel()
    path = saved(tmp_path / "a.pt", state)

    loaded = read(path, arch="torchvision:squeezenet1_1").module
    weights = dict(loaded.named_parameters())
    with torch.no_grad():
        weights[names[0]].fill_(7)

    for name in names[1:]:
        assert identical(state[name], weights[name].detach())
