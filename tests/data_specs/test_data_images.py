"""``imagefolder:DIR`` and ``torchvision:NAME@ROOT``."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.data_specs.states import random_states
from vgaudit.data import open_batches
from vgaudit.data.batches import Batches
from vgaudit.errors import BadConfig, CannotLoad, UnknownSource
from vgaudit.job import DataOptions

MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
STD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]


def convolution(channels: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )


def save(path: Path, size: tuple[int, int] = (32, 32), mode: str = "RGB") -> Path:
    """Writes noise; its own path is the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    depth = {"RGB": 3, "RGBA": 4, "L": 1}[mode]
    random = np.random.default_rng(len(str(path.name)))
    pixels = random.integers(0, 256, (height, width, depth), dtype=np.uint8)
    Image.fromarray(pixels.squeeze(), mode=None).convert(mode).save(path)
    return path


def folder(root: Path, classes: int = 2, each: int = 3, **how: Any) -> str:
    for number in range(classes):
        for index in range(each):
            save(root / f"class{number}" / f"{index}.png", **how)
    return f"imagefolder:{root}"


def opened(spec: str, model: nn.Module, **options: Any) -> Batches:
    return open_batches(model, DataOptions(data=spec, **options))


def test_a_picture_becomes_the_standardised_tensor(tmp_path: Path) -> None:
    path = save(tmp_path / "a" / "x.png", (7, 5))
    (batch,) = opened(f"imagefolder:{tmp_path}", convolution())
    pixels = np.asarray(Image.open(path), np.float32).transpose(2, 0, 1) / 255

    assert torch.equal(torch.from_numpy((pixels - MEAN) / STD), batch.args[0][0])
    assert [0] == batch.labels.tolist()


def test_classes_are_folders_in_alphabetical_order(tmp_path: Path) -> None:
    for name in ("zebra", "ant", "Bee"):
        save(tmp_path / name / "deep" / "er" / "x.png")
    batches = opened(f"imagefolder:{tmp_path}", convolution())
    (batch,) = batches

    assert [0, 1, 2] == sorted(batch.labels.tolist())
    assert batches.labelled
    assert "3 images in 3 classes" == batches.facts.notes[0]


def test_broken_images_are_skipped_and_counted(tmp_path: Path) -> None:
    spec = folder(tmp_path, each=4)
    (tmp_path / "class0" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    whole = (tmp_path / "class1" / "2.png").read_bytes()
    (tmp_path / "class1" / "2.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "class1" / "3.png").write_bytes(b"")
    batches = opened(spec, convolution(), batch_size=8)

    assert [5] == [batch.size for batch in batches]
    assert [5] == [batch.size for batch in batches]
    told = sorted(reason.partition(":")[0] for reason in batches.facts.skipped)
    assert ["class0/1.png", "class1/2.png", "class1/3.png"] == told


def test_no_readable_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"not a picture")
    with pytest.raises(CannotLoad) as caught:
        opened(f"imagefolder:{tmp_path}", convolution())

    assert caught.value.message == (
        "none of 1 images can be read; the first: a/x.png: "
        "cannot identify image file 'x.png'"
    )


def test_a_picture_of_too_many_pixels_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = folder(tmp_path, classes=1, each=2)
    save(tmp_path / "class0" / "huge.png", (90, 90))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    batches = opened(spec, convolution())

    assert [2] == [batch.size for batch in batches]
    assert 1 == len(batches.facts.skipped)
    assert batches.facts.skipped[0].startswith("class0/huge.png: Image size (8100")


def test_one_class_is_remarked(tmp_path: Path) -> None:
    batches = opened(folder(tmp_path, classes=1), convolution())

    assert (
        "3 images in a single class, 'class0': the labels say nothing, "
        "and a loss of classes is close to trivial" == batches.facts.notes[0]
    )


def test_images_without_classes_have_no_labels(tmp_path: Path) -> None:
    save(tmp_path / "x.png")
    save(tmp_path / "y.jpg")
    batches = opened(f"imagefolder:{tmp_path}", convolution())

    assert not batches.labelled
    assert (
        "2 images without class folders: there are no labels" == batches.facts.notes[0]
    )


def test_other_files_and_empty_folders_do_not_count(tmp_path: Path) -> None:
    spec = folder(tmp_path)
    (tmp_path / "class0" / "notes.txt").write_text("hello")
    (tmp_path / "__MACOSX").mkdir()
    batches = opened(spec, convolution())

    assert (
        "6 images in 2 classes",
        "1 folders hold no image and count as no class",
    ) == batches.facts.notes[:2]


def test_a_loop_of_links_is_entered_once(tmp_path: Path) -> None:
    spec = folder(tmp_path, classes=1)
    os.symlink(tmp_path / "class0", tmp_path / "class0" / "again")

    assert [3] == [batch.size for batch in opened(spec, convolution())]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such folder: {}"),
        (lambda path: path.write_text("x"), "not a folder: {}"),
        (lambda path: path.mkdir(), "no image in {}"),
    ],
)
def test_a_wrong_folder_is_named(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "d")
    with pytest.raises(CannotLoad) as caught:
        opened(f"imagefolder:{tmp_path}/d", convolution())

    assert message.format(tmp_path / "d") == caught.value.message


