"""Keys of a file against keys of an architecture (rows 30-32)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.loading.builders import (
    fixture_arch,
    identical,
    read,
    refusal,
    same_state,
    saved,
    tiny,
    tiny_arch,
    torchvision_or_skip,
)
from vgaudit.errors import BadConfig, CannotLoad
from vgaudit.loading.keys import match_keys

WANTED = {
    "layers.0.weight": (3, 4),
    "layers.0.bias": (3,),
    "layers.2.weight": (2, 3),
    "head.weight": (5, 2),
}


def stripped(change: object) -> tuple[dict[str, str], tuple[str, ...]]:
    """The match of WANTED with its keys changed."""
    given = {change(key): shape for key, shape in WANTED.items()}  # type: ignore[operator]
    match = match_keys(given, WANTED)
    return match.names, match.stripped


@pytest.mark.parametrize(
    ("change", "prefixes"),
    [
        (lambda k: k, ()),
        (lambda k: f"module.{k}", ("module.",)),
        (lambda k: f"_orig_mod.{k}", ("_orig_mod.",)),
        (lambda k: f"module._orig_mod.{k}", ("module.", "_orig_mod.")),
        (lambda k: f"_orig_mod.module.{k}", ("_orig_mod.", "module.")),
        (lambda k: f"model.{k}", ("model.",)),
        (lambda k: f"net.{k}", ("net.",)),
        (lambda k: f"model.backbone.{k}", ("model.backbone.",)),
        (lambda k: f"module.model.{k}", ("module.", "model.")),
        (lambda k: f"model._orig_mod.{k}", ("_orig_mod.", "model.")),
        (lambda k: k.replace("layers.", "layers._orig_mod."), ("_orig_mod.",)),
        (lambda k: k.replace(".0.", ".0._orig_mod."), ("_orig_mod.",)),
        (
            lambda k: k.replace("layers.", "layers._fsdp_wrapped_module."),
            ("_fsdp_wrapped_module.",),
        ),
    ],
)
def test_prefixes_are_stripped_and_stated(
    change: object, prefixes: tuple[str, ...]
) -> None:
    names, found = stripped(change)

    assert prefixes == found
    assert set(WANTED) == set(names.values())


def test_nothing_is_stripped_where_nothing_fits_then() -> None:
    names, found = stripped(lambda k: f"other.{k}.x")

    assert () == found
    assert all(key == new for key, new in names.items())


def test_shapes_count_for_a_fit() -> None:
    given = {f"model.{key}": (9, 9) for key in WANTED}

    assert () == match_keys(given, WANTED).stripped


def test_a_module_named_like_a_wrapper_keeps_its_name() -> None:
    wanted = {"module.weight": (2,), "head.weight": (3,)}

    assert () == match_keys(wanted, wanted).stripped
    match = match_keys({f"net.{k}": s for k, s in wanted.items()}, wanted)
    assert set(wanted) == set(match.names.values())
    assert ("net.",) == match.stripped


def test_extra_keys_beside_a_prefix_keep_their_names() -> None:
    given = {f"model.{key}": shape for key, shape in WANTED.items()}

    match = match_keys({**given, "loss.weight": (10,)}, WANTED)

    assert "loss.weight" == match.names["loss.weight"]
    assert ("model.",) == match.stripped


def test_two_sets_under_two_prefixes_are_rivals() -> None:
    given = {f"{p}.{k}": s for p in ("model", "ema") for k, s in WANTED.items()}

    match = match_keys(given, WANTED)

    assert {"model.", "ema."} == {match.prefix, *match.rivals}


@given(
    st.dictionaries(
        st.from_regex(
            r"[a-c_]{1,3}(\.(module|_orig_mod|[a-c0-2])){0,3}", fullmatch=True
        ),
        st.sampled_from([(1,), (2,), (1, 2), None]),
        max_size=8,
    ),
    st.dictionaries(
        st.from_regex(
            r"[a-c_]{1,3}(\.(module|_orig_mod|[a-c0-2])){0,3}", fullmatch=True
        ),
        st.sampled_from([(1,), (2,), (1, 2), None]),
        max_size=8,
    ),
)
def test_a_match_loses_no_key_and_takes_none_twice(
    given_keys: dict[str, tuple[int, ...] | None],
    wanted: dict[str, tuple[int, ...] | None],
) -> None:
    match = match_keys(given_keys, wanted)

    assert list(given_keys) == list(match.names)
    assert len(set(match.names.values())) == len(given_keys)
    for key, new in match.names.items():
        assert new == key or new in wanted


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        torch.compile,
        lambda m: nn.DataParallel(torch.compile(m)),
        lambda m: nn.Sequential(*(torch.compile(layer) for layer in m)),
    ],
)
def test_states_of_wrapped_models_load(tmp_path: Path, wrap: object) -> None:
    state = wrap(tiny()).state_dict()  # type: ignore[operator]

    loaded = read(saved(tmp_path / "a.pt", state), arch=tiny_arch(tmp_path))

    assert same_state(tiny(), loaded.module)
    assert loaded.target.stripped_prefixes


def test_a_plain_state_loads_into_a_compiled_architecture(tmp_path: Path) -> None:
    (tmp_path / "fast.py").write_text(
        "import torch\nfrom tests.loading.builders import tiny\n\n"
        "def build():\n    return torch.compile(tiny())\n"
    )
    state = {key: 2 * value for key, value in tiny().state_dict().items()}

    loaded = read(saved(tmp_path / "a.pt", state), arch=f"{tmp_path / 'fast.py'}:build")

    found = loaded.module.state_dict()
    assert identical(state["0.weight"], found["_orig_mod.0.weight"])


def test_two_sets_in_one_state_ask_for_a_key(tmp_path: Path) -> None:
    arch = tiny_arch(tmp_path)
    state = tiny().state_dict()
    both = {f"model.{k}": v for k, v in state.items()}
    both |= {f"ema.{k}": v / 2 for k, v in state.items()}
    path = saved(tmp_path / "a.pt", both)

    message, hint = refusal(path, BadConfig, arch=arch)
    loaded = read(path, arch=arch, key="ema")

    assert f"{path} holds several sets of weights: model, ema" == message
    assert "choose --key model|ema" == hint
    assert identical(state["0.weight"] / 2, loaded.module[0].weight.detach())


def test_missing_and_unexpected_keys_are_listed(tmp_path: Path) -> None:
    arch = tiny_arch(tmp_path)
    state = {k: v for k, v in tiny().state_dict().items() if k != "2.bias"}
    state |= {f"extra.{i}": torch.ones(1) for i in range(7)}
    state["0.bias"] = torch.ones(9)
    path = saved(tmp_path / "a.pt", state)

    message, hint = refusal(path, CannotLoad, arch=arch)

    assert (
        f"{path} does not fit Sequential: 1 missing: 2.bias; 7 unexpected: extra.0, "
        "extra.1, extra.2, extra.3, extra.4 and 2 more; 1 of another shape: "
        "0.bias is [9] in the file, [3] in the architecture"
    ) == message
    assert "--allow-missing" in hint


def test_missing_keys_may_be_allowed(tmp_path: Path) -> None:
    arch = tiny_arch(tmp_path)
    state = {k: 2 * v for k, v in tiny().state_dict().items() if k != "2.bias"}
    state["extra"] = torch.ones(1)
    state["0.bias"] = torch.ones(9)

    loaded = read(saved(tmp_path / "a.pt", state), arch=arch, allow_missing=True)

    assert ("2.bias",) == loaded.target.missing_keys
    assert ("extra",) == loaded.target.unexpected_keys
    assert any("0.bias is [9] in the file" in note for note in loaded.target.notes)
    assert identical(state["0.weight"], loaded.module[0].weight.detach())
    assert (3,) == tuple(loaded.module[0].bias.shape)


def test_weights_of_which_nothing_fits_are_refused_even_then(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"other": torch.ones(2)})

    refusal(path, CannotLoad, arch=tiny_arch(tmp_path), allow_missing=True)


def test_weights_without_architecture_ask_for_one(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", tiny().state_dict())

    message, hint = refusal(path, CannotLoad)

    assert message.startswith(f"{path} holds weights without an architecture: 0.weight")
    assert hint.startswith("add --arch file.py:factory, torchvision:NAME")


def test_names_from_a_file_are_made_harmless(tmp_path: Path) -> None:
    state = dict(tiny().state_dict())
    state["\x1b[31m\n::error::" + "x" * 1000] = torch.ones(1)
    path = saved(tmp_path / "a.pt", state)

    message, _ = refusal(path, CannotLoad, arch=tiny_arch(tmp_path))

    assert "\\x1b[31m\\x0a::error::" in message
    assert "\x1b" not in message
    assert len(message) < 500


def test_counters_that_old_files_lack_are_filled_in(tmp_path: Path) -> None:
    arch = fixture_arch("inplace_relu_cnn")
    state = {
        key: value
        for key, value in read(arch).module.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }

    loaded = read(saved(tmp_path / "a.pt", state), arch=arch)

    assert 0 == loaded.module.norm2.num_batches_tracked


def test_safetensors_of_mnasnet_is_taken_as_current(tmp_path: Path) -> None:
    # Without the versions of a state_dict, MNASNet refuses to load.
    torchvision = torchvision_or_skip()
    from safetensors.torch import save_file

    model = torchvision.models.mnasnet0_5()
    save_file(model.state_dict(), tmp_path / "a.safetensors")

    loaded = read(tmp_path / "a.safetensors", arch="torchvision:mnasnet0_5")

    assert same_state(model, loaded.module)


def test_versions_of_modules_follow_their_prefix(tmp_path: Path) -> None:
    # MNASNet refuses a state_dict that does not tell its version.
    torchvision = torchvision_or_skip()
    model = torchvision.models.mnasnet0_75()
    state = nn.ModuleDict({"net": model}).state_dict()
    assert 2 == state._metadata["net"]["version"]

    loaded = read(saved(tmp_path / "a.pt", state), arch="torchvision:mnasnet0_75")

    assert ("net.",) == loaded.target.stripped_prefixes
    assert same_state(model, loaded.module)
