"""The relaxed problem: its start, what depends on what, and when signals arrive."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.training_rai.nets import (
    BCE,
    MSE,
    Functional,
    Residual,
    chain,
    images,
    moons,
)
from vgaudit.data.batch import Batch
from vgaudit.errors import BadConfig
from vgaudit.probe.passes import shrink
from vgaudit.training.rai import Hidden, Relaxation, find_cuts
from vgaudit.training.rai.chain import Chain, read_form
from vgaudit.training.rai.gate import Gate
from vgaudit.training.rai.reference import Reference
from vgaudit.training.rai.relaxed import calibrate, frozen, leaves_of
from vgaudit.training.rai.rprop import Rprop


def _relaxation(model: nn.Module, batch: Batch, hidden: Hidden | None = None):
    return Relaxation(model, find_cuts(model, batch), BCE, hidden=hidden)


def test_rprop_is_that_of_torch() -> None:
    torch.manual_seed(0)
    own = torch.randn(7, 5, dtype=torch.float64)
    other = own.clone().requires_grad_()
    mine = Rprop([own], rate=0.1)
    theirs = torch.optim.Rprop([other], lr=0.1)
    for _ in range(60):
        gradient = torch.randn(7, 5, dtype=torch.float64)
        gradient[0] = 0
        mine.step([gradient])
        other.grad = gradient
        theirs.step()

    torch.testing.assert_close(own, other.detach(), rtol=0, atol=1e-12)


def test_rprop_leaves_what_rests() -> None:
    values = [torch.zeros(2), torch.zeros(2)]
    rprop = Rprop(values, rate=0.1)
    rprop.step([torch.ones(2), None])

    torch.testing.assert_close(values[0], torch.full((2,), -0.1))
    assert torch.equal(values[1], torch.zeros(2))


def test_at_the_start_nothing_is_relaxed() -> None:
    torch.manual_seed(0)
    model, batch = Residual(), images(16)
    relaxation = _relaxation(model, batch)
    calibrate(model, batch)
    with frozen(model):
        losses = relaxation.losses(batch, relaxation.values(batch))
    model.eval()

    assert [0.0] * 3 == [loss.item() for loss in losses.hidden]
    assert torch.equal(BCE.function(model(*batch.args), batch.labels), losses.output)


@pytest.mark.parametrize("kind", ["chain", "functional"])
def test_a_stage_depends_on_its_own_weights_and_two_targets_only(kind: str) -> None:
    torch.manual_seed(0)
    model: nn.Module = chain(5, 6) if kind == "chain" else Functional(5, 6)
    batch = moons(20, 0)
    relaxation = _relaxation(model, batch)
    targets = [z.requires_grad_() for z in relaxation.values(batch)]
    losses = relaxation.losses(batch, targets)
    if kind == "chain":
        layers = [[m.weight, m.bias] for m in model if isinstance(m, nn.Linear)]
    else:
        layers = [list(pair) for pair in zip(model.w, model.b, strict=True)]

    for t, loss in enumerate([*losses.hidden, losses.output]):
        expected = {id(p) for p in layers[t]}
        expected |= {id(z) for z in targets[max(0, t - 1) : t + 1]}
        assert expected == {id(leaf) for leaf in leaves_of(loss)}


def test_stages_of_a_residual_net_are_its_blocks() -> None:
    torch.manual_seed(0)
    model, batch = Residual(), images(16)
    relaxation = _relaxation(model, batch)
    with frozen(model):
        stages = relaxation.stages(batch)
    names = {id(p): n.rsplit(".", 2)[0] for n, p in model.named_parameters()}

    assert [{"stem"}, {"blocks.0"}, {"blocks.1"}, {"head"}] == [
        {names[id(p)] for p in stage} for stage in stages
    ]


def test_the_signal_walks_down_one_cut_per_step() -> None:
    # T = 11 layers: in exact arithmetic layer t = 1 … T first moves at step T − t.
    model, batch = chain(10, 6).double(), moons(20, 0, torch.float64)
    run = Reference(_relaxation(model, batch), batch, Gate())
    layers = [m.weight for m in model if isinstance(m, nn.Linear)]
    before = [w.clone() for w in layers]
    first: dict[int, int] = {}
    for step in range(12):
        run.step()
        for number, (weight, old) in enumerate(zip(layers, before, strict=True)):
            if not torch.equal(weight.detach(), old):
                first.setdefault(number + 1, step)

    assert {t: 11 - t for t in range(1, 12)} == first


def test_the_gate_says_who_moves() -> None:
    assert range(3, 4) == Gate().moving(3, 0)
    assert range(0, 4) == Gate().moving(3, 8)
    assert range(0, 4) == Gate(closed=False).moving(3, 0)
    assert range(10, 20) == Gate(window=10).moving(25, 15)
    assert 0 == len(Gate(window=10).moving(3, 20))
    with pytest.raises(BadConfig, match="window is 9"):
        Gate(window=9)


@pytest.mark.parametrize("window", [None, 10])
@pytest.mark.parametrize("activation", [nn.Sigmoid, nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_chain_takes_the_steps_of_the_general_run(
    window: int | None, activation: type[nn.Module], reduction: str
) -> None:
    # With as many samples of either class the first gradient of a bias is exactly 0,
    # and rounding would decide its sign.
    batch = shrink(moons(20, 0, torch.float64), 17)
    models = [chain(14, 6, activation).double() for _ in range(2)]
    hidden = Hidden(reduction=reduction, weight=0.7)
    relaxations = [_relaxation(model, batch, hidden) for model in models]
    gate = Gate(window=window)
    general = Reference(relaxations[0], batch, gate)
    form = read_form(relaxations[1], batch)
    assert form is not None
    fast = Chain(form, relaxations[1], batch, gate)
    for _ in range(24):
        loss, other = general.step(), fast.step()
        # With the output at rest the chain does not compute its loss.
        assert other != other or loss == pytest.approx(other, rel=1e-9)
    fast.write()

    for a, b in zip(general.targets(), fast.targets(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("fast", [True, False])
def test_a_resumed_run_is_bit_equal(fast: bool) -> None:
    batch = moons(20, 0)
    finals = []
    for resumed in (False, True):
        relaxation = _relaxation(chain(6, 5), batch)
        run = _opened(relaxation, batch, fast)
        for step in range(12):
            if resumed and step == 7:
                run.write()
                state = _copied(run.state_dict())
                run = _opened(relaxation, batch, fast)
                run.load_state_dict(state)
            run.step()
        run.write()
        finals.append([*run.targets(), *relaxation.model.parameters()])

    assert all(torch.equal(a, b) for a, b in zip(*finals, strict=True))


def _opened(relaxation: Relaxation, batch: Batch, fast: bool):
    form = read_form(relaxation, batch)
    assert form is not None
    if fast:
        return Chain(form, relaxation, batch, Gate())
    return Reference(relaxation, batch, Gate())


def _copied(state):
    if isinstance(state, Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    return [_copied(v) for v in state] if isinstance(state, list) else state


def test_only_true_chains_are_taken_for_chains() -> None:
    torch.manual_seed(0)
    batch = moons(20, 0)
    mixed = nn.Sequential(
        *[nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 6)],
        *[nn.Tanh(), nn.Linear(6, 1)],
    )
    tail = nn.Sequential(chain(3, 6), nn.Sigmoid())
    uneven = nn.Sequential(
        *[nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1)]
    )
    fixed = chain(3, 6)
    fixed[2].weight.requires_grad_(False)

    for model in (mixed, tail, uneven, fixed):
        assert read_form(_relaxation(model, batch), batch) is None
    assert read_form(_relaxation(Functional(3, 6), batch), batch) is not None
    other = _relaxation(chain(3, 6), batch, Hidden(kind="l1"))
    assert read_form(other, batch) is None


def test_the_noise_at_the_start_is_counted() -> None:
    model, batch = chain(4, 6), moons(20, 0)
    run = Reference(_relaxation(model, batch), batch, Gate(closed=False))

    assert 0.0 == run.noise


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("mse", 2.5), ("l1", 1.5), ("huber", 1.0)],
)
def test_hidden_losses_by_hand(kind: str, expected: float) -> None:
    value, target = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, -2.0]])

    assert expected == float(Hidden(kind=kind)(value, target))
    assert 2 * expected == float(Hidden(kind=kind, reduction="sum")(value, target))
    assert 3 * expected == float(Hidden(kind=kind, weight=3.0)(value, target))


@pytest.mark.parametrize("weight", [1.0, 30.0, 1e4])
def test_the_best_targets_of_a_linear_net_have_a_closed_form(weight: float) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(40, 3).double(), torch.randn(40, 1).double()
    batch = Batch(args=(x,), labels=y, size=40)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)).double()
    cuts = find_cuts(model, batch)
    relaxation = Relaxation(model, cuts, MSE, hidden=Hidden(weight=weight))
    targets = [z.requires_grad_() for z in relaxation.values(batch)]
    search = torch.optim.LBFGS(
        targets, max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        search.zero_grad()
        loss = relaxation.losses(batch, targets).total
        loss.backward()
        return loss

    search.step(closure)
    # min over z of (r − w·d)² + μ/4·|d|² with d = z − ẑ; as μ grows, the loss itself;
    # as w grows, 0: a relaxed loss can be small without any fit.
    ordinary = (model(x) - y).square().mean()
    share = 1 / (1 + 4 * model[1].weight.square().sum() / weight)
    torch.testing.assert_close(closure(), share * ordinary, rtol=1e-8, atol=0)


def test_freezing_puts_everything_back() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.LSTM(2, 3, 2, dropout=0.5), nn.BatchNorm1d(3)).train()
    model[1].eval()
    with frozen(model):
        assert not model[1].training
        assert 0.0 == model[0].dropout

    assert model[0].training
    assert not model[1].training
    assert 0.5 == model[0].dropout


def test_calibration_is_for_layers_that_saw_nothing() -> None:
    torch.manual_seed(0)
    model, batch = Residual().train(), images(64)
    norm = model.blocks[0].norm
    given = model.blocks[0].first(model.stem(*batch.args)).transpose(0, 1).flatten(1)

    assert 2 == calibrate(model, batch)
    torch.testing.assert_close(norm.running_mean, given.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, given.var(1), rtol=1e-4, atol=1e-5)
    assert 0.1 == norm.momentum
    assert 0 == calibrate(model, images(64, seed=1))
