"""Auto-rotation of matrices that a module multiplies with by hand."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vgaudit.conversion import ConvertOptions, Treatment
from vgaudit.data.batch import Batch
from vgaudit.errors import BadConfig, CannotRewrite
from vgaudit.nn import Denominator, Inputs, Limit, Matrix, rotate_parameter
from vgaudit.nn.parameters import bake_parameter, fold_parameter_, parameter_size
from vgaudit.treatments import Treated, load, save, treat

X = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))


class Columns(nn.Module):
    """x @ w with a bias added by hand: units are columns."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w, self.b = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(8))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sigmoid(x @ self.w + self.b))


class Rows(Columns):
    """F.linear with a matrix of the module's own: units are rows."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sigmoid(F.linear(x, self.w, self.b)))


class Experts(nn.Module):
    """A stack of matrices in one product: nothing tells which dimension is which."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w = nn.Parameter(torch.randn(3, 2, 2))
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = x.view(-1, 3, 2).transpose(0, 1)
        z = torch.tanh(torch.bmm(parts, self.w))
        return self.head(z.transpose(0, 1).flatten(1))


class Past(Columns):
    """Reads its matrix past the attribute."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sigmoid(x @ self._parameters["w"]))


AXES: dict[type[nn.Module], tuple[str, ...]] = {Experts: ("w=-1",)}
MODELS = pytest.mark.parametrize("make", [Columns, Rows, Experts])


def converted(make: type[nn.Module], **options: Any) -> Treated:
    options = {"to": "ar", "ar_axis": AXES.get(make, ()), **options}
    return treat(make(), [Batch(args=(X,), size=len(X))], ConvertOptions(**options))


def products(model: nn.Module) -> Tensor:
    """What the matrix gives, by hand."""
    with torch.no_grad():
        if isinstance(model, Experts):
            return torch.bmm(X.view(-1, 3, 2).transpose(0, 1), model.w)
        return X @ (model.w.T if isinstance(model, Rows) else model.w)  # type: ignore[operator, union-attr]


@MODELS
def test_kept_trained_copied_pickled_and_reloaded(
    make: type[nn.Module], tmp_path: Path
) -> None:
    done = converted(make, preserve=True)
    model = done.model
    assert [edit.path for edit in done.edits] == ["w"]
    assert done.preserved
    assert (
        dict(model.named_parameters()).keys() >= dict(make().named_parameters()).keys()
    )
    model(X).square().sum().backward()
    assert model.w_ar_limit.grad.isfinite().all()
    assert model._parameters["w"].grad.abs().sum() > 0
    with torch.no_grad():
        model.w_ar_limit.mul_(0.5)
    wanted = model(X)
    assert not torch.equal(wanted, make()(X))
    assert torch.equal(copy.deepcopy(model)(X), wanted)
    assert torch.equal(pickle.loads(pickle.dumps(model))(X), wanted)  # noqa: S301
    assert torch.equal(torch.compile(model, backend="eager", fullgraph=True)(X), wanted)
    save(model, tmp_path / "out.safetensors")
    assert torch.equal(load(tmp_path / "out.safetensors", arch=make)(X), wanted)


class Squashed(nn.Linear):
    """A layer with an activation before and one after, inside."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(F.linear(F.relu(x), self.weight, self.bias))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Linear(6, 6), Squashed()
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(self.first(x)))


@pytest.mark.parametrize(
    ("make", "order"),
    [(Columns, ["ar", "adact"]), (Rows, ["ar", "adact"]), (Twice, ["adact", "ar"])],
)
def test_a_rotated_matrix_in_a_rewritten_method_is_written_and_read(
    make: type[nn.Module], order: list[Treatment], tmp_path: Path
) -> None:
    model, data = make(), [Batch(args=(X,), size=len(X))]
    for to in order:
        options = ConvertOptions(to=to, preserve=True, skip=("inner tanh*",))
        if to == "ar":
            options = ConvertOptions(to=to, preserve=True, skip=("first",))
        done = treat(model, data, options)
        model = done.model
        assert len(done.edits) == 1
    for parameter in model.parameters():
        parameter.data.mul_(1.25)
    wanted = model(X)
    assert not torch.equal(wanted, make()(X))
    save(model, tmp_path / "out.pt")
    whole = torch.load(tmp_path / "out.pt", weights_only=False)
    assert torch.equal(whole(X), wanted)
    assert torch.equal(copy.deepcopy(whole)(X), wanted)
    save(model, tmp_path / "out.safetensors")
    assert torch.equal(load(tmp_path / "out.safetensors", arch=make)(X), wanted)


