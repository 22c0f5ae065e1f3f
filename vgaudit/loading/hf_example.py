"""Inputs of transformers' models, read from their configurations."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from torch import nn

from vgaudit.loading.loaded import ExampleInput, InputHint

TOKENS = 16
AUDIO_SAMPLES = 16_000
IMAGE_SIZE = 224


def example(module: nn.Module) -> InputHint | None:
    """Returns inputs that fit, or None where the configuration does not tell."""
    config = getattr(module, "config", None)
    if config is None:
        return None
    names = set(inspect.signature(module.forward).parameters)
    inputs = tuple(stated(config, names, getattr(module, "main_input_name", "")))
    if not inputs:
        return None
    tasks = {"input_ids": "text", "pixel_values": "image"}
    return InputHint(
        inputs=inputs,
        task=tasks.get(inputs[0].name, "audio"),
        source=f"configuration of {type(module).__name__}",
    )


def stated(config: Any, names: set[str], main: str) -> Iterator[ExampleInput]:
    """Yields the inputs that a forward pass needs."""
    if main == "input_ids":
        yield tokens(config, "input_ids")
    vision = getattr(config, "vision_config", None) or config
    if "pixel_values" in names and (main == "pixel_values" or vision is not config):
        yield image(vision)
    if main == "input_values":
        yield ExampleInput(name=main, shape=(AUDIO_SAMPLES,))
    if main == "input_features" and hasattr(config, "max_source_positions"):
        # Whisper halves the frames by a convolution of stride 2.
        frames = 2 * config.max_source_positions
        yield ExampleInput(name=main, shape=(config.num_mel_bins, frames))
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in names:
        yield tokens(config, "decoder_input_ids")


def tokens(config: Any, name: str) -> ExampleInput:
    """Returns a short text of any of the model's tokens."""
    text = config.get_text_config()
    length = getattr(text, "max_position_embeddings", None) or TOKENS
    if length < 1:  # XLNet says −1: any length
        length = TOKENS
    vocabulary = getattr(text, "vocab_size", None) or 2
    return ExampleInput(
        name=name, shape=(min(TOKENS, length),), dtype="int64", high=vocabulary
    )


def image(config: Any) -> ExampleInput:
    """Returns an image, or a clip where the model counts frames."""
    size = getattr(config, "image_size", None) or IMAGE_SIZE
    height, width = size if isinstance(size, list | tuple) else (size, size)
    shape = (getattr(config, "num_channels", None) or 3, height, width)
    frames = getattr(config, "num_frames", None)
    return ExampleInput(
        name="pixel_values", shape=(frames, *shape) if frames else shape
    )