def test_images_of_one_size_keep_it(tmp_path: Path) -> None:
    (batch,) = opened(folder(tmp_path, size=(40, 24)), convolution())

    assert (6, 3, 24, 40) == tuple(batch.args[0].shape)


def test_images_of_several_sizes_are_brought_to_the_models(tmp_path: Path) -> None:
    save(tmp_path / "a" / "x.png", (64, 48))
    save(tmp_path / "a" / "y.png", (20, 100))
    batches = opened(f"imagefolder:{tmp_path}", convolution())
    (batch,) = batches

    assert (2, 3, 32, 32) == tuple(batch.args[0].shape)
    assert "images resized and centre cropped to 32x32" in batches.facts.notes


def test_resizing_keeps_the_middle(tmp_path: Path) -> None:
    """Left half black, right half white: the crop is cut in the middle."""
    pixels = np.zeros((16, 64), np.uint8)
    pixels[:, 32:] = 255
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a" / "x.png")
    (batch,) = opened(f"imagefolder:{tmp_path}", convolution(), inputs=("1x3x16x16",))
    grey = batch.args[0][0, 0] * 0.229 + 0.485

    assert torch.allclose(grey[:, :8], torch.zeros(16, 8), atol=1e-6)
    assert torch.allclose(grey[:, 8:], torch.ones(16, 8), atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "channels", "note"),
    [
        ("RGB", 1, "colours turned to grey: the model takes one channel"),
        ("L", 3, "grey repeated in three channels: the model takes three"),
        ("RGBA", 3, None),
    ],
)
def test_channels_follow_the_model(
    tmp_path: Path, mode: str, channels: int, note: str | None
) -> None:
    batches = opened(folder(tmp_path, mode=mode), convolution(channels))
    (batch,) = batches

    assert (6, channels, 32, 32) == tuple(batch.args[0].shape)
    assert note is None or note in batches.facts.notes


