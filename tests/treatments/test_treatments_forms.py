"""Other forms of converted models: graphs, opened recurrences, awkward originals."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from vgaudit.conversion import ConvertOptions
from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRewrite
from vgaudit.nn import PiecewiseLinear, Unfused
from vgaudit.treatments import Treated, load, save, treat


def treated(model: nn.Module, x: Tensor, **options: Any) -> Treated:
    return treat(model, [Batch(args=(x,), size=len(x))], ConvertOptions(**options))


class Small(nn.Module):
    """A block that traces, and one whose way depends on a value."""

    def __init__(self, *, branching: bool = False) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid())
        self.second = Branching() if branching else nn.Linear(8, 8)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.second(self.first(x))))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(x)
        return z if float(z.detach().abs().sum()) >= 0 else -z


class Moody(nn.Module):
    """Its function depends on the mode, which a trace keeps as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.relu(self.a(x))
        return self.b(2 * z if self.training else z)


X = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("to", ["ar", "adact"])
@pytest.mark.parametrize("branching", [False, True])
def test_as_a_graph_it_computes_the_same_and_reads_back(
    to: str, branching: bool, tmp_path: Path
) -> None:
    model = Small(branching=branching)
    done = treated(model, X, to=to, preserve=True, form="graph-module")
    assert isinstance(done.model, fx.GraphModule)
    assert done.preserved
    assert torch.equal(done.model(X), model(X))
    assert any("taken whole" in note for note in done.notes) == branching
    twin = copy.deepcopy(done.model)
    save(twin, tmp_path / "graph.safetensors")
    again = load(
        tmp_path / "graph.safetensors", arch=lambda: Small(branching=branching)
    )
    assert isinstance(again, fx.GraphModule)
    assert torch.equal(again(X), model(X))


class Norm(nn.BatchNorm1d):
    """Batch normalization with a forward of its own, as in timm."""

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(x, mean, var, self.weight, self.bias, self.training)


def test_what_reads_the_mode_is_taken_whole_into_a_graph() -> None:
    model = nn.Sequential(nn.Linear(6, 8), Norm(8), nn.ReLU(), nn.Linear(8, 3))
    done = treated(model, X, to="adact", preserve=True, form="graph-module")
    for mode in (True, False):
        assert torch.equal(done.model.train(mode)(X), model.train(mode)(X))


def test_a_graph_that_would_compute_something_else_is_refused() -> None:
    with pytest.raises(CannotRewrite, match=r"differ by up to .* in eval mode"):
        treated(Moody(), X, to="ar", preserve=True, form="graph-module")


class Reader(nn.Module):
    """A recurrent net; ``kind`` is its layer."""

    def __init__(self, kind: Any = nn.LSTM) -> None:
        super().__init__()
        self.read = kind(6, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.last = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.read(x)[0][:, -1])


@pytest.mark.parametrize(
    ("kind", "count"), [(nn.LSTM, 8), (nn.GRU, 4), (nn.RNN, 4)], ids=str
)
def test_adact_opens_recurrent_layers_on_request(
    kind: Any, count: int, tmp_path: Path
) -> None:
    """Candidates, and outputs of an LSTM, per layer and direction; no gate."""
    x = torch.randn(8, 7, 6)
    model = Reader(kind)
    done = treated(model, x, to="adact", preserve=True, unfuse=True)
    assert len(done.edits) == count
    assert isinstance(done.model.read, Unfused)
    assert done.max_abs_diff < 1e-5
    lines = [m for m in done.model.modules() if isinstance(m, PiecewiseLinear)]
    assert [line.num_channels for line in lines] == [5] * count
    save(done.model, tmp_path / "out.safetensors")
    again = load(tmp_path / "out.safetensors", arch=lambda: Reader(kind))
    assert torch.equal(again(x), done.model(x))


def test_fused_recurrent_layers_are_named_with_the_way_to_open_them() -> None:
    with pytest.raises(CannotRewrite, match="--unfuse opens it"):
        treated(Reader(), torch.randn(8, 7, 6), to="adact")


