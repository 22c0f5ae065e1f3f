"""Inputs of ``transformers`` models, read from their configuration.

Only attributes are read; the library is not imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from vgaudit.data.inputs.form import CallForm, TensorForm
from vgaudit.data.inputs.search import Proposal
from vgaudit.data.inputs.signature import takes, unwrap

_LENGTH = 16
_SAMPLES = 16_000
_LIMITS = ("max_position_embeddings", "n_positions", "max_target_positions")
_FRAME_WIDTHS = ("input_feat_per_channel", "feature_projection_input_dim")


def is_transformers(model: nn.Module) -> bool:
    """Tells whether the model is a ``PreTrainedModel``."""
    names = {base.__name__ for base in type(unwrap(model)).__mro__}
    return "PreTrainedModel" in names and hasattr(unwrap(model), "config")


def transformers_proposals(model: nn.Module, batch: int) -> Iterator[Proposal]:
    """Yields the calls that the configuration describes, most complete first.

    The first gives every input that the main argument needs; the second adds
    what only multimodal models ask for; the third follows ``dummy_inputs``.
    """
    model = unwrap(model)
    main = getattr(model, "main_input_name", "input_ids")
    names = [main]
    both = ("input_ids", "pixel_values")
    if all(takes(model, name) for name in both) and _is_dual(model):
        names = list(both)
    found = _call(model, names, batch)
    if found is not None:
        yield found
    for name in _INPUTS:
        if name not in names and takes(model, name):
            more = _call(model, [*names, name], batch)
            if more is not None:
                yield more
    yield from _dummy(model, batch)


def _is_dual(model: Any) -> bool:
    config = model.config
    return hasattr(config, "text_config") and hasattr(config, "vision_config")


def _call(model: Any, names: list[str], batch: int) -> Proposal | None:
    kwargs: dict[str, Any] = {}
    for name in names:
        form = _INPUTS[name](model, batch) if name in _INPUTS else None
        if form is None:
            return None
        kwargs[name] = form
    if getattr(model.config, "is_encoder_decoder", False):
        for name in ("decoder_input_ids", "decoder_input_values"):
            if takes(model, name) and name not in kwargs:
                decoder = _INPUTS[name](model, batch)
                if decoder is not None:
                    kwargs[name] = decoder
    if takes(model, "use_cache"):  # a cache is no output of interest
        kwargs["use_cache"] = False
    call = CallForm(
        kwargs=kwargs, size=batch, why="read from the model's configuration"
    )
    return Proposal(lambda _: call)


def _dummy(model: Any, batch: int) -> Iterator[Proposal]:
    """Yields the shapes of ``dummy_inputs``, with ids below the vocabulary."""
    try:
        dummy = dict(model.dummy_inputs)
    except Exception:  # a property of foreign code
        return
    kwargs: dict[str, Any] = {}
    for name, value in dummy.items():
        if isinstance(value, torch.Tensor) and value.dim() > 0:
            kwargs[name] = _like(value, model, batch)
        else:
            kwargs[name] = value
    call = CallForm(kwargs=kwargs, size=batch, why="the model's dummy_inputs")
    yield Proposal(lambda _: call)


def _like(value: torch.Tensor, model: Any, batch: int) -> TensorForm:
    shape = (batch, *value.shape[1:])
    if value.is_floating_point():
        return TensorForm(shape=shape)
    high = _setting(model, "vocab_size") or int(value.max()) + 1
    return TensorForm(shape=shape, dtype=torch.int64, fill="ids", high=max(high, 1))


def _setting(model: Any, *names: str) -> Any:
    """Returns the first setting found, in the configuration and its parts."""
    config = model.config
    parts = ("text_config", "vision_config", "audio_config", "encoder", "decoder")
    places = [config, *(getattr(config, part, None) for part in parts)]
    for place in places:
        for name in names:
            value = getattr(place, name, None)
            if value is not None:
                return value
    return None


def _ids(model: Any, batch: int, vocabulary: str = "vocab_size") -> TensorForm | None:
    high = _setting(model, vocabulary, "vocab_size")
    if not isinstance(high, int):
        return None
    limit = _setting(model, *_LIMITS)
    length = min(_LENGTH, limit) if isinstance(limit, int) and limit > 0 else _LENGTH
    return TensorForm(shape=(batch, length), dtype=torch.int64, fill="ids", high=high)


def _decoder_ids(model: Any, batch: int) -> TensorForm | None:
    return _ids(model, batch, "decoder_vocab_size")


def _pixels(model: Any, batch: int) -> TensorForm:
    channels = _setting(model, "num_channels", "in_channels", "in_chans") or 3
    side = _setting(model, "image_size", "input_size", "crop_size") or 224
    if isinstance(side, dict):
        height, width = side["height"], side["width"]
    elif isinstance(side, (list, tuple)):
        height, width = side[-2], side[-1]
    else:
        height = width = side
    frames = _setting(model, "num_frames")
    if isinstance(frames, int):
        return TensorForm(shape=(batch, frames, channels, height, width))
    return TensorForm(shape=(batch, channels, height, width))


def _waveform(model: Any, batch: int) -> TensorForm:
    bins = _setting(model, "num_mel_bins")
    length = _setting(model, "max_length")
    if isinstance(bins, int) and isinstance(length, int) and length > 20:
        return TensorForm(shape=(batch, length, bins))  # audio spectrogram models
    return TensorForm(shape=(batch, _SAMPLES))


def _features(model: Any, batch: int) -> TensorForm | None:
    positions = _setting(model, "max_source_positions")
    bins = _setting(model, "num_mel_bins")
    per_channel = _setting(model, *_FRAME_WIDTHS)
    if isinstance(per_channel, int):
        return TensorForm(shape=(batch, 128, per_channel))
    if isinstance(bins, int) and isinstance(positions, int):
        return TensorForm(shape=(batch, bins, 2 * positions))
    return None


_INPUTS: dict[str, Callable[[Any, int], TensorForm | None]] = {
    "input_ids": _ids,
    "decoder_input_ids": _decoder_ids,
    "decoder_input_values": _waveform,
    "pixel_values": _pixels,
    "pixel_values_videos": _pixels,
    "input_values": _waveform,
    "input_features": _features,
}
"""Argument names, as the library uses them throughout."""
