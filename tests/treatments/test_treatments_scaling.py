"""rescale, ar and plain against what they promise, on nets small enough to check."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import vgaudit
from fixtures import batches, models
from vgaudit.conversion import ConvertOptions
from vgaudit.data.batch import Batch
from vgaudit.errors import BadConfig, CannotRewrite
from vgaudit.nn import AutoRotation
from vgaudit.treatments import Treated, treat
from vgaudit.treatments.rescale import transform_

X = torch.randn(512, 64, generator=torch.Generator().manual_seed(1))


def treated(model: nn.Module, to: str, x: Tensor = X, **options: object) -> Treated:
    parts = [Batch(args=(part,), size=len(part)) for part in x.chunk(2)]
    return treat(model, parts, ConvertOptions(to=to, **options))  # type: ignore[arg-type]


def preactivations(model: nn.Module, x: Tensor = X) -> list[Tensor]:
    """Returns the output of every hidden Linear, found by running the layers."""
    found = []
    with torch.no_grad():
        for layer in model.layers:
            x = layer(x)
            if isinstance(layer, nn.Linear):
                found.append(x)
    return found


def quantile(z: Tensor) -> float:
    """The 99 % quantile of |z|, by sorting."""
    ordered = z.abs().flatten().sort().values
    return float(ordered[math.ceil(0.99 * len(ordered)) - 1])


@pytest.mark.parametrize("to", ["rescale", "ar"])
def test_ninety_nine_percent_of_preactivations_come_below_the_limit(to: str) -> None:
    model = treated(models.deep_sigmoid_mlp(), to).model
    for z in preactivations(model):
        assert quantile(z) == pytest.approx(4.0, rel=0.02)
        assert float(z.mean(0).abs().max()) < 1e-3


@pytest.mark.parametrize("to", ["rescale", "ar"])
def test_the_limit_can_be_given_and_centring_left_out(to: str) -> None:
    model = treated(models.saturated_tanh_mlp(), to, limit=2.5).model
    plain = treated(models.saturated_tanh_mlp(), to).model
    for given, default in zip(
        preactivations(model), preactivations(plain), strict=True
    ):
        assert quantile(given) == pytest.approx(2.5, rel=0.02)
        assert quantile(default) == pytest.approx(2.0, rel=0.02)


class Factored(nn.Module):
    """Six tanh layers whose pre-activations go through a product with a number."""

    def __init__(self, product: Callable[[Tensor], Tensor], width: int = 64) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(6))
        self.head, self.product = nn.Linear(width, 3), product

    def arriving(self, x: Tensor) -> list[Tensor]:
        """Returns what reaches each activation."""
        found: list[Tensor] = []
        for layer in self.layers:
            found.append(self.product(layer(x)))
            x = found[-1].tanh()
        return [*found, self.head(x)]

    def forward(self, x: Tensor) -> Tensor:
        return self.arriving(x)[-1]


PRODUCTS = {
    "number": lambda x: 0.3 * x,
    "quotient": lambda x: x / 8,
    "in place": lambda x: x.mul_(5),
    "two": lambda x: -(x * 2) / 3,
}


@pytest.mark.parametrize("to", ["rescale", "ar"])
@pytest.mark.parametrize("form", PRODUCTS)
def test_what_reaches_the_activation_has_its_limit_behind_a_constant_factor(
    form: str, to: str
) -> None:
    torch.manual_seed(0)
    done = treated(Factored(PRODUCTS[form]), to)
    assert len(done.edits) == 6
    assert "before a factor of" in done.edits[0].change
    with torch.no_grad():
        *hidden, _ = done.model.arriving(X)
    for z in hidden:
        assert quantile(z) == pytest.approx(2.0, rel=0.02)


def test_a_product_with_nothing_or_with_two_numbers_is_refused() -> None:
    with pytest.raises(CannotRewrite, match="a product feeds it"):
        treated(Factored(lambda x: x * 0.0), "rescale")

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step, self.head = nn.Linear(64, 64), nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Tensor:
            for factor in (0.5, 0.25):
                x = (factor * self.step(x)).tanh()
            return self.head(x)

    with pytest.raises(CannotRewrite, match="different factors"):
        treated(Twice(), "rescale")


def test_rescale_only_scales_where_the_signal_is_alive() -> None:
    """One factor per layer: the signs of a first layer's units stay."""
    before = models.saturated_tanh_mlp()
    after = treated(before, "rescale").model
    old, new = preactivations(before)[0], preactivations(after)[0]
    factor = (new / old).flatten()
    assert float(factor.std()) < 1e-4 * float(factor.mean())