def test_a_model_that_deepcopy_refuses_is_converted() -> None:
    """Old weight_norm leaves a computed tensor; a lock cannot be copied at all."""
    with pytest.warns(FutureWarning):
        layer = torch.nn.utils.weight_norm(nn.Linear(6, 8))
    model = nn.Sequential(layer, nn.ReLU(), nn.Linear(8, 2))
    model(X)
    model[2].lock = threading.Lock()
    with pytest.raises((RuntimeError, TypeError)):
        copy.deepcopy(model)
    done = treated(model, X, to="adact", preserve=True)
    assert torch.equal(done.model(X), model(X))
    assert any("2.lock" in note for note in done.notes)
    with torch.no_grad():
        done.model[0].weight_g.mul_(2.0)
    assert not torch.equal(done.model(X), model(X))


class Gated(nn.Module):
    """SwiGLU, whose SiLU is the activation of a hidden layer, beside a true gate."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.act, self.side = nn.Linear(6, 8), nn.SiLU(), nn.Linear(6, 8)
        self.ask, self.gate = nn.Linear(6, 8), nn.Sigmoid()
        self.down = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.act(self.up(x)) * self.side(x)
        return self.down(self.gate(self.ask(x)) * z)


@pytest.mark.parametrize("to", ["ar", "adact"])
def test_the_activation_of_a_gated_linear_unit_is_no_gate(to: str) -> None:
    done = treated(Gated(), X, to=to, preserve=True)
    assert [edit.path for edit in done.edits] == ["up" if to == "ar" else "act"]
    assert [r.reason for r in done.refusals] == [
        "a gate: its output multiplies other data"
    ]


class ByProduct(nn.Linear):
    """A Linear that writes its product by hand."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