@MODELS
@pytest.mark.parametrize("to", ["ar", "rescale"])
def test_the_quantile_of_the_product_is_the_limit(
    make: type[nn.Module], to: str
) -> None:
    """By numpy's definition of a quantile, up to one of 256 ranks."""
    model = converted(make, to=to, limit=1.5).model
    sizes = products(model).abs().flatten()
    assert float(sizes.quantile(0.99)) == pytest.approx(1.5, rel=0.05)
    assert float(products(make()).abs().quantile(0.99)) != pytest.approx(1.5, rel=0.2)


@MODELS
def test_plain_has_the_same_function_and_the_old_class(make: type[nn.Module]) -> None:
    done = converted(make)
    back = treat(done.model, [Batch(args=(X,), size=32)], ConvertOptions(to="plain"))
    assert type(back.model) is make
    assert torch.equal(back.model(X), done.model(X))
    assert back.model.state_dict().keys() == make().state_dict().keys()


def test_denominator_and_scale_by_hand() -> None:
    """D = |mean·Σw| + 3·std·‖w‖ per unit; z does not depend on the scale of w."""
    for make, dim in ((Columns, 0), (Rows, 1)):
        model: Any = make().double()
        w = model._parameters["w"].detach()
        rotate_parameter(
            model,
            Matrix("w", -1 if make is Columns else -2),
            limit=Limit(2.0),
            denominator=Denominator("moments"),
            inputs=Inputs.moments(0.5, 0.25),
        )
        by_hand = (0.5 * w.sum(dim)).abs() + 3 * 0.25 * w.norm(dim=dim)
        assert torch.allclose(parameter_size(model, "w"), by_hand, rtol=1e-12)
        rho = (2.0 / by_hand).unsqueeze(dim)
        assert torch.allclose(model.w, rho * w, rtol=1e-12)
        turned = model.w.detach().clone()
        with torch.no_grad():
            model._parameters["w"].mul_(7.0)
        assert torch.allclose(model.w, turned, rtol=1e-12)
        fold_parameter_(model, "w")
        assert torch.allclose(model._parameters["w"], turned, rtol=1e-12)
        bake_parameter(model, "w")
        assert type(model) is make
        assert torch.allclose(model.w, turned, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (Experts, {"ar_axis": ()}, "declare it with --ar-axis"),
        (Past, {}, "read past the module's attribute"),
        (Columns, {"limit_type": "auto-shared"}, "one L per unit"),
    ],
)
def test_what_cannot_be_rotated_is_refused(
    make: type[nn.Module], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CannotRewrite, match="VG701 nothing was converted") as caught:
        converted(make, **options)
    assert message in caught.value.message


def test_an_axis_has_a_form() -> None:
    with pytest.raises(BadConfig, match="--ar-axis w=0"):
        converted(Experts, ar_axis=("w=0",))


class Attends(nn.Module):
    """Fused attention, which reads the weight of its output projection itself."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attend = nn.MultiheadAttention(6, 2, batch_first=True)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.attend(x, x, x)[0]))


SEQUENCES = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(1))


def attending(**options: Any) -> Treated:
    wanted = ConvertOptions(to="ar", **options)
    return treat(Attends(), [Batch(args=(SEQUENCES,), size=4)], wanted)


def test_the_projection_of_fused_attention_is_rotated() -> None:
    done = attending(preserve=True)
    model: Any = done.model
    assert [edit.path for edit in done.edits] == ["attend.out_proj.weight"]
    assert done.preserved
    assert isinstance(model.attend, nn.MultiheadAttention)
    model(SEQUENCES).square().sum().backward()
    assert model.attend.out_proj.weight_ar_limit.grad.abs().sum() > 0
    with torch.no_grad():
        model.attend.out_proj.weight_ar_limit.mul_(0.5)
        plain: Any = Attends()
        plain.attend.out_proj.weight.mul_(0.5)
        for mode in (True, False):  # In eval mode, a kernel of its own runs.
            found, wanted = (m.train(mode)(SEQUENCES) for m in (model, plain))
            assert torch.allclose(found, wanted, atol=1e-6)


def test_the_projection_of_fused_attention_is_calibrated() -> None:
    model: Any = attending(limit=1.5).model
    with torch.no_grad():
        sizes = model.attend(SEQUENCES, SEQUENCES, SEQUENCES)[0].abs().flatten()
    # Its bias starts at 0, so that the output is the product.
    assert float(sizes.quantile(0.99)) == pytest.approx(1.5, rel=0.1)
