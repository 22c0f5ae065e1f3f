"""Models of the Hugging Face hub: from the local cache, else from the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vgaudit.errors import CannotLoad
from vgaudit.loading.wording import one_line

SECONDS = 5.0
CONFIG = "config.json"
PATTERNS = ["*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin*"]


def import_transformers() -> Any:
    """Returns transformers.

    Raises:
        CannotLoad: it cannot be imported.
    """
    try:
        import transformers
    except (ImportError, RuntimeError, OSError) as error:
        text = one_line(error)
        raise CannotLoad(
            f"transformers cannot be imported: {text}", hint="pip install transformers"
        ) from error
    return transformers


def fetch(name: str, *, weights: bool) -> Path:
    """Returns the local folder of a model of the hub.

    Args:
        name: ``organisation/model``.
        weights: fetch its weights too, not its configuration alone.

    Raises:
        CannotLoad: not in the cache, and the hub cannot be reached or has no
            such model.
    """
    import_transformers()
    import huggingface_hub as hub

    wanted = [CONFIG, *(PATTERNS if weights else [])]
    try:
        folder = hub.snapshot_download(
            name, allow_patterns=wanted, etag_timeout=SECONDS
        )
    except Exception as error:
        text = one_line(error, 160)
        raise CannotLoad(
            f"hf:{name} cannot be fetched: {type(error).__name__}: {text}",
            hint="offline, or no such model? give a local directory: hf:DIR",
        ) from error
    return Path(folder)