class Columns(nn.Module):
    """The layer of GPT-2: units are columns. Its name and home make it known."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(torch.randn(nx, nf))
        self.bias = nn.Parameter(torch.randn(nf))

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return rows.view(*x.shape[:-1], self.nf)


Columns.__name__ = "Conv1D"
Columns.__module__ = "transformers.pytorch_utils"


@pytest.mark.parametrize("make", [lambda: ByProduct(6, 8), lambda: Columns(8, 6)])
@pytest.mark.parametrize("to", ["ar", "rescale"])
def test_layers_that_multiply_by_hand_are_scaled(make: Any, to: str) -> None:
    model = nn.Sequential(make(), nn.Sigmoid(), nn.Linear(8, 3))
    done = treated(model, X, to=to, centre=True)
    z = done.model[0](X).detach()
    assert float(z.mean(0).abs().max()) < 1e-5
    assert float(z.abs().flatten().kthvalue(round(0.99 * z.numel())).values) == (
        pytest.approx(4.0, rel=0.1)
    )
    if to == "ar":
        kept = treated(model, X, to="ar", preserve=True)
        assert torch.equal(kept.model(X), model(X))
        plain = treated(done.model, X, to="plain")
        assert type(plain.model[0]) is type(model[0])
        assert torch.equal(plain.model(X), done.model(X))


class Standardised(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean(1, keepdim=True)
        return F.linear(x, weight / weight.std(1, keepdim=True), self.bias)


@pytest.mark.parametrize(
    ("model", "to", "reason"),
    [
        (
            nn.Sequential(Standardised(6, 8), nn.ReLU(), nn.Linear(8, 3)),
            "ar",
            "0.weight is standardised at every call",
        ),
    ],
    ids=["standardised"],
)
def test_what_cannot_be_reached_is_refused(
    model: nn.Module, to: str, reason: str
) -> None:
    with pytest.raises(CannotRewrite, match="VG701 nothing was converted") as caught:
        treated(model, X, to=to)
    assert reason in caught.value.message


def unbiased() -> nn.Module:
    torch.manual_seed(1)
    layers = [nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, 8, bias=False)]
    return nn.Sequential(*layers, nn.Tanh(), nn.Linear(8, 3, bias=False))


def exported(model: nn.Module) -> nn.Module:
    """Returns a program for batches of 16, as a file of it is opened."""
    return torch.export.unflatten(torch.export.export(model, (X,)))


@pytest.mark.filterwarnings("error:Accessing the data pointer")
def test_an_exported_program_is_rescaled_as_its_eager_model() -> None:
    eager = unbiased()

    done = treated(exported(eager), X, to="rescale")

    wanted = treated(eager, X, to="rescale")
    assert len(done.edits) == len(wanted.edits) == 2
    torch.testing.assert_close(done.model(X), wanted.model(X), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(done.model(X), eager(X), rtol=1e-2)


def test_an_exported_program_is_rotated_to_the_limit_or_keeps_its_function() -> None:
    eager = unbiased()

    kept = treated(exported(eager), X, to="ar", preserve=True)
    done = treated(exported(eager), X, to="ar", limit=1.5)

    assert len(kept.edits) == len(done.edits) == 2
    torch.testing.assert_close(kept.model(X), eager(X))
    z = X @ done.model.get_submodule("0").weight.t()
    largest = z.detach().abs().flatten().quantile(0.99, interpolation="nearest")
    assert float(largest) == pytest.approx(1.5, rel=1e-3)


def test_operations_of_a_program_cannot_be_replaced_and_it_says_why() -> None:
    program = exported(unbiased())

    with pytest.raises(CannotRewrite, match="has no source: convert the eager") as told:
        treated(program, X, to="adact")
    assert told.value.hint == "try another treatment: ar or rescale"


class Choosing(nn.Module):
    """Which layers run, or how often, depends on the number of samples."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.last, self.way = nn.Linear(6, 3), way

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.a(x))
        if self.way == "loop":
            for _ in range(len(x) // 8):
                x = torch.sigmoid(self.b(x))
        else:
            x = torch.sigmoid(self.b(x)) if len(x) <= 8 else torch.tanh(self.c(x))
        return self.last(x)


@pytest.mark.parametrize("way", ["loop", "branch"])
def test_activations_are_replaced_whatever_way_the_data_takes(way: str) -> None:
    done = treated(Choosing(way), X, to="adact", preserve=True)

    assert (2, ()) == (len(done.edits), done.refusals)
    for some in (X, X[:8], X[:3]):
        assert torch.equal(done.model(some), Choosing(way)(some))


@pytest.mark.parametrize("to", ["ar", "rescale"])
def test_a_layer_that_the_data_passes_by_is_left(to: str) -> None:
    done = treated(Choosing("branch"), X, to=to, refit=True)

    assert ["a"] == [edit.path for edit in done.edits]
    assert "b not refitted: how often it runs" in done.edits[0].change
    assert ["b"] == [refusal.path for refusal in done.refusals]
    assert "does not run on the data" in done.refusals[0].reason


@pytest.mark.parametrize("to", ["ar", "rescale"])
def test_what_is_rotated_already_is_said(to: str) -> None:
    rotated = treated(Small(), X, to="ar").model

    with pytest.raises(CannotRewrite, match="it is already auto-rotated") as told:
        treated(rotated, X, to=to)
    assert told.value.hint == (
        "--to plain makes the layers plain again; try another treatment: adact"
    )


class Waves(nn.Module):
    """Complex layers: of the real and the imaginary part none is a layer's output."""

    def __init__(self) -> None:
        super().__init__()
        kind = torch.complex64
        self.a, self.b = nn.Linear(6, 8, dtype=kind), nn.Linear(8, 3, dtype=kind)

    def forward(self, x: Tensor) -> Tensor:
        z = self.a(x.to(torch.complex64))
        return self.b(torch.complex(z.real.relu(), z.imag.relu())).abs()


def test_only_treatments_that_find_something_are_proposed() -> None:
    with pytest.raises(CannotRewrite, match="VG701 nothing was converted") as told:
        treated(Waves(), X, to="ar")
    assert told.value.hint == "try another treatment: adact"
    assert treated(Waves(), X, to="adact").edits

    bare = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    with pytest.raises(CannotRewrite, match="the model has no activation") as told:
        treated(bare, X, to="ar")
    assert told.value.hint == "no other treatment finds more to convert"
