"""What forms draw: the right values, the same on every run."""

from __future__ import annotations

import pytest
import torch

from vgaudit.data.inputs.form import CallForm, TensorForm
from vgaudit.data.inputs.special import ImageList, TargetList
from vgaudit.data.seeding import generator_for


def draw(form: TensorForm, seed: int = 0) -> torch.Tensor:
    return form.draw(generator_for(seed))


def test_floats_are_standard_normal() -> None:
    values = draw(TensorForm(shape=(1000, 100)))

    # 100,000 samples: mean within 5 standard errors, variance likewise
    assert abs(float(values.mean())) < 5 / 1000**0.5 / 10
    assert abs(float(values.var()) - 1) < 5 * (2 / 100_000) ** 0.5


def test_ids_are_uniform_below_their_bound() -> None:
    counts = torch.bincount(
        draw(TensorForm(shape=(70_000,), fill="ids", high=7)).long()
    )

    assert 7 == len(counts)
    # chi-square with 6 degrees of freedom: above 33 with probability 1e-5
    assert float(((counts - 10_000) ** 2 / 10_000).sum()) < 33


def test_every_precision_sees_the_same_numbers() -> None:
    single = draw(TensorForm(shape=(4, 5)))
    double = draw(TensorForm(shape=(4, 5), dtype=torch.float64))

    assert torch.equal(single.double(), double)


@pytest.mark.parametrize(
    ("fill", "wanted"), [("bits", {False, True}), ("full", {True})]
)
def test_truth_values(fill: str, wanted: set[bool]) -> None:
    form = TensorForm(shape=(99,), dtype=torch.bool, fill=fill, high=1)  # type: ignore[arg-type]

    assert wanted == set(draw(form).tolist())


def test_places_are_independent_and_repeatable() -> None:
    first = torch.rand(3, generator=generator_for(0, "batch", 1))
    again = torch.rand(3, generator=generator_for(0, "batch", 1))
    others = [
        torch.rand(3, generator=generator_for(*place))
        for place in ((0, "batch", 2), (1, "batch", 1), (0, "labels", 1))
    ]

    assert torch.equal(first, again)
    assert not any(torch.equal(first, other) for other in others)


def test_sizes_change_the_batch_dimension_alone() -> None:
    call = CallForm(
        args=(TensorForm(shape=(16, 5, 3), batch_dims=(1,)),),
        kwargs={"mask": TensorForm(shape=(16, 16), batch_dims=()), "n": 5},
        size=5,
    ).sized(2)

    assert "float32 16x2x3, mask=float32 16x16" == str(call)
    assert 16 * 3 + 16 * 16 == call.numel


def test_targets_of_detectors_are_valid() -> None:
    images = ImageList(size=3).draw(generator_for(0))
    targets = TargetList(size=3, classes=4, masks=True, keypoints=17).draw(
        generator_for(1)
    )

    assert [(3, 256, 256)] * 3 == [tuple(image.shape) for image in images]
    for image, target in zip(images, targets, strict=True):
        assert 0 <= float(image.min()) <= float(image.max()) < 1
        left, top, right, bottom = target["boxes"].unbind(1)
        assert float(left.min()) >= 0
        assert float(top.min()) >= 0
        assert float(right.max()) <= 256
        assert float(bottom.max()) <= 256
        widths = (right - left).sort().values
        assert float(widths[0]) >= 12
        assert float(widths[0]) < 24
        assert float(widths[-1]) > 190
        assert float((bottom - top).min()) >= 12
        assert set(target["labels"].tolist()) <= {1, 2, 3}
        inside = target["keypoints"]
        assert bool((inside[..., 0] >= left[:, None]).all())
        assert bool((inside[..., 1] <= bottom[:, None]).all())
        for mask, x0, y0 in zip(target["masks"], left, top, strict=True):
            rows, columns = mask.nonzero().unbind(1)
            assert int(y0) == int(rows.min())
            assert int(x0) == int(columns.min())
