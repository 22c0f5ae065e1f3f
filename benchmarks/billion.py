"""A bfloat16 transformer of a billion parameters: memory and time of a scan.

    python benchmarks/billion.py --folder DIR

Writes a decoder of the shape of Llama (grouped heads left out) as safetensors shards
with their index, layer by layer, into a folder that is kept where it is named. Then it
is loaded, trained for one plain step, and scanned, each in a process of its own: wall
clock, CPU time, and the largest resident memory of that process. The architecture is
built on ``meta`` and takes the file's tensors. A Markdown table on standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, LAYERS, HIDDEN, HEADS, WORDS = 2048, 19, 5632, 16, 32_000
SAMPLES, LENGTH = 2, 64
INDEX = "model.safetensors.index.json"
STAGES = ("import", "load", "step", "own", "auto")
SAID = {
    "import": "`import vgaudit.api`",
    "load": "load",
    "step": "load, one plain step",
    "own": "load, scan in bfloat16 (`--dtype bfloat16`)",
    "auto": "load, scan, then again in float32 (the default)",
}


class Block(nn.Module):
    """Attention with rotated positions, then a gated network, both pre-normed."""

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.k, self.v, self.o = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.before(x)
        q, k, v = (self._split(layer(h)) for layer in (self.q, self.k, self.v))
        seen = F.scaled_dot_product_attention(_turn(q), _turn(k), v, is_causal=True)
        x = x + self.o(seen.transpose(1, 2).flatten(2))
        h = self.between(x)
        out: Tensor = x + self.down(F.silu(self.gate(h)) * self.up(h))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


def _turn(x: Tensor) -> Tensor:
    """Returns queries or keys ``[B, H, T, D]``, each pair turned by its position."""
    half = x.shape[-1] // 2
    rate = 10_000.0 ** (-torch.arange(half, device=x.device) / half)
    angle = torch.arange(x.shape[-2], device=x.device)[:, None] * rate
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


class Decoder(nn.Module):
    """Numbers of words ``[B, T]`` to logits ``[B, T, words]``; weights are tied."""

    def __init__(self, width: int, layers: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, width)
        self.blocks = nn.Sequential(
            *(Block(width, hidden, heads) for _ in range(layers))
        )
        self.norm = nn.RMSNorm(width)

    def forward(self, words: Tensor) -> Tensor:
        out: Tensor = self.norm(self.blocks(self.embed(words)))
        return F.linear(out, self.embed.weight)


def decoder() -> nn.Module:
    """Returns the architecture in bfloat16, without memory for its weights."""
    with torch.device("meta"):
        return Decoder(WIDTH, LAYERS, HIDDEN, HEADS).to(torch.bfloat16)


def write(folder: Path) -> None:
    """Writes the shards: N(0, 1/fan-in), outputs of branches smaller with depth."""
    torch.manual_seed(0)
    where: dict[str, str] = {}
    model = decoder()
    groups = {"embed": ["embed.weight", "norm.weight"]}
    for name, _ in model.named_parameters():
        if name.startswith("blocks."):
            groups.setdefault(name.split(".")[1], []).append(name)
    for group, names in groups.items():
        file = f"model-{group}.safetensors"
        made = {name: values(name, model.get_parameter(name)) for name in names}
        save_file(made, folder / file, metadata={"format": "pt"})
        where.update(dict.fromkeys(names, file))
    (folder / INDEX).write_text(json.dumps({"weight_map": where}))


def values(name: str, like: Tensor) -> Tensor:
    if like.dim() == 1:
        return torch.ones(like.shape, dtype=like.dtype)
    out = name.endswith(("o.weight", "down.weight"))
    scale = like.shape[1] ** -0.5 * ((2 * LAYERS) ** -0.5 if out else 1.0)
    return torch.randn(like.shape).mul_(scale).to(like.dtype)


def stage(name: str, folder: Path) -> dict[str, Any]:
    """Runs one stage in this process and returns what it cost."""
    started, cpu = time.perf_counter(), time.process_time()
    import vgaudit.api as api
    from vgaudit.job import DataOptions, LoadOptions, ProbeOptions

    found: dict[str, Any] = {}
    if name != "import":
        place, arch = str(folder / INDEX), f"{Path(__file__).resolve()}:decoder"
        load = LoadOptions(arch=arch)
        loaded = time.perf_counter()
        if name in ("load", "step"):
            model = api.load(place, load)
            found["parameters"] = sum(p.numel() for p in model.parameters())
        if name == "step":
            found["load"] = time.perf_counter() - loaded
            step(model)
        elif name in ("own", "auto"):
            report = api.scan(
                place,
                load_options=load,
                data_options=DataOptions(
                    inputs=(f"words=long:{SAMPLES}x{LENGTH}:{WORDS}",), batches=1
                ),
                probe_options=ProbeOptions(
                    dtype="bfloat16" if name == "own" else "auto"
                ),
            )
            found.update(told(report))
    found["seconds"] = time.perf_counter() - started
    found["cpu"] = time.process_time() - cpu
    found["rss"] = largest()
    return found


def largest() -> int:
    """Returns the largest resident memory of this process, in bytes.

    ``ru_maxrss`` would be that of the parent, where that had more.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024


def step(model: nn.Module) -> None:
    words = torch.randint(0, WORDS, (SAMPLES, LENGTH))
    model(words).float().square().mean().backward()


def told(report: Any) -> dict[str, Any]:
    flow = report.audit.flow
    return {
        "status": report.status,
        "attenuation": flow.attenuation.value if flow.attenuation else None,
        "layers": len(flow.layers),
        "parameters_seen": len(flow.parameters),
        "measured": flow.precision.measured,
        "codes": sorted({finding.code for finding in report.findings}),
    }


def in_a_process(name: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--stage", name, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(folder: Path, names: list[str]) -> None:
    print("| | wall clock, s | CPU, s | largest resident memory, GB |")
    print("|---|---|---|---|")
    for name in names:
        found = in_a_process(name, folder)
        print(
            f"| {SAID[name]} | {found['seconds']:.1f} | {found['cpu']:.1f} "
            f"| {found['rss'] / 1e9:.2f} |",
            flush=True,
        )
        print(json.dumps({name: found}), file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="where the shards are, or will be")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage:
        print(json.dumps(stage(given.stage, given.folder)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(exist_ok=True)
        if not (folder / INDEX).is_file():
            write(folder)
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        table(folder, given.stages)


if __name__ == "__main__":
    main()
