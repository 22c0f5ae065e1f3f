"""torchvision and timm by name, and bare weights that are recognised."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.loading.builders import (
    ROOT,
    identical,
    light,
    read,
    refusal,
    same_state,
    saved,
    torchvision_or_skip,
)
from vgaudit.errors import CannotLoad, UnknownSource
from vgaudit.loading.built import on_meta
from vgaudit.loading.recognise import recognise

torchvision = torchvision_or_skip()


def test_a_name_is_built_from_its_seed() -> None:
    first, again = (read("torchvision:resnet18", seed=1) for _ in range(2))

    assert same_state(first.module, again.module)
    assert ("torchvision:resnet18", "T0") == (
        first.target.architecture,
        first.target.trust_tier,
    )
    assert ("torchvision:resnet18, initialised, seed 1",) == first.target.notes
    assert first.example is not None
    assert (3, 224, 224) == first.example.inputs[0].shape
    assert None is first.target.sha256


@pytest.mark.parametrize(
    ("name", "task", "shapes"),
    [
        ("torchvision:inception_v3", "image", [(3, 299, 299)]),
        ("torchvision:r3d_18", "video", [(3, 16, 112, 112)]),
        ("torchvision:raft_small", "optical-flow", [(3, 128, 128)] * 2),
        ("torchvision:lraspp_mobilenet_v3_large", "segmentation", [(3, 224, 224)]),
        (
            "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn",
            "detection",
            [(3, 224, 224)],
        ),
        ("timm:resnet10t", "image", [(3, 176, 176)]),
    ],
)
def test_zoos_say_what_their_models_take(
    name: str, task: str, shapes: list[tuple[int, ...]]
) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")

    example = read(name).example

    assert example is not None
    assert task == example.task
    assert shapes == [given.shape for given in example.inputs]


def test_arguments_reach_the_builder() -> None:
    loaded = read("torchvision:squeezenet1_1", model_args={"num_classes": "7"})

    assert 7 == loaded.module.classifier[1].out_channels
    message, hint = refusal(
        "torchvision:squeezenet1_1", CannotLoad, model_args={"depth": "7"}
    )
    assert "torchvision:squeezenet1_1 cannot be built" in message
    assert "check --model-arg" == hint


@pytest.mark.parametrize(
    ("spec", "near"),
    [("torchvision:resnet81", "resnet18"), ("timm:resnet10", "resnet10t")],
)
def test_misspelt_names_are_answered_with_the_nearest(spec: str, near: str) -> None:
    if spec.startswith("timm"):
        pytest.importorskip("timm")

    _, hint = refusal(spec, UnknownSource)

    assert near in hint


def test_timm_is_not_sent_to_foreign_repositories() -> None:
    pytest.importorskip("timm")

    refusal("timm:hf-hub:someone/model", UnknownSource)
    refusal("timm:local-dir:/tmp", UnknownSource)


def test_a_model_that_is_to_be_quantised_is_float() -> None:
    """Only with its weights, or quantize=true, torchvision makes whole numbers."""
    loaded = read("torchvision:quantized_resnet18")

    plain = read("torchvision:resnet18").module.state_dict()
    assert plain.keys() <= loaded.module.state_dict().keys()
    assert all(p.is_floating_point() for p in loaded.module.parameters())


@pytest.mark.parametrize(
    ("spec", "arguments"),
    [
        ("torchvision:quantized_resnet18@DEFAULT", {}),
        ("torchvision:quantized_resnet18", {"quantize": "True"}),
    ],
)
def test_quantised_weights_are_refused(spec: str, arguments: dict[str, str]) -> None:
    message, hint = refusal(spec, CannotLoad, model_args=arguments)

    assert "is quantised: there are no trainable float weights" in message
    assert "give torchvision:resnet18" == hint


def test_unknown_weights_name_the_known_ones() -> None:
    message, hint = refusal("torchvision:resnet18@BEST", UnknownSource)

    assert "torchvision:resnet18 has no weights 'BEST'" == message
    assert "it has IMAGENET1K_V1, DEFAULT" == hint


def test_weights_that_cannot_be_fetched_name_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*args: object, **kwargs: object) -> object:
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)

    message, hint = refusal("torchvision:resnet18", CannotLoad, pretrained=True)

    assert "weights IMAGENET1K_V1 cannot be fetched" in message
    assert "https://download.pytorch.org/models/resnet18" in hint
    assert "--weights FILE" in hint


def test_a_missing_torchvision_is_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    monkeypatch.delattr(torchvision, "models", raising=False)

    message, hint = refusal("torchvision:resnet18", CannotLoad)

    assert message.startswith("torchvision cannot be imported: ")
    assert "belongs to this torch" in hint


QUICK = [
    ("resnet18", {}),
    ("resnet18", {"num_classes": 7}),
    ("mobilenet_v3_small", {"num_classes": 2}),
    ("vit_b_16", {}),
    ("swin_t", {}),
    ("googlenet", {"aux_logits": False, "init_weights": False}),
    ("fcn_resnet50", {"num_classes": 3}),
    ("r3d_18", {}),
]


@pytest.mark.parametrize(("name", "options"), QUICK)
@pytest.mark.parametrize("prefix", ["", "module.model."])
def test_torchvision_is_recognised(
    name: str, options: dict[str, Any], prefix: str
) -> None:
    # In the order of safetensors, which is none of the model's.
    state = light(name, **options).state_dict()
    shuffled = {f"{prefix}{key}": state[key] for key in sorted(state, reverse=True)}

    began = time.process_time()
    guess = recognise(shuffled)

    assert guess is not None
    assert name == guess.name
    wanted = options.get("num_classes")
    assert (str(wanted) if wanted else None) == guess.arguments.get("num_classes")
    assert time.process_time() - began < 3


SAME_WEIGHTS = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": "fasterrcnn_mobilenet_v3_large_fpn"
}


@pytest.mark.slow
@pytest.mark.parametrize("name", torchvision.models.list_models())
def test_every_torchvision_model_is_recognised(name: str) -> None:
    if name.startswith("quantized_"):
        return
    if name == "ssdlite320_mobilenet_v3_large":
        model = read(f"torchvision:{name}").module
    else:
        model = light(name)

    guess = recognise(model.state_dict())

    assert guess is not None
    assert SAME_WEIGHTS.get(name, name) == guess.name


def test_what_is_no_torchvision_model_is_not_taken_for_one() -> None:
    state = light("resnet18").state_dict()
    other = {k: v for k, v in state.items() if k != "layer1.0.conv1.weight"}
    wider = {**state, "conv1.weight": torch.empty(64, 1, 7, 7)}

    assert None is recognise(other)
    assert None is recognise(wider)
    assert None is recognise({"weight": torch.ones(2)})


def test_recognised_weights_load_without_an_architecture(tmp_path: Path) -> None:
    model = torchvision.models.squeezenet1_1(num_classes=5)
    state = {f"module.{key}": value for key, value in model.state_dict().items()}

    loaded = read(saved(tmp_path / "a.pt", state))

    assert same_state(model, loaded.module)
    assert "torchvision:squeezenet1_1" == loaded.target.architecture
    assert "T0" == loaded.target.trust_tier
    assert (
        "recognised as torchvision:squeezenet1_1 (num_classes=5), by keys and shapes",
    ) == loaded.target.notes
    assert ("module.",) == loaded.target.stripped_prefixes


@pytest.mark.parametrize("name", ["swin_t", "regnet_y_400mf"])
def test_building_without_memory_gives_the_same_model(
    tmp_path: Path, name: str
) -> None:
    # Buffers that no state_dict holds must come out right.
    model = torchvision.models.get_model(name).eval()
    path = saved(tmp_path / "a.pt", model.state_dict())

    loaded = read(path, arch=f"torchvision:{name}").module.eval()

    assert not on_meta(loaded)
    assert same_state(model, loaded)
    images = torch.ones(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(model(images), loaded(images))


def test_weights_without_a_part_leave_that_part_seeded(tmp_path: Path) -> None:
    model = torchvision.models.squeezenet1_1()
    state = {k: v for k, v in model.state_dict().items() if "classifier" not in k}
    path = saved(tmp_path / "a.pt", state)

    loaded = read(path, arch="torchvision:squeezenet1_1", allow_missing=True, seed=3)

    fresh = read("torchvision:squeezenet1_1", seed=3).module
    assert not on_meta(loaded.module)
    assert ("classifier.1.weight", "classifier.1.bias") == loaded.target.missing_keys
    assert identical(
        fresh.classifier[1].weight.detach(),
        loaded.module.classifier[1].weight.detach(),
    )


def test_another_number_of_classes_names_the_argument(tmp_path: Path) -> None:
    state = torchvision.models.resnet18(num_classes=10).state_dict()

    _, hint = refusal(
        saved(tmp_path / "a.pt", state), CannotLoad, arch="torchvision:resnet18"
    )

    assert "--model-arg num_classes=N" in hint


def test_loading_itself_imports_no_zoo() -> None:
    import subprocess

    program = (
        "import sys, vgaudit.loading\n"
        "zoos = {'torchvision', 'timm', 'transformers'} & set(sys.modules)\n"
        "assert not zoos, zoos"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
