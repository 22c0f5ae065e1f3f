"""Networks with several inputs or outputs: towers and heads beside the trunk."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.probe import oracle
from tests.probe.scans import noise, scan
from tests.verdicts.judging import audit_of
from vgaudit.findings import Finding
from vgaudit.judge import judge

DEEP, WIDTH = 10, 32


def tower(unit: type[nn.Module] = nn.Sigmoid, depth: int = DEEP) -> nn.Sequential:
    """Linear layers 0, 2, 4 … with a unit behind each but the last."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(WIDTH, WIDTH), unit()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 16))


class Net(nn.Module):
    """Modules that a function puts together."""

    def __init__(self, together: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.together = together
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *given: Tensor) -> Any:
        return self.together(self, *given)


def siamese(unit: type[nn.Module]) -> nn.Module:
    return Net(lambda m, a, b: (m.e(a) - m.e(b)).norm(dim=1), e=tower(unit))


def stacked(unit: type[nn.Module]) -> nn.Module:
    """The same as ``siamese``, in one call."""

    def run(m: Any, a: Tensor, b: Tensor) -> Tensor:
        left, right = m.e(torch.cat([a, b])).chunk(2)
        return (left - right).norm(dim=1)

    return Net(run, e=tower(unit))


def compared(unit: type[nn.Module]) -> nn.Module:
    return Net(lambda m, a, b: (m.a(a) * m.b(b)).sum(1), a=tower(unit), b=tower(unit))


def joined(unit: type[nn.Module]) -> nn.Module:
    return Net(
        lambda m, a, b: m.head(torch.cat([m.a(a), m.b(b)], 1)),
        a=tower(unit),
        b=tower(unit),
        head=nn.Linear(32, 5),
    )


def lopsided(unit: type[nn.Module]) -> nn.Module:
    """A deep tower beside a flat one, and both beside a third."""
    return Net(
        lambda m, a, b: m.head(torch.cat([m.low(m.a(a) + m.b(b)), m.c(b)], 1)),
        a=tower(unit),
        b=nn.Linear(WIDTH, 16),
        low=nn.Linear(16, 16),
        c=nn.Linear(WIDTH, 16),
        head=nn.Linear(32, 5),
    )


def headed(unit: type[nn.Module]) -> nn.Module:
    def run(m: Any, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        stem = torch.relu(m.stem(a + b))
        return {"aux": m.a(stem), "main": m.b(stem)}

    stem, flat = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 4)
    return Net(run, stem=stem, a=tower(unit), b=flat)


NETS = [siamese, compared, joined, lopsided, headed]


def made(build: Callable[..., nn.Module], unit: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(unit)


def inputs() -> tuple[Tensor, Tensor]:
    return noise(16, WIDTH), noise(16, WIDTH, seed=1)


def split(layer: str) -> tuple[str, int]:
    """Returns path and call of a layer as a report names it."""
    path, _, call = layer.partition(" call ")
    return path, int(call or 1) - 1


def lost(flow: Any) -> list[Finding]:
    found = judge(audit_of(flow)).findings
    return [finding for finding in found if finding.code == "VG101"]


@pytest.mark.parametrize("build", NETS)
def test_each_tower_is_a_branch_with_the_decay_of_plain_autograd(
    build: Callable[..., nn.Module],
) -> None:
    model = made(build, nn.Sigmoid)
    seen = oracle.measure(made(build, nn.Sigmoid), inputs(), torch.float64)
    flow = scan(model.double(), *(x.double() for x in inputs()))

    deep = [b for b in flow.branches if len(b.layers) == DEEP + 1]
    towers = {key[0].split(".")[0] for key in seen.at if key[0].endswith(".20")}
    calls = {key for key in seen.at if key[0].endswith(".20")}
    assert {split(b.layers[0])[0].split(".")[0] for b in deep} == towers
    assert len(deep) == len(calls)
    for branch in deep:
        first, last = (seen.at[split(branch.layers[i])] for i in (0, -1))
        assert branch.decay.value == pytest.approx(math.log10(first / last), abs=1e-9)
        if not branch.exit:
            offset = math.log10(last / seen.reference)
            assert branch.offset.value == pytest.approx(offset, abs=1e-9)


@pytest.mark.parametrize("build", NETS)
@pytest.mark.parametrize("unit", [nn.Sigmoid, nn.Tanh])
def test_a_sick_tower_fails_and_a_sound_one_passes(
    build: Callable[..., nn.Module], unit: type[nn.Module]
) -> None:
    found = lost(scan(made(build, unit), *inputs()))

    assert bool(found) == (unit is nn.Sigmoid)
    assert all(finding.level == "error" for finding in found)


@pytest.mark.parametrize("unit", [nn.Sigmoid, nn.Tanh])
def test_two_calls_or_one_on_the_stacked_batch_have_one_verdict(
    unit: type[nn.Module],
) -> None:
    twice, once = (scan(made(build, unit), *inputs()) for build in (siamese, stacked))

    assert bool(lost(twice)) == bool(lost(once)) == (unit is nn.Sigmoid)
    assert twice.attenuation is not None
    assert once.attenuation is not None
    assert twice.attenuation.value == pytest.approx(once.attenuation.value, abs=0.3)


def test_embeddings_side_by_side_and_time_steps_are_no_branches() -> None:
    def run(m: Any, a: Tensor) -> Tensor:
        tokens = (a[:, :4] > 0).long()
        summed = m.words(tokens).mean(1) + m.places(tokens.cumsum(1)).mean(1)
        return m.head(m.low(summed))

    bert = Net(
        run,
        words=nn.Embedding(2, WIDTH),
        places=nn.Embedding(9, WIDTH),
        low=nn.Linear(WIDTH, WIDTH),
        head=nn.Linear(WIDTH, 2),
    )
    cells = Net(
        lambda m, a: m.head(m.rnn(a.unsqueeze(2))[0][:, -1]),
        rnn=nn.GRU(1, 8, batch_first=True),
        head=nn.Linear(8, 2),
    )
    for model in (bert, cells):
        assert scan(model, noise(16, WIDTH)).branches == ()
