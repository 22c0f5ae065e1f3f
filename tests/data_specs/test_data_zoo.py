"""Inputs of torchvision's, timm's and transformers' models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.data_specs.states import assert_same, model_state
from vgaudit.data import infer_inputs, open_batches
from vgaudit.job import DataOptions

OPTIONS = DataOptions(batches=1)


@pytest.fixture
def zoo() -> Any:
    try:
        from torchvision import models
    except Exception as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    return models


@pytest.fixture
def quick_initialisation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers for millions of weights are not what is tested here."""
    for name in ("kaiming_normal_", "normal_", "trunc_normal_", "kaiming_uniform_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)


def build(zoo: Any, name: str) -> nn.Module:
    settings: dict[str, Any] = {"weights": None}
    headed = {*zoo.list_models(zoo.detection), *zoo.list_models(zoo.segmentation)}
    if name in headed:
        settings["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        settings["init_weights"] = False
    model: nn.Module = zoo.get_model(name, **settings)
    return model


FORMS = {
    "squeezenet1_1": "float32 4x3x224x224",
    "mobilenet_v3_small": "float32 4x3x224x224",
    "vit_b_32": "float32 4x3x224x224",
    "swin_t": "float32 4x3x224x224",
    "inception_v3": "float32 2x3x299x299",
    "lraspp_mobilenet_v3_large": "float32 4x3x224x224",
    "r2plus1d_18": "float32 2x3x16x112x112",
    "s3d": "float32 2x3x16x224x224",
    "raft_small": "float32 2x3x128x128, float32 2x3x128x128",
    "ssdlite320_mobilenet_v3_large": "list of 2 images 3x256x256, "
    "targets with boxes, labels",
}


HEAVY = {"vit_b_32", "swin_t", "s3d"}


@pytest.mark.usefixtures("quick_initialisation")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in HEAVY else [])
        for name in FORMS
    ],
)
def test_torchvision_models_get_what_they_take(zoo: Any, name: str) -> None:
    model = build(zoo, name)
    before = model_state(model)

    assert FORMS[name] == str(infer_inputs(model, None, OPTIONS))
    assert_same(before, model_state(model))


def test_a_detector_trains_on_its_made_up_targets(zoo: Any) -> None:
    model = zoo.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4
    )
    batches = open_batches(model, OPTIONS)
    (batch,) = batches
    losses = model(*batch.args, **batch.kwargs)

    assert batches.labelled
    assert batch.size == 2
    assert {"bbox_regression", "classification"} == set(losses)
    sum(losses.values()).backward()
    assert [] == [
        name for name, p in model.named_parameters() if not p.grad.abs().sum() > 0
    ]


def test_a_detector_in_eval_mode_gets_images_alone(zoo: Any) -> None:
    model = zoo.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None
    ).eval()
    batches = open_batches(model, OPTIONS, mode="eval")
    (batch,) = batches

    assert not batches.labelled
    assert 1 == len(batch.args)


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("maskrcnn_resnet50_fpn", {"boxes", "labels", "masks"}),
        ("keypointrcnn_resnet50_fpn", {"boxes", "labels", "keypoints"}),
        ("retinanet_resnet50_fpn", {"boxes", "labels"}),
    ],
)
@pytest.mark.usefixtures("quick_initialisation")
def test_targets_have_what_the_heads_need(zoo: Any, kind: str, keys: set[str]) -> None:
    (batch,) = open_batches(build(zoo, kind), OPTIONS)

    assert keys == set(batch.args[1][0])


def test_raft_runs_on_its_pair(zoo: Any) -> None:
    model = zoo.optical_flow.raft_small(weights=None)
    (batch,) = open_batches(model, OPTIONS)
    with torch.no_grad():
        flows = model(*batch.args, num_flow_updates=1)

    assert (2, 2, 128, 128) == tuple(flows[0].shape)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_initialisation")
def test_the_whole_torchvision_zoo(zoo: Any) -> None:
    failed = {}
    for name in zoo.list_models():
        if name.startswith("quantized"):
            continue
        try:
            infer_inputs(build(zoo, name), None, OPTIONS)
        except Exception as error:
            failed[name] = str(error)

    assert {} == failed


class PreTrainedModel(nn.Module):
    """As far as ``vgaudit`` knows the class of transformers: by its name."""

    main_input_name = "input_ids"


class Config:
    vocab_size = 99
    max_position_embeddings = 12
    is_encoder_decoder = True


class Tiny(PreTrainedModel):
    """Encoder and decoder, with a cache option."""

    config = Config()

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(99, 4)

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        use_cache: bool = True,
    ) -> Any:
        if input_ids is None or decoder_input_ids is None or use_cache:
            raise ValueError("both sequences, and no cache")
        return self.table(input_ids) + self.table(decoder_input_ids)


def test_a_configuration_is_read() -> None:
    call = infer_inputs(Tiny(), None, OPTIONS)

    assert (
        "input_ids=int64 8x12 below 99, decoder_input_ids=int64 8x12 below 99"
        == str(call)
    )
    assert call.kwargs["use_cache"] is False


TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 99,
    "max_position_embeddings": 64,
}
IMAGE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
SPEECH = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": 99,
}
WAVE = {
    **{k: v for k, v in TEXT.items() if "posit" not in k},
    "conv_dim": [32] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
SHORT = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TRANSFORMERS: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "BertForSequenceClassification": ("BertConfig", TEXT, {"input_ids"}),
    "LlamaForCausalLM": (
        "LlamaConfig",
        {**TEXT, "num_key_value_heads": 2},
        {"input_ids"},
    ),
    "BartForConditionalGeneration": (
        "BartConfig",
        {**SPEECH, "max_position_embeddings": 64},
        {"input_ids", "decoder_input_ids"},
    ),
    "ViTForImageClassification": ("ViTConfig", IMAGE, {"pixel_values"}),
    "VideoMAEForVideoClassification": (
        "VideoMAEConfig",
        {**IMAGE, "num_frames": 4},
        {"pixel_values"},
    ),
    "CLIPModel": (
        "CLIPConfig",
        {"text_config": TEXT, "vision_config": IMAGE},
        {"input_ids", "pixel_values"},
    ),
    "Wav2Vec2ForCTC": ("Wav2Vec2Config", WAVE, {"input_values"}),
    "WhisperForConditionalGeneration": (
        "WhisperConfig",
        {
            **SPEECH,
            **SHORT,
            "max_source_positions": 50,
            "max_target_positions": 20,
            "num_mel_bins": 10,
            "decoder_start_token_id": 1,
        },
        {"input_features", "decoder_input_ids"},
    ),
    "Speech2TextForConditionalGeneration": (
        "Speech2TextConfig",
        {**SPEECH, "input_feat_per_channel": 24, "conv_channels": 32},
        {"input_features", "decoder_input_ids"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_models_get_what_they_take(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    config, settings, names = TRANSFORMERS[name]
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, config)(**settings))
    (batch,) = open_batches(model, OPTIONS)

    model(**batch.kwargs)

    assert names == set(batch.kwargs) - {"use_cache"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", "mixer_s16_224", "levit_128", "vit_tiny_patch16_384"]
)
def test_timm_models_state_their_size(name: str) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, pretrained=False)
    (batch,) = open_batches(model, OPTIONS)

    assert model.pretrained_cfg["input_size"] == tuple(batch.args[0].shape[1:])
