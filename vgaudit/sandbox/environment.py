"""The environment variables that a worker sees: no tokens, no secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping

from vgaudit.ranks import MEETING
from vgaudit.sandbox.rules import Rules

_SECRET = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|PRIVATE|AUTH|COOKIE|SESSION|DSN"
    r"|API_?KEY|ACCESS_?KEY|_KEY$|^KEY_|^AWS_|^AZURE_|^GOOGLE_|^GCP_|^GITHUB_"
    r"|^GITLAB_|^CI_|^ACTIONS_|^DOCKER_|^KUBE|^NPM_|^PIP_|^TWINE_|^SSH_|^GPG_"
    r"|^WANDB_|^MLFLOW_|_URL$|_URI$|CONNECTION",
    re.IGNORECASE,
)
_NEEDED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_.+|TZ|TERM|TMPDIR|TEMP|TMP"
    r"|SYSTEMROOT|WINDIR|COMSPEC|PATHEXT|APPDATA|LOCALAPPDATA|USERPROFILE"
    r"|NUMBER_OF_PROCESSORS|PROCESSOR_.+|LD_LIBRARY_PATH|LD_PRELOAD"
    r"|DYLD_.+|PYTHON.+|VIRTUAL_ENV|CONDA_PREFIX"
    r"|(?:OMP|MKL|KMP|GOMP|OPENBLAS|NUMEXPR|TORCH|PYTORCH|TORCHINDUCTOR|TRITON|CUDA"
    r"|CUBLAS|CUDNN|NVIDIA|HIP|HSA|ROCR|XDG|HF|HUGGINGFACE|TRANSFORMERS|TIMM|VGAUDIT"
    r"|MALLOC|DNNL|ONEDNN|ATEN)_.+"
)
_FOR_NETWORK = re.compile(
    r"(?:HTTPS?|ALL|NO)_PROXY|SSL_CERT_(?:FILE|DIR)|REQUESTS_CA_BUNDLE"
    r"|CURL_CA_BUNDLE|HF_TOKEN|HUGGING_FACE_HUB_TOKEN|HF_ENDPOINT",
    re.IGNORECASE,
)
_FOR_RANKS = re.compile(
    r"RANK|WORLD_SIZE|(?:LOCAL|GROUP|ROLE)_(?:RANK|WORLD_SIZE|NAME)"
    r"|MASTER_(?:ADDR|PORT)|(?:TORCHELASTIC|GLOO|NCCL)_.+"
)
_CACHES = {
    "HF_MODULES_CACHE": "hf-modules",
    "MPLCONFIGDIR": "matplotlib",
    "NUMBA_CACHE_DIR": "numba",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
}


def environment(rules: Rules, given: Mapping[str, str], folder: str) -> dict[str, str]:
    """Returns what of an environment a worker may see.

    A file alone meets only what Python and torch need. Code that the user named may
    need variables of its own: it sees all but those that are named like secrets.

    Args:
        rules: what the worker is allowed.
        given: the environment of the parent.
        folder: a fresh folder for temporary files and the caches of libraries.
    """
    meeting = {MEETING: rules.meeting} if rules.meeting else {}
    if rules.mode == "off":
        return {**given, **meeting}
    kept = {
        name: value
        for name, value in given.items()
        if name in rules.passed or _may_see(name, rules)
    }
    places = {name: f"{folder}/{place}" for name, place in _CACHES.items()}
    own = {"TMPDIR": folder, "TEMP": folder, "TMP": folder}
    return {**kept, **places, **own, **meeting}


def _may_see(name: str, rules: Rules) -> bool:
    if _FOR_NETWORK.fullmatch(name):
        return rules.network
    if _FOR_RANKS.fullmatch(name):
        return bool(rules.meeting)
    if _SECRET.search(name):
        return False
    return rules.own_code or _NEEDED.fullmatch(name) is not None
