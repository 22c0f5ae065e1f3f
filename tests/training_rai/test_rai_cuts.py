"""Where RAI cuts a model, where it refuses, and that the model stays as it is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.training_rai.nets import Functional, Residual, chain, images, moons
from vgaudit.data.batch import Batch
from vgaudit.errors import CannotRewrite, CannotRun
from vgaudit.training.rai.cuts import find_cuts
from vgaudit.training.rai.splice import Call, Splice


def test_one_cut_between_any_two_linear_layers() -> None:
    cuts = find_cuts(chain(5, 8), moons(20, 0))

    assert [f"{n} linear" for n in (0, 2, 4, 6, 8)] == [s.name for s in cuts.spots]
    assert [(8,)] * 5 == [s.shape for s in cuts.spots]
    assert ("10.weight", "10.bias") == cuts.readout_names
    assert (True,) * 5 == cuts.per_sample
    assert 6 == cuts.weight_layers


def test_behind_the_activations_on_request() -> None:
    cuts = find_cuts(chain(3, 8, nn.Tanh), moons(20, 0), place="post")

    assert ["Tanh"] * 3 == [s.kind for s in cuts.spots]


def test_a_net_of_functions_alone() -> None:
    torch.manual_seed(0)
    cuts = find_cuts(Functional(4, 8), moons(20, 0))

    assert 4 == len(cuts)
    assert ("w.4", "b.4") == cuts.readout_names


def test_residual_blocks_are_cut_at_their_boundaries() -> None:
    torch.manual_seed(0)
    cuts = find_cuts(Residual(), images(8))

    # The stem, then the sum at the end of each block; nothing inside of a branch.
    assert ["stem", "blocks.0", "blocks.1"] == [s.path for s in cuts.spots]
    assert ["Convolution", "Add", "Add"] == [s.kind for s in cuts.spots]


def test_a_shared_layer_has_a_cut_for_each_call() -> None:
    torch.manual_seed(0)
    shared = nn.Linear(8, 8)
    layers = [nn.Linear(2, 8), shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(8, 1)]
    cuts = find_cuts(nn.Sequential(*layers), moons(20, 0))

    assert ["0 linear", "1 linear", "1 linear"] == [s.name for s in cuts.spots]
    assert [0, 1, 2] == [s.occurrence for s in cuts.spots]


def test_a_readout_that_is_used_twice_is_none() -> None:
    torch.manual_seed(0)
    last = nn.Linear(2, 2)
    cuts = find_cuts(nn.Sequential(last, nn.Tanh(), last), moons(20, 0))

    assert cuts.readout is None


def test_the_model_stays_as_it_is() -> None:
    model = Residual().train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    find_cuts(model, images(8))

    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert all(m.training for m in model.modules())


def test_one_layer_cannot_be_cut() -> None:
    with pytest.raises(CannotRewrite) as caught:
        find_cuts(nn.Linear(2, 1), moons(20, 0))

    assert (
        "no cut is possible: the model has 1 weight layer on its longest path"
        == caught.value.message
    )


class _Open(nn.Module):
    """A skip connection from the input to the output."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(2, 4), nn.Linear(4, 1), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).tanh()) + self.c(x)


def test_a_skip_over_everything_leaves_no_place() -> None:
    with pytest.raises(CannotRewrite) as caught:
        find_cuts(_Open(), moons(20, 0))

    assert (
        "no cut is possible: none of its 2 weight layers ends where all data passes; "
        "each lies in a branch that is open from the input to the output"
        == caught.value.message
    )


def test_a_frozen_output_has_no_place() -> None:
    class Detached(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    with pytest.raises(CannotRewrite, match="does not depend on the weights"):
        find_cuts(Detached(2, 1), moons(20, 0))


def test_a_model_that_fails_is_named() -> None:
    with pytest.raises(CannotRun, match="the model fails on its data"):
        find_cuts(nn.Linear(3, 1), moons(20, 0))


def _same(_number: int, call: Call) -> Tensor:
    return call.value


def test_a_pass_that_misses_a_cut_is_told() -> None:
    model = chain(3, 8)
    cuts = find_cuts(model, moons(20, 0))

    with pytest.raises(CannotRun) as caught, Splice(cuts.spots, _same):
        model[:3](moons(20, 0).args[0])

    assert (
        "the cut at '4 linear' was lost: this pass did not reach it"
        == caught.value.message
    )


def test_a_pass_with_other_shapes_is_told() -> None:
    cuts = find_cuts(chain(3, 8), moons(20, 0))

    with pytest.raises(CannotRun) as caught, Splice(cuts.spots, _same):
        chain(3, 9)(moons(20, 0).args[0])

    assert (
        "the cut at '0 linear' was lost: this pass has a value of [9] there, not [8]"
        == caught.value.message
    )


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_cuts_are_found_again_in_either_mode(mode: str) -> None:
    torch.manual_seed(0)
    model = Residual()
    cuts = find_cuts(model, images(8))
    batch: Batch = images(5, seed=1)
    seen: list[int] = []

    def visit(number: int, call: Call) -> Tensor:
        seen.append(number)
        return call.value

    model.train(mode == "train")
    with torch.no_grad():
        expected = model(*batch.args)
        with Splice(cuts.spots, visit):
            found = model(*batch.args)

    assert [0, 1, 2] == seen
    assert torch.equal(expected, found)
