"""Reading torch's refusals, and dry runs that leave no trace."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from tests.data_specs.nets import Frozen
from tests.data_specs.states import assert_same, model_state, random_states
from vgaudit.data.inputs.dry_run import DryRun
from vgaudit.data.inputs.form import CallForm, TensorForm
from vgaudit.data.inputs.search import Proposal, Search, mismatch
from vgaudit.data.inputs.traceless import quiet

N = 5
E = torch.empty
TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
@pytest.mark.parametrize(
    ("call", "sign"),
    [
        (lambda: F.linear(E(N, 400), E(10, 576)), -1),
        (lambda: F.linear(E(N, 577), E(10, 576), E(10)), 1),
        (lambda: F.linear(E(N, 3, 400), E(10, 576), E(10)), -1),
        (lambda: E(N, 7) @ E(8, 2), -1),
        (lambda: E(N, 17, 8) + E(1, 197, 8), -1),
        (lambda: E(N, 257, 8) + E(1, 197, 8), 1),
        (lambda: E(N, 16, 6, 6).view(-1, 400), 1),
        (lambda: E(N, 16, 4, 4).view(N, 400), -1),
        (lambda: F.conv2d(E(N, 3, 4, 4), E(8, 3, 7, 7)), -1),
        (lambda: F.max_pool2d(E(N, 1, 1, 1), 2), -1),
        (lambda: F.batch_norm(E(1, 3, 1, 1), None, None, training=True), -1),
        (lambda: F.pad(E(N, 1, 3, 3), (4, 4, 4, 4), mode="reflect"), -1),
        (lambda: F.conv2d(E(N, 1, 4, 4), E(8, 3, 3, 3)), 0),
        (words_of_fractions := lambda: F.embedding(E(N, 4), E(9, 2)), 0),
    ],
)
def test_a_refusal_tells_too_small_from_too_large(
    call: Callable[[], Tensor], sign: int, fake: bool
) -> None:
    """The messages are torch's own, of the installed version."""
    if fake and call is words_of_fractions and TORCH < (2, 11):
        pytest.skip("this torch does not look at the type of fake indices")
    mode = FakeTensorMode() if fake else torch.no_grad()
    with quiet(), mode, pytest.raises((RuntimeError, ValueError)) as caught:
        call()

    assert sign == mismatch(caught.value, N)


class Only(nn.Module):
    """Accepts one length."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(E(length, 2))
        self.tried: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


@pytest.mark.parametrize("length", [2, 3, 17, 100, 127, 255])
def test_bisection_takes_a_logarithm_of_tries(length: int) -> None:
    runner = DryRun(Only(length))
    search = Search(runner)
    proposal = Proposal(
        lambda size: CallForm(args=(TensorForm(shape=(N, size)),), size=N), (256, 1)
    )
    form = search.first([proposal])

    assert form is not None
    assert (N, length) == form.args[0].shape
    assert runner.tries <= 10


def test_a_call_that_mixes_samples_is_the_last_resort() -> None:
    class Mixes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(-1, 6)

    wide, fitting = TensorForm(shape=(N, 12)), TensorForm(shape=(N, 6))
    proposals = [
        Proposal(lambda _, form=form: CallForm(args=(form,), size=N))
        for form in (wide, fitting)
    ]

    best = Search(DryRun(Mixes())).first(proposals)
    only = Search(DryRun(Mixes())).first(proposals[:1])

    assert best is not None
    assert only is not None
    assert (fitting, wide) == (best.args[0], only.args[0])


@pytest.mark.parametrize("fails", [False, True])
def test_a_dry_run_leaves_everything_as_it_was(fails: bool) -> None:
    torch.manual_seed(0)
    model = Frozen().eval()
    model.norm.train()
    before, states = model_state(model), random_states()

    trial = DryRun(model).try_form(
        CallForm(args=(TensorForm(shape=(N, 7 if fails else 6)),), size=N)
    )

    assert fails is (trial.error is not None)
    assert_same(before, model_state(model))
    assert states == random_states()


def test_old_weight_norm_survives() -> None:
    torch.manual_seed(0)
    with quiet():
        model = nn.utils.weight_norm(nn.Linear(4, 4))
    before, weight = model_state(model), model.weight

    assert (
        DryRun(model).try_form(CallForm(args=(TensorForm(shape=(N, 4)),), size=N)).ran
    )
    assert_same(before, model_state(model))
    assert weight is model.weight


def test_a_script_is_tried_as_well() -> None:
    with quiet():  # deprecated
        model = torch.jit.script(nn.Sequential(nn.BatchNorm1d(4), nn.Dropout()))
    model.eval()
    trial = DryRun(model).try_form(CallForm(args=(TensorForm(shape=(N, 4)),), size=N))

    assert trial.error is None
    assert not model.training
    assert 0 == model.state_dict()["0.num_batches_tracked"]


def test_the_smallest_map_counts_true_convolutions_only() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 1, 3, 2, 1),
        nn.Conv2d(1, 1, 5, padding=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(1, 1, 1),
    )
    form = CallForm(args=(TensorForm(shape=(N, 1, 12, 16)),), size=N)

    assert 6 == DryRun(model).try_form(form).smallest_map
