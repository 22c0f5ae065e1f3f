"""Models of transformers, always without the network (rows 43, 44)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.loading.builders import read, refusal, same_state
from vgaudit.errors import CannotLoad, UnknownSource
from vgaudit.job import LoadOptions
from vgaudit.loading import inspect

transformers = pytest.importorskip("transformers")


def bert() -> Any:
    """A tiny classifier, seeded."""
    config = transformers.BertConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=50,
        max_position_embeddings=12,
    )
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(config)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "bert"
    transformers.utils.logging.disable_progress_bar()
    bert().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bert"))


def edit_config(folder: Path, **changes: Any) -> None:
    """Changes entries of ``config.json``."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the weights of a directory."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_directory_loads_with_its_class_and_an_example(folder: Path) -> None:
    for spec in (str(folder), f"hf:{folder}"):
        loaded = read(spec)

        assert same_state(bert(), loaded.module)
        assert "BertForSequenceClassification" == loaded.target.architecture
        assert ("huggingface", "T0") == (
            loaded.target.format,
            loaded.target.trust_tier,
        )
        assert loaded.example is not None
        (tokens,) = loaded.example.inputs
        assert ("input_ids", (12,), "int64", 50) == (
            tokens.name,
            tokens.shape,
            tokens.dtype,
            tokens.high,
        )


def test_a_directory_with_a_pickle_of_weights_loads(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")

    loaded = read(folder)

    assert same_state(bert(), loaded.module)
    assert "T0" == loaded.target.trust_tier


class Touch:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_that_runs_code_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"a": Touch(tmp_path / "marker")}, folder / "pytorch_model.bin")

    message, _ = refusal(folder, CannotLoad)

    assert "refused: needs globals posix.system" in message
    assert not (tmp_path / "marker").exists()


def test_code_of_a_repository_is_not_run_and_nobody_is_asked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    (folder / "configuration_mine.py").write_text(f"open({str(marker)!r}, 'w')\n")
    mine = "configuration_mine.MineConfig"
    edit_config(folder, model_type="mine", auto_map={"AutoConfig": mine})
    monkeypatch.setattr("builtins.input", lambda *a: pytest.fail("asked"))

    message, hint = refusal(folder, CannotLoad)
    seen = inspect(str(folder), LoadOptions())

    assert "its architecture mine is code of the repository (tier T2)" in message
    assert hint.endswith("--allow-code")
    assert not marker.exists()
    assert any("code of the repository" in note for note in seen.notes)


def test_code_of_a_repository_runs_where_it_is_allowed(folder: Path) -> None:
    (folder / "configuration_mine.py").write_text(
        "from transformers import BertConfig\n\n\n"
        "class MineConfig(BertConfig):\n    model_type = 'mine'\n"
    )
    (folder / "modeling_mine.py").write_text(
        "from transformers import BertForSequenceClassification\n"
        "from .configuration_mine import MineConfig\n\n\n"
        "class Mine(BertForSequenceClassification):\n"
        "    config_class = MineConfig\n"
    )
    auto_map = {
        "AutoConfig": "configuration_mine.MineConfig",
        "AutoModelForSequenceClassification": "modeling_mine.Mine",
    }
    edit_config(folder, model_type="mine", architectures=["Mine"], auto_map=auto_map)

    loaded = read(folder, allow_code=True)

    assert ("Mine", "T2") == (loaded.target.architecture, loaded.target.trust_tier)
    assert same_state(bert(), loaded.module)


def test_an_unknown_type_without_code_is_named(folder: Path) -> None:
    edit_config(folder, model_type="mine")

    message, _ = refusal(folder, UnknownSource)

    assert "has no model type 'mine'" in message


def test_weights_that_do_not_fit_are_refused_not_initialised_anew(
    folder: Path,
) -> None:
    def change(state: dict[str, Any]) -> None:
        del state["bert.pooler.dense.bias"]
        state["extra"] = torch.zeros(2)
        state["classifier.bias"] = torch.zeros(7)

    edit_weights(folder, change)

    message, hint = refusal(folder, CannotLoad)

    assert "does not fit BertForSequenceClassification: 1 missing: " in message
    assert "bert.pooler.dense.bias; 1 unexpected: extra; 1 of another" in message
    assert "classifier.bias is [7] in the file, [2] in the architecture" in message
    assert "--allow-missing" in hint
    loaded = read(folder, allow_missing=True)
    assert ("bert.pooler.dense.bias",) == loaded.target.missing_keys
    assert ("extra",) == loaded.target.unexpected_keys