def test_deep_grey_keeps_its_levels(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    values = np.array([[0, 65_535], [32_768, 256]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a" / "x.png")
    (batch,) = opened(
        f"imagefolder:{tmp_path}", nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    )
    mean, std = float(MEAN.mean()), float(STD.mean())

    assert torch.allclose(
        batch.args[0].flatten() * std + mean,
        torch.tensor([0, 1, 32_768 / 65_535, 256 / 65_535]),
        atol=1e-6,
    )


def test_a_linear_model_gets_flat_images(tmp_path: Path) -> None:
    batches = opened(folder(tmp_path, size=(8, 8), mode="L"), nn.Linear(64, 2))
    (batch,) = batches

    assert (6, 64) == tuple(batch.args[0].shape)
    assert "each image given as 64: the model takes that" in batches.facts.notes


def test_a_hint_decides_the_size(tmp_path: Path) -> None:
    example = SimpleNamespace(shape=(3, 20, 20), name="", dtype="float32", high=0)
    hint = SimpleNamespace(inputs=(example,), task="image", source="zoo")
    options = DataOptions(data=folder(tmp_path))
    (batch,) = open_batches(convolution(), options, hint)

    assert (6, 3, 20, 20) == tuple(batch.args[0].shape)


def test_an_input_option_decides_the_size(tmp_path: Path) -> None:
    (batch,) = opened(folder(tmp_path), convolution(), inputs=("8x3x9x11",))

    assert (6, 3, 9, 11) == tuple(batch.args[0].shape)


def test_an_input_option_must_be_of_images(tmp_path: Path) -> None:
    with pytest.raises(BadConfig) as caught:
        opened(folder(tmp_path), convolution(), inputs=("8x3",))

    assert "--input '8x3' is no size of images" == caught.value.message


def test_a_model_of_text_takes_no_images(tmp_path: Path) -> None:
    with pytest.raises(BadConfig) as caught:
        opened(folder(tmp_path), nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)))

    assert (
        "the model takes int64 8x16 below 9, and images do not fit that"
        == caught.value.message
    )


def test_the_dtype_is_the_models(tmp_path: Path) -> None:
    (batch,) = opened(folder(tmp_path), convolution().double())

    assert torch.float64 == batch.args[0].dtype


def test_order_follows_the_seed_and_nothing_else(tmp_path: Path) -> None:
    spec = folder(tmp_path, classes=3, each=9)
    model = convolution()
    states = random_states()

    def labels(seed: int) -> list[list[int]]:
        batches = opened(spec, model, seed=seed, batches=3)
        first = [batch.labels.tolist() for batch in batches]
        assert first == [batch.labels.tolist() for batch in batches]
        return first

    assert labels(0) == labels(0)
    assert labels(0) != labels(1)
    assert states == random_states()


def test_no_image_comes_twice(tmp_path: Path) -> None:
    for index in range(20):
        Image.new("L", (4, 4), index).save(
            (tmp_path / "a").mkdir(exist_ok=True) or tmp_path / "a" / f"{index}.png"
        )
    batches = opened(
        f"imagefolder:{tmp_path}", nn.Linear(16, 2), batch_size=6, batches=9
    )
    values = torch.cat([batch.args[0][:, 0] for batch in batches])

    assert [6, 6, 6, 2] == [batch.size for batch in batches]
    assert 20 == len(values.unique())


def test_a_last_image_alone_is_left_out_for_batch_norm(tmp_path: Path) -> None:
    spec = folder(tmp_path, classes=1, each=9)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    batches = opened(spec, model, batch_size=4)

    assert [4, 4] == [batch.size for batch in batches]
    assert (
        "the last sample: left over alone: batch norm in train mode needs two samples",
    ) == batches.facts.skipped


def idx(path: Path, values: np.ndarray[Any, Any]) -> None:
    """Writes the format of the MNIST files."""
    head = struct.pack(">HBB", 0, 8, values.ndim)
    extents = struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(head + extents + values.tobytes())


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A set of six grey images in the layout of torchvision."""
    pytest.importorskip("torchvision", exc_type=Exception)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6, 28, 28), dtype=np.uint8)
    for part, pixels in (("train", images), ("t10k", 255 - images)):
        idx(raw / f"{part}-images-idx3-ubyte", pixels)
        idx(raw / f"{part}-labels-idx1-ubyte", np.arange(6, dtype=np.uint8))
    return tmp_path


@pytest.mark.parametrize(
    ("spec", "file", "part"),
    [
        ("MNIST", "train", "training"),
        ("MNIST/train", "train", "train"),
        ("MNIST/test", "t10k", "test"),
    ],
)
def test_a_torchvision_set_is_read_from_its_root(
    mnist: Path, spec: str, file: str, part: str
) -> None:
    batches = opened(f"torchvision:{spec}@{mnist}", convolution(1), batch_size=6)
    (batch,) = batches
    raw = (mnist / "MNIST" / "raw" / f"{file}-images-idx3-ubyte").read_bytes()[16:]
    pixels = torch.tensor(list(raw)).view(6, 1, 28, 28) / 255
    order = batch.labels

    assert torch.allclose((pixels[order] - 0.1307) / 0.3081, batch.args[0], atol=1e-5)
    assert (
        f"{part} part of MNIST, 6 images",
        "pixels scaled to [0, 1], then standardised with the statistics of MNIST "
        "(0.1307±0.3081)",
    ) == batches.facts.notes


def test_the_usual_root_is_data(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mnist / "here").mkdir()
    (mnist / "MNIST").rename(mnist / "here" / "MNIST")
    (mnist / "here").rename(mnist / "data")
    monkeypatch.chdir(mnist)

    assert 6 == next(iter(opened("torchvision:MNIST", convolution(1)))).size


def test_nothing_is_downloaded(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", exc_type=Exception)
    with pytest.raises(CannotLoad) as caught:
        opened(f"torchvision:CIFAR10@{tmp_path}", convolution())

    assert (
        f"CIFAR10 is not in {tmp_path} (not found or damaged)" == caught.value.message
    )
    assert caught.value.hint == (
        "nothing is downloaded; give the folder as torchvision:CIFAR10@ROOT, or "
        "fetch it once: torchvision.datasets.CIFAR10(ROOT, download=True)"
    )
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("MNIST/valid", "its parts: train, test"),
        ("SVHN/valid", "Valid values are"),
        ("EuroSAT/test", "it comes whole"),
    ],
)
def test_a_part_that_a_set_does_not_have(spec: str, hint: str, tmp_path: Path) -> None:
    pytest.importorskip("torchvision", exc_type=Exception)
    name, _, part = spec.partition("/")
    with pytest.raises(UnknownSource) as caught:
        opened(f"torchvision:{spec}@{tmp_path}", convolution(3))

    assert f"{name} has no part '{part}'" == caught.value.message
    assert hint in caught.value.hint


def test_a_broken_torchvision_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(CannotLoad) as caught:
        opened("torchvision:MNIST@.", convolution())

    assert caught.value.message.startswith("torchvision cannot be imported: ")
    assert caught.value.hint == "install the torchvision that belongs to your torch"


def test_a_set_of_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(UnknownSource) as caught:
        opened("torchvision:MINST", convolution())

    assert (
        "no torchvision data set of labelled images is called 'MINST'"
        == caught.value.message
    )
    assert "MNIST" in caught.value.hint


@pytest.mark.data
@pytest.mark.parametrize("model", [convolution(1), convolution(3), nn.Linear(784, 10)])
def test_real_mnist(model: nn.Module) -> None:
    root = os.environ.get("VGAUDIT_TEST_DATA")
    if not root:
        pytest.skip("VGAUDIT_TEST_DATA is not set")
    batches = opened(f"torchvision:MNIST@{root}", model, batch_size=500)
    pixels = torch.cat([batch.args[0].flatten() for batch in batches])

    # 2,000 images of 784 pixels: the published statistics fit to a few percent
    assert abs(float(pixels.mean())) < 0.05
    assert abs(float(pixels.std()) - 1) < 0.05
    for batch in batches:
        model(batch.args[0])


@pytest.mark.data
def test_real_images_in_folders() -> None:
    root = os.environ.get("VGAUDIT_TEST_DATA")
    if not root:
        pytest.skip("VGAUDIT_TEST_DATA is not set")
    spec = f"imagefolder:{root}/cifar10-subset/train"
    batches = opened(spec, convolution(), batch_size=64)

    assert [64] * 4 == [batch.size for batch in batches]
    assert 10 == len(torch.cat([batch.labels for batch in batches]).unique())
    assert not batches.facts.skipped
