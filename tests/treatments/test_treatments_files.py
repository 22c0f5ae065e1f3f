"""Converted models on disk: bit-equal again, whole or not at all, not too trusting."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import threading
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

import vgaudit
from fixtures import batches, models
from vgaudit.conversion import ConvertOptions
from vgaudit.data.batch import Batch
from vgaudit.errors import BadConfig, CannotLoad, CannotWrite
from vgaudit.training.output import check_model
from vgaudit.treatments import treat, writing


def converted(name: str, **options: object) -> nn.Module:
    batch = Batch(args=batches.inputs(name), size=8)
    wanted = ConvertOptions(**options)  # type: ignore[arg-type]
    return treat(getattr(models, name)(), [batch], wanted).model


def outputs(model: nn.Module, name: str) -> list[Tensor]:
    with torch.no_grad():
        value = model.eval()(*batches.inputs(name))
    found = value if isinstance(value, tuple) else [value]
    return [v if isinstance(v, Tensor) else v.logits for v in found]


@pytest.mark.parametrize("to", ["ar", "rescale", "adact"])
@pytest.mark.parametrize(
    "name",
    ["deep_sigmoid_mlp", "functional_activations", "reused_module", "tiny_transformer"],
)
def test_a_saved_model_comes_back_bit_equal(name: str, to: str, tmp_path: Path) -> None:
    model = converted(name, to=to)
    path = tmp_path / "out.safetensors"
    assert vgaudit.save(model, path) == (path, tmp_path / "out.recipe.json")
    again = vgaudit.load(path, arch=getattr(models, name))
    pairs = zip(outputs(model, name), outputs(again, name), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    state, other = model.state_dict(), again.state_dict()
    assert state.keys() == other.keys()
    assert all(torch.equal(state[key], other[key]) for key in state)


def test_a_recurrent_rotation_comes_back(tmp_path: Path) -> None:
    model = converted("lstm_classifier", to="ar")
    vgaudit.save(model, tmp_path / "out.safetensors")
    again = vgaudit.load(tmp_path / "out.safetensors", arch=models.lstm_classifier)
    name = "lstm_classifier"
    assert torch.equal(outputs(model, name)[0], outputs(again, name)[0])


def test_a_centred_layer_gets_its_bias_back(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 8, bias=False), nn.Sigmoid(), nn.Linear(8, 2))

    x = torch.randn(64, 8)
    options = ConvertOptions(to="rescale", centre=True)
    model = treat(build(), [Batch(args=(x,), size=64)], options).model
    vgaudit.save(model, tmp_path / "out.safetensors")
    again = vgaudit.load(tmp_path / "out.safetensors", arch=build)
    assert torch.equal(model(x), again(x))


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
@pytest.mark.parametrize("to", ["ar", "rescale", "adact"])
def test_a_wrapped_architecture_is_looked_through(
    to: str, wrap: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    batch = Batch(args=batches.inputs("sigmoid_mlp"), size=8)
    model = treat(wrap(models.sigmoid_mlp()), [batch], ConvertOptions(to=to)).model
    path = tmp_path / "out.safetensors"
    vgaudit.save(model, path)
    again = vgaudit.load(path, arch=lambda: wrap(models.sigmoid_mlp()))
    assert type(again) is type(model)
    state, other = model.state_dict(), again.state_dict()
    assert state.keys() == other.keys()
    assert all(torch.equal(state[key], other[key]) for key in state)


def test_a_wrapper_that_was_saved_comes_back_as_one(tmp_path: Path) -> None:
    wrapped = torch.compile(models.sigmoid_mlp())
    vgaudit.save(wrapped, tmp_path / "out.safetensors")
    given = torch.compile(models.sigmoid_mlp())
    again = vgaudit.load(tmp_path / "out.safetensors", arch=given)
    assert again is given
    assert wrapped.state_dict().keys() == again.state_dict().keys()


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    model = converted("tied_embeddings", to="adact")
    path = tmp_path / "out.safetensors"
    vgaudit.save(model, path)
    recipe = json.loads((tmp_path / "out.recipe.json").read_text())
    assert recipe["aliases"]
    again = vgaudit.load(path, arch=models.tied_embeddings)
    for alias, key in recipe["aliases"].items():
        assert again.get_parameter(alias) is again.get_parameter(key)


def test_a_baked_model_needs_no_recipe(tmp_path: Path) -> None:
    rotated = converted("deep_sigmoid_mlp", to="ar")
    batch = Batch(args=batches.inputs("deep_sigmoid_mlp"), size=8)
    plain = treat(rotated, [batch], ConvertOptions(to="plain")).model
    vgaudit.save(plain, tmp_path / "plain.safetensors")
    assert json.loads((tmp_path / "plain.recipe.json").read_text())["steps"] == []


def test_the_whole_module_on_request(tmp_path: Path) -> None:
    model = converted("functional_activations", to="adact")
    assert vgaudit.save(model, tmp_path / "out.pt") == (tmp_path / "out.pt",)
    again = torch.load(tmp_path / "out.pt", weights_only=False)
    name = "functional_activations"
    assert torch.equal(outputs(model, name)[0], outputs(again, name)[0])


@pytest.mark.parametrize("what", ["a local class", "a lambda", "a lock"])
def test_what_pickle_has_no_name_for_is_said_and_nothing_stays(
    what: str, tmp_path: Path
) -> None:
    class Local(nn.Sequential):
        """Found by no name."""

    kind = Local if what == "a local class" else nn.Sequential
    model = kind(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 2))
    model.extra = {"a lambda": lambda x: x, "a lock": threading.Lock()}.get(what)
    (tmp_path / "old.pt").write_bytes(b"old")
    with pytest.raises(CannotWrite, match=r"cannot be pickled: .*") as caught:
        vgaudit.save(model, tmp_path / "old.pt", force=True)
    assert "OUT.safetensors" in (caught.value.hint or "")
    assert [path.name for path in tmp_path.iterdir()] == ["old.pt"]
    assert (tmp_path / "old.pt").read_bytes() == b"old"


# ---------------------------------------------------------------- trust


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "out.safetensors"
    vgaudit.save(converted("sigmoid_mlp", to="ar"), path)
    return path


def edited(path: Path, change: Callable[[dict[str, object]], None]) -> None:
    recipe = path.with_name("out.recipe.json")
    record = json.loads(recipe.read_text())
    change(record)
    recipe.write_text(json.dumps(record))


def test_a_recipe_does_not_name_code(saved: Path) -> None:
    edited(saved, lambda r: r["architecture"].update(spec="os:system"))  # type: ignore[attr-defined]
    with pytest.raises(CannotLoad, match="which is code"):
        vgaudit.load(saved)


def test_a_recipe_may_name_a_zoo(tmp_path: Path) -> None:
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    model = squeezenet1_1(num_classes=4)
    batch = Batch(args=(torch.randn(2, 3, 64, 64),), size=2)
    done = treat(model, [batch], ConvertOptions(to="adact", layers=("features.1",)))
    path = tmp_path / "out.safetensors"
    origin = writing.Origin(
        architecture="torchvision:squeezenet1_1", model_args=(("num_classes", "4"),)
    )
    writing.save(done.model, path, origin=origin)
    again = vgaudit.load(path)
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(again.eval()(x), done.model.eval()(x))


def test_changed_code_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "out.safetensors"
    vgaudit.save(converted("functional_activations", to="adact"), path)

    def change(record: dict[str, object]) -> None:
        code = record["architecture"]["code"]  # type: ignore[index]
        for name in code:
            code[name] = "0" * 64

    edited(path, change)
    with pytest.raises(CannotLoad, match="is not the one that was converted"):
        vgaudit.load(path, arch=models.functional_activations)


def test_another_architecture_is_refused(saved: Path) -> None:
    with pytest.raises(CannotLoad):
        vgaudit.load(saved, arch=models.two_outputs)


def test_weights_and_recipe_belong_together(saved: Path) -> None:
    other = saved.with_name("other.safetensors")
    vgaudit.save(converted("sigmoid_mlp", to="ar", limit=2.0), other)
    os.replace(other, saved)
    with pytest.raises(CannotLoad, match="not the file that its recipe belongs to"):
        vgaudit.load(saved, arch=models.sigmoid_mlp)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no recipe of vgaudit"),
        ("{", "cannot be read as a recipe"),
        ('{"format": "vgaudit-recipe", "version": "9.0"}', "recipe version 9.0"),
        ('{"format": "vgaudit-recipe", "version": "1.0"}', "is damaged"),
    ],
)
def test_a_bad_recipe_is_refused(saved: Path, text: str, message: str) -> None:
    saved.with_name("out.recipe.json").write_text(text)
    with pytest.raises(CannotLoad, match=message):
        vgaudit.load(saved, arch=models.sigmoid_mlp)


def test_a_module_as_arch_needs_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="no recipe"):
        vgaudit.load(tmp_path / "none.safetensors", arch=models.sigmoid_mlp)


# ------------------------------------------------------------- atomic


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_existing_file_is_kept_without_force(saved: Path) -> None:
    before = digest(saved)
    model = converted("sigmoid_mlp", to="rescale")
    with pytest.raises(CannotWrite, match="exists already"):
        vgaudit.save(model, saved)
    assert digest(saved) == before
    vgaudit.save(model, saved, force=True)
    assert digest(saved) != before


@pytest.mark.parametrize("at", ["weights", "recipe", "check"])
def test_a_failure_leaves_the_old_files(
    saved: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    before = {path: digest(path) for path in saved.parent.iterdir()}
    model = converted("sigmoid_mlp", to="rescale")
    if at == "weights":
        monkeypatch.setattr(writing, "save_file", fail)
    if at == "recipe":
        monkeypatch.setattr(Path, "write_text", fail)
    check = fail if at == "check" else None
    with pytest.raises(CannotWrite, match="No space left"):
        writing.save(model, saved, force=True, check=check)
    assert {path: digest(path) for path in saved.parent.iterdir()} == before


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("Error while serializing: No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 1"),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_a_disk_that_fills_up_meanwhile_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, name: str
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(writing, "save_file", fail)
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(CannotWrite, match=r"no space is left, or the disk fails"):
        writing.save(converted("sigmoid_mlp", to="rescale"), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_room_is_measured_before_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model = models.sigmoid_mlp()
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    for free, fits in ((size, False), (size + (2 << 20), True)):
        usage = namedtuple("usage", "total used free")(1 << 40, 0, free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
        if fits:
            check_model(model, tmp_path / name)
        else:
            with pytest.raises(CannotWrite, match=f"bytes, {free:,} are free"):
                check_model(model, tmp_path / name)


def test_nothing_is_left_where_nothing_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(writing, "save_file", fail)
    with pytest.raises(CannotWrite):
        vgaudit.save(models.sigmoid_mlp(), tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_removed_later(tmp_path: Path) -> None:
    left = tmp_path / ".out.safetensors.abc.vgaudit-part"
    young = tmp_path / ".out.safetensors.def.vgaudit-part"
    for path in (left, young):
        path.write_text("half a file")
    os.utime(left, (0, 0))
    vgaudit.save(models.sigmoid_mlp(), tmp_path / "out.safetensors")
    assert not left.exists()
    assert young.exists()


def test_permissions_follow_the_umask_or_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.safetensors"
    old = os.umask(0o027)
    try:
        vgaudit.save(models.sigmoid_mlp(), path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    vgaudit.save(models.sigmoid_mlp(), path, force=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


@pytest.mark.parametrize("name", ["out.bin", "missing/out.safetensors", "."])
def test_places_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(CannotWrite):
        vgaudit.save(models.sigmoid_mlp(), tmp_path / name)


class Extra(nn.Linear):
    def get_extra_state(self) -> object:
        return {"note": "text"}

    def set_extra_state(self, state: object) -> None:
        del state


def test_what_safetensors_cannot_hold_is_said(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="_extra_state is a dict"):
        vgaudit.save(nn.Sequential(Extra(2, 2)), tmp_path / "out.safetensors")