def test_a_damaged_weights_file_is_found_before_transformers_reads_it(
    folder: Path,
) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])

    message, _ = refusal(folder, CannotLoad)

    assert "truncated" in message


def test_an_index_may_not_leave_the_directory(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    weight_map = dict.fromkeys(state, "../outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )

    message, _ = refusal(folder, CannotLoad)

    assert "is not a plain file name" in message


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"quantization_config": {"load_in_4bit": True}}, "is quantised"),
        ({"_attn_implementation": "someone/kernel"}, "names a kernel to download"),
        ({"model_type": 3}, "names no model_type"),
    ],
)
def test_configurations_that_cannot_be_audited_say_why(
    folder: Path, changes: dict[str, Any], reason: str
) -> None:
    edit_config(folder, **changes)

    message, _ = refusal(folder, CannotLoad)

    assert reason in message


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]", "3"])
def test_broken_configurations_are_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)

    refusal(folder, CannotLoad)


def test_a_configuration_alone_is_initialised_from_the_seed(folder: Path) -> None:
    (folder / "model.safetensors").unlink()

    first, again = (read(folder, seed=3) for _ in range(2))

    assert same_state(first.module, again.module)
    assert ("initialised, seed 3",) == first.target.notes


def test_a_directory_can_be_the_architecture_of_weights(
    folder: Path, tmp_path: Path
) -> None:
    state = {key: 2 * value for key, value in bert().state_dict().items()}
    torch.save(state, tmp_path / "a.pt")

    loaded = read(tmp_path / "a.pt", arch=f"hf:{folder}")

    assert torch.equal(state["classifier.weight"], loaded.module.classifier.weight)


def test_a_name_without_a_network_is_refused_clearly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    def offline(*args: object, **kwargs: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)

    message, hint = refusal("hf:someone/model", CannotLoad)

    assert "hf:someone/model cannot be fetched: OSError: no network" == message
    assert "give a local directory: hf:DIR" in hint


def test_a_directory_that_is_not_there_is_no_name(tmp_path: Path) -> None:
    message, _ = refusal(f"hf:{tmp_path}/gone", CannotLoad)

    assert f"no such file: {tmp_path}/gone" == message


@pytest.mark.parametrize(
    ("build", "names", "task"),
    [
        (
            lambda t: t.ViTForImageClassification(
                t.ViTConfig(
                    hidden_size=8,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    intermediate_size=8,
                    image_size=32,
                )
            ),
            {"pixel_values": (3, 32, 32)},
            "image",
        ),
        (
            lambda t: t.T5ForConditionalGeneration(
                t.T5Config(
                    d_model=8, d_ff=8, d_kv=4, num_layers=1, num_heads=2, vocab_size=20
                )
            ),
            {"input_ids": (16,), "decoder_input_ids": (16,)},
            "text",
        ),
        (
            lambda t: t.CLIPModel(
                t.CLIPConfig(
                    text_config={
                        "hidden_size": 8,
                        "num_hidden_layers": 1,
                        "num_attention_heads": 2,
                        "vocab_size": 20,
                    },
                    vision_config={
                        "hidden_size": 8,
                        "num_hidden_layers": 1,
                        "num_attention_heads": 2,
                        "image_size": 64,
                    },
                )
            ),
            {"input_ids": (16,), "pixel_values": (3, 64, 64)},
            "text",
        ),
    ],
)
def test_configurations_tell_what_a_model_takes(
    build: Callable[[Any], Any], names: dict[str, tuple[int, ...]], task: str
) -> None:
    from vgaudit.loading.hf_example import example

    hint = example(build(transformers))

    assert hint is not None
    assert names == {given.name: given.shape for given in hint.inputs}
    assert task == hint.task