def test_the_vanishing_gradient_is_gone_and_the_report_says_so() -> None:
    done = vgaudit.convert(models.deep_sigmoid_mlp(), to="rescale", data=X)
    assert done.comparison is not None
    assert done.comparison.verdict == "better"
    assert [f.code for f in done.comparison.gone] == ["VG101"]
    assert done.comparison.before.attenuation < -8  # type: ignore[operator]
    assert done.comparison.after.attenuation > -2  # type: ignore[operator]
    assert done.max_abs_diff > 0


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 4), (5, 6)),
        (nn.Conv2d(4, 8, 3, padding=1, groups=2), (2, 4, 5, 5)),
        (nn.Conv1d(3, 4, 3, bias=True, stride=2), (2, 3, 9)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2), (2, 4, 5, 5)),
        (nn.ConvTranspose1d(4, 6, 3, groups=2), (2, 4, 7)),
        (nn.ConvTranspose3d(4, 8, 2, groups=4), (1, 4, 3, 3, 3)),
    ],
)
def test_transform_is_scale_times_f_minus_shift(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    layer = layer.double()
    x = torch.randn(shape, dtype=torch.float64)
    f = layer(x)
    axis = -1 if isinstance(layer, nn.Linear) else 1
    units = f.shape[axis]
    scale = torch.rand(units, dtype=torch.float64) + 0.5
    shift = torch.randn(units, dtype=torch.float64)
    rest = [1] * (f.dim() - axis - 1) if axis == 1 else []
    wanted = scale.view(-1, *rest) * (f - shift.view(-1, *rest))
    transform_(layer, scale=scale, shift=shift)
    assert torch.allclose(layer(x), wanted, atol=1e-12, rtol=0)


def test_centring_gives_a_layer_without_bias_one() -> None:
    model = nn.Sequential(nn.Linear(64, 32, bias=False), nn.Sigmoid(), nn.Linear(32, 2))
    done = treated(model, "rescale", centre=True)
    assert done.model[0].bias is not None
    with torch.no_grad():
        assert float(done.model[0](X).mean(0).abs().max()) < 1e-4
    assert model[0].bias is None


# dict_input merges two layers before its activation: there is nothing to rotate.
@pytest.mark.parametrize("name", [n for n in batches.NAMES if n != "dict_input"])
def test_preserving_rotation_is_bit_equal(name: str) -> None:
    model = getattr(models, name)()
    batch = Batch(args=batches.inputs(name), size=8)
    options = ConvertOptions(to="ar", preserve=True, normed=True)
    done = treat(model, [batch], options)
    assert done.preserved
    assert done.max_abs_diff == 0.0
    rotated = [m for m in done.model.modules() if isinstance(m, AutoRotation)]
    assert len(rotated) == len(done.edits)
    for layer in rotated:
        assert torch.equal(layer.rho(), torch.ones_like(layer.rho()))


def test_rotation_is_folded_and_bakes_into_plain_layers() -> None:
    done = treated(models.deep_sigmoid_mlp(), "ar")
    for layer in done.model.layers:
        if isinstance(layer, AutoRotation):
            assert torch.allclose(layer.rho(), torch.ones_like(layer.rho()), rtol=1e-5)
    plain = treated(done.model, "plain")
    assert plain.preserved
    assert type(plain.model.layers[0]) is nn.Linear
    bare = models.deep_sigmoid_mlp()
    bare.load_state_dict(plain.model.state_dict())
    assert torch.equal(bare(X), done.model(X))


def test_gates_of_a_recurrent_net_are_rotated() -> None:
    model = models.lstm_classifier()
    batch = Batch(args=batches.inputs("lstm_classifier"), size=8)
    kept = treat(model, [batch], ConvertOptions(to="ar", preserve=True))
    assert kept.preserved
    assert [edit.path for edit in kept.edits] == ["lstm"]
    with pytest.raises(CannotRewrite, match="gates inside the fused lstm"):
        treat(model, [batch], ConvertOptions(to="rescale"))


def test_a_layer_without_a_signal_is_refused() -> None:
    """Behind dead ReLUs the second layer is its bias, whatever the input."""
    model = nn.Sequential(
        nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)
    )
    with torch.no_grad():
        model[0].bias.fill_(-1e4)
    with pytest.raises(CannotRewrite, match="do not vary on the data"):
        treated(model, "rescale", centre=True, skip=("1",))


def test_a_layer_whose_inputs_overflow_when_squared_is_refused() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3)
    )
    with torch.no_grad():
        model[0].weight.mul_(1e-25)
    done = treated(model, "ar", 1e25 * X)
    assert [edit.path for edit in done.edits] == ["2"]
    (refused,) = done.refusals
    assert refused.path == "1"  # its activation
    assert "whose squares overflow in float32" in refused.reason
    # What is refused is what it was.
    assert type(done.model[0]) is nn.Linear
    assert torch.equal(done.model[0].weight, model[0].weight)


def test_what_cannot_hold_is_refused() -> None:
    with pytest.raises(BadConfig, match="preserve"):
        treated(models.sigmoid_mlp(), "rescale", preserve=True)
    with pytest.raises(BadConfig, match="L must be positive"):
        treated(models.sigmoid_mlp(), "ar", limit=-1.0)
    with pytest.raises(CannotRewrite, match="no auto-rotated layer"):
        treated(models.sigmoid_mlp(), "plain")


@pytest.mark.parametrize("to", ["ar", "rescale", "adact"])
def test_the_original_stays_bit_equal(to: str) -> None:
    model = models.sigmoid_mlp()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    classes = [type(module) for module in model.modules()]
    treated(model, to)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert [type(module) for module in model.modules()] == classes


def test_a_healthy_net_is_told_to_be_left_alone() -> None:
    from vgaudit.reports.comparison import advice

    done = vgaudit.convert(models.healthy_relu_mlp(), to="rescale", data=X)
    assert done.comparison is not None
    assert done.comparison.healthy
    assert "leave this model as it is" in advice(done.conversion, done.comparison)[0]


def test_a_rotated_transformer_layer_is_the_same_in_eval_mode_after_training() -> None:
    """Its fused kernel would read the raw weights; ρ is 1 only until it moves."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
            self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.head(self.blocks(x))
            return result

    torch.manual_seed(0)
    x, y = torch.randn(16, 5, 16), torch.randint(0, 4, (16, 5))
    treated = vgaudit.convert(Net(), to="ar", data=(x, y)).model
    assert treated is not None
    with torch.no_grad():
        for name, parameter in treated.named_parameters():
            if "linear1.weight" in name:
                parameter.mul_(3.0)
    treated.eval()
    with torch.no_grad():
        fused = treated(x)

    assert torch.allclose(treated(x), fused, atol=1e-5)
