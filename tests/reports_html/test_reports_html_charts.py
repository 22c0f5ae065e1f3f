"""Charts: what they draw equals the flow, and nothing makes them fail."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from tests.reports_html.reading import number, percent, read
from vgaudit.flow import (
    AttentionFlow,
    DeepFlow,
    Exponents,
    FormatLoss,
    GateFlow,
    Interval,
    JacobianFlow,
    MeanFieldLayer,
    Moments,
    ParameterPrecision,
    RecurrenceFlow,
    StreamPoint,
    TheoryFlow,
)
from vgaudit.judge import Policy, judge
from vgaudit.reports.charts import (
    activations,
    budget,
    deep,
    depth,
    exponents,
    heatmap,
    lag,
    learning,
    overlay,
    profile,
)
from vgaudit.retraining import Epoch, LayerGradient, Run
from vgaudit.rules.examples import activation, around, chain, having
from vgaudit.rules.exploding_gradient import ExplodingGradient
from vgaudit.rules.vanishing_gradient import VanishingGradient

LOST = (-9.6, -8.8, -7.7, -6.9, -5.5, -4.4, -3.1, -2.0, -1.0, 0.0)
SICK = chain(LOST, spread=0.2).flow
NOTHING = having(chain(), trunk=(), layers=(), attenuation=None, weight_layers=0).flow


def deep_chain(n: int):
    return chain([-0.3 * (n - 1 - i) for i in range(n)]).flow


# --- the axis -----------------------------------------------------------------------


def test_each_weight_layer_has_the_same_room() -> None:
    at = depth.axis(SICK)
    found = depth.stations(SICK, most=48)

    assert 10 == at.layers
    assert [10 * i for i in range(len(found) + 1)] == pytest.approx(
        [at(s.far) for s in found] + [at(found[-1].near)]
    )


@pytest.mark.parametrize("n", [2, 10, 48, 49, 100, 500])
def test_stations_follow_each_other_and_are_few(n) -> None:
    flow = deep_chain(n)
    found = depth.stations(flow, most=48)

    assert len(found) <= 48
    assert [b.far for b in found[1:]] == [a.near for a in found[:-1]]
    assert [b.end for b in found[1:]] == pytest.approx([a.start for a in found[:-1]])
    assert 0.0 == found[-1].start
    assert flow.trunk[0].attenuation.value == found[0].end
    assert len(flow.trunk) == sum(len(station.steps) for station in found)


def test_labels_do_not_run_into_each_other() -> None:
    names = [f"a.very.long.path.of.layer.{i}" for i in range(40)]
    places = [2.5 * i + 1 for i in range(40)]
    page = read(depth.labels(names, places, 100.0))
    shown = list(page.every("text"))
    everywhere = [x for x in shown if "w" not in (x.attributes["class"] or "").split()]

    assert 2 <= len(everywhere) <= len(shown) < 40
    for found, width in ((shown, depth.WIDE), (everywhere, depth.NARROW)):
        spans = sorted(_span(label, width) for label in found)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


def _span(label, width):
    at = percent(label.attributes["x"]) / 100 * width
    wide = len(label.text) * depth.LETTER
    anchor = label.attributes.get("text-anchor", "start")
    left = at - wide * {"start": 0, "middle": 0.5, "end": 1}[anchor]
    return left, left + wide


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fc", "fc"),
        ("encoder.layers.encoder_layer_9", "layers.encoder_layer_9"),
        ("encoder.layers.encoder_layer_9 add#2", "encoder_layer_9 add#2"),
        ("layers.encoder_layer_10.self_attention", "…yer_10.self_attention"),
        ("x" * 100, "…" + "x" * 21),
    ],
)
def test_a_long_name_keeps_what_tells_it_apart(name, text) -> None:
    found = depth.shortened(name)

    assert text == found
    assert len(found) <= depth.LABEL


# --- the budget ---------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 10, 500])
def test_the_parts_of_the_bars_are_the_budget_of_the_flow(n) -> None:
    flow = deep_chain(n)
    total: dict[str, float] = {}
    for bar in budget.bars(flow):
        for part in (*bar.losses, *bar.gains):
            total[part.cause] = total.get(part.cause, 0.0) + part.decades

    assert pytest.approx(flow.budget()) == total


def test_a_waterfall_stands_where_it_should() -> None:
    """Two stations of 2 decades each: 60 % by slopes, 40 % by weights."""
    figure = budget.draw(chain((-4.0, -2.0, 0.0)).flow, reach=(-4.0, 0.0))
    assert figure is not None
    boxes = [
        (
            x.attributes["class"],
            percent(x.attributes["x"]),
            float(x.attributes["y"] or ""),
            percent(x.attributes["width"]),
            float(x.attributes["height"] or ""),
        )
        for x in read(figure.picture).every("rect")
    ]

    # A decade is (300 − 12) / 4 = 72 pixels; 0 is at 6; each third of the width holds
    # a bar of 8 % in its middle.
    assert [
        ("c-activation", 12.67, 150.0, 8.0, 86.4),
        ("c-weights", 12.67, 236.4, 8.0, 57.6),
        ("c-activation", 46.0, 6.0, 8.0, 86.4),
        ("c-weights", 46.0, 92.4, 8.0, 57.6),
    ] == boxes


def test_the_table_of_the_budget_adds_up() -> None:
    figure = budget.draw(SICK)
    assert figure is not None
    head, rows = figure.grid.columns, figure.grid.rows
    sums = [sum(number(x) for x in row[1:-2] if x != "–") for row in rows]

    assert "#sum" == head[-2]
    assert [number(row[-2]) for row in rows] == pytest.approx(sums, abs=0.015)
    assert pytest.approx(LOST[0], abs=0.005) == number(rows[-1][-1])
    assert SICK.budget() == pytest.approx(
        {
            "activation": number(figure.keys[0].figure),
            "weights": number(figure.keys[1].figure),
        },
        abs=0.01,
    )


def test_gains_are_hollow_and_beside_the_losses() -> None:
    flow = chain((2.0, 1.0, 0.0)).flow
    figure = budget.draw(flow)
    assert figure is not None

    kinds = [x.attributes["class"] for x in read(figure.picture).every("rect")]

    assert kinds
    assert all(kind.endswith(" back") for kind in kinds)
    assert "Hollow" in figure.caption


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (-3.6, "one part in 4,000"),
        (-8.57, "one part in 400,000,000"),
        (-1.0, "one part in 10"),
        (-42.6, "one part in 10⁴³"),
        (-0.5, ""),
        (1.0, ""),
        (-math.inf, ""),
        (math.nan, ""),
    ],
)
def test_decades_in_words(value, words) -> None:
    assert words == budget.lost(value)


# --- the profile --------------------------------------------------------------------


def test_the_profile_passes_through_every_tensor_of_the_trunk() -> None:
    line = profile.points(SICK)

    assert [s.attenuation.value for s in SICK.trunk] == [p.value for p in line[:-1]]
    assert [s.attenuation.lo for s in SICK.trunk] == [p.lo for p in line[:-1]]
    assert (0.0, 100.0) == (line[0].x, line[-1].x)
    assert [p.x for p in line] == sorted(p.x for p in line)
    assert 0.0 == line[-1].value


def test_a_deep_profile_keeps_its_lowest_points() -> None:
    flow = deep_chain(3000)
    line = profile.points(flow)

    assert len(line) <= profile.MOST_POINTS + 1
    assert flow.trunk[0].attenuation.value == line[0].value


TRUNK = [
    pytest.param(rule, example, id=f"{rule.code}-{example.shows}")
    for rule in (VanishingGradient, ExplodingGradient)
    for example in rule.FIRES
]


@pytest.mark.parametrize(("rule", "example"), TRUNK)
def test_the_limits_drawn_are_those_that_findings_are_judged_by(rule, example) -> None:
    optimizer = example.training.optimizer
    report = judge(example.audit, Policy(optimizer=optimizer))
    drawn = profile.limits(example.audit.flow, report.thresholds, optimizer)

    known = {(limit.kind, limit.value) for limit in drawn}
    for finding in report.findings:
        if finding.code == rule.code and not finding.unclear:
            assert (f"limit-{finding.level}", finding.limit) in known


def test_a_threshold_of_the_user_moves_its_limit() -> None:
    moved = {"vanishing-gradient.sgd_error": -5.25, "exploding-gradient.error": 9.0}

    words = [limit.words for limit in profile.limits(SICK, moved, "sgd")]

    assert words[0] == "error below −5.25 under sgd"
    assert words[-2].startswith("error above 9")
    assert () == profile.limits(SICK, {}, "sgd")


def test_a_limit_is_drawn_at_its_height() -> None:
    limit = profile.Limit(-3.6, "error below 3.6", "limit-error")
    figure = profile.draw(SICK, (limit,))
    assert figure is not None
    drawn = next(read(figure.picture).every("line", "limit-error"))

    expected = profile.scale(SICK)(-3.6)
    assert pytest.approx(expected, abs=0.01) == float(drawn.attributes["y1"])


def test_the_prediction_is_drawn_where_its_layers_are() -> None:
    steps = SICK.trunk
    predicted = [
        MeanFieldLayer(
            layer=step.name,
            kind=step.cause,
            chi=0.1,
            chi_free=None,
            predicted=-0.5 * (len(steps) - i),
            measured=None,
        )
        for i, step in enumerate(steps)
    ]
    theory = TheoryFlow(
        layers=tuple(predicted),
        chi=0.1,
        depth_scale=0.4,
        predicted=-9.0,
        predicted_free=None,
        measured=-9.6,
        spread=0.1,
        covered=len(steps),
        steps=len(steps),
    )
    flow = replace(SICK, deep=DeepFlow(theory=theory))
    drawn = profile.theory(flow)
    figure = profile.draw(flow)

    assert [*(x.predicted for x in predicted), 0.0] == [value for _, value in drawn]
    assert [p.x for p in profile.points(flow)] == pytest.approx([x for x, _ in drawn])
    assert figure is not None
    assert any(
        "theory" == x.attributes.get("class")
        for x in read(figure.picture).every("path")
    )
    assert "#predicted" == figure.grid.columns[-1]
    assert -0.5 * len(steps) == number(figure.grid.rows[-1][-1])


# --- activations --------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "slope"), [("sigmoid", 0.25), ("tanh", 1.0)])
def test_the_rails_begin_where_the_slope_is_a_twentieth(kind, slope) -> None:
    z = activations.RAILS[kind]
    tail = 1 - math.tanh(z) ** 2
    if kind == "sigmoid":
        tail = math.exp(-z) / (1 + math.exp(-z)) ** 2

    assert pytest.approx(activations.TAIL * slope) == tail


def test_the_shares_of_an_activation_fill_its_bar() -> None:
    audit = activation(
        chain(LOST), "layers.5", saturated_low=0.3, saturated_high=0.5, dead_units=3
    )
    figure = activations.draw(audit.flow)
    assert figure is not None
    row = next(
        row
        for row in read(figure.picture).every("div", "row")
        if "layers.5" in row.text
    )
    boxes = {
        x.attributes["class"]: percent(x.attributes["width"])
        for x in row.one("div", "share").every("rect")
    }
    cells = next(row for row in figure.grid.rows if row[0] == "layers.5")

    assert {"low": 30.0, "open": 20.0, "high": 50.0} == pytest.approx(boxes)
    assert "80 % saturated, 3 dead" in row.text
    assert ("30 %", "50 %", "3 of 64") == cells[-3:]
    assert ["0.00", "1.00", "−3.50", "3.50"] == list(cells[2:6])


def test_of_many_activations_the_worst_are_drawn_in_forward_order() -> None:
    flow = activation(
        chain([-0.1 * i for i in range(60)][::-1]), "layers.7", saturated_high=0.99
    ).flow
    shown = activations.rows(flow)
    figure = activations.draw(flow)
    assert figure is not None

    assert activations.MOST == len(shown)
    assert "layers.7" in {row.name for row in shown}
    numbers = [int(row.name.removeprefix("layers.")) for row in shown]
    assert sorted(numbers) == numbers
    assert "24 worst of 59" in figure.caption
    assert 59 == len(figure.grid.rows)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_an_activation_that_is_no_number_is_drawn(value) -> None:
    moments = Moments(mean=value, std=value, min=value, max=value)
    audit = activation(
        chain(), "layers.1", input=moments, saturated_low=value, slope_mean_square=value
    )
    figure = activations.draw(audit.flow)

    assert figure is not None
    _finite(figure.picture)


# --- recurrent nets, attention, singular values -------------------------------------


def recurrence(rate: float, steps: int = 50) -> RecurrenceFlow:
    return RecurrenceFlow(
        layer="rnn",
        kind="rnn-tanh",
        steps=steps,
        lags=tuple(range(steps)),
        decades=tuple(around(rate * lag, spread=0.1) for lag in range(steps)),
        rate=around(rate),
        horizon=round(-2 / rate) if rate < 0 and -2 / rate < steps else None,
        gates=(
            GateFlow(
                name="state",
                kind="tanh",
                mean=0.0,
                saturated_low=0.1,
                saturated_high=0.2,
            ),
        ),
    )


def test_a_constant_rate_is_a_straight_line() -> None:
    flow = having(chain(), recurrences=(recurrence(-0.1),)).flow
    figure = lag.draw(flow)
    assert figure is not None
    (line,) = read(figure.picture).every("path", "line")
    places = [
        tuple(map(float, pair.split(" ")))
        for pair in (line.attributes["d"] or "").removeprefix("M").split("L")
    ]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(places)]

    assert 50 == len(places)
    assert (0.0, 1000.0) == (places[0][0], places[-1][0])
    assert [slopes[0]] * len(slopes) == pytest.approx(slopes, rel=0.02)
    cells = ("rnn", "rnn-tanh", "50", "−0.100", "−4.90 at 49", "20 steps", "state 30 %")
    assert (cells,) == figure.grid.rows


def test_attention_has_a_dot_for_each_head() -> None:
    call = AttentionFlow(
        layer="block.0.attn",
        source=None,
        queries=16,
        keys=16,
        entropy=(0.25, 0.5, 1.0),
        collapsed=(0.0, 0.1, 0.0),
        largest_logit=(1.0, 2.0, 3.0),
    )
    figure = deep.attention(having(chain(), deep=DeepFlow(attention=(call,))).flow)
    assert figure is not None

    dots = [percent(x.attributes["cx"]) for x in read(figure.picture).every("circle")]

    assert [25.0, 50.0, 100.0] == dots
    cells = ("block.0.attn", "3", "16", "0.25", "0.58", "1.00", "10 %", "3.0")
    assert (cells,) == figure.grid.rows


def jacobian(spectrum: tuple[float, ...] = (), largest: float | None = 2.0):
    return JacobianFlow(
        layer="",
        inputs=8,
        outputs=4,
        mean_square=1.0,
        mean_square_error=0.0,
        largest=largest,
        converged=True,
        spectrum=spectrum,
    )


@pytest.mark.parametrize(
    "found",
    [
        jacobian((10.0, 1.0, 0.1)),
        jacobian((1.0, 0.0)),
        jacobian((0.0,)),
        jacobian(),
        jacobian(largest=None),
        jacobian(largest=math.nan),
    ],
)
def test_singular_values_are_drawn_whatever_they_are(found) -> None:
    figure = deep.spectrum(having(chain(), deep=DeepFlow(jacobians=(found,))).flow)

    assert figure is not None
    assert "input to output" == figure.grid.rows[0][0]
    _finite(figure.picture)


def precision(name: str, sizes: Exponents, zero: float) -> ParameterPrecision:
    return ParameterPrecision(
        name=name,
        elements=sizes.total,
        exponents=sizes,
        formats=(FormatLoss(format="float16", zero=zero, subnormal=0.0, overflow=0.0),),
        loss_scale=1024.0,
        updates=(),
    )


def test_the_sizes_of_a_gradient_stand_at_their_exponents() -> None:
    """Exponents −30 to −10 make 20 places, so each takes 5 % of the width."""
    counts = (10, 0, 40) + (0,) * 16 + (50,)
    sizes = Exponents(lowest=-30, counts=counts, zeros=0, nonfinite=0)
    deep_flow = DeepFlow(precision=(precision("w", sizes, 0.5),))
    figure = exponents.draw(having(chain(), deep=deep_flow).flow)
    assert figure is not None
    page = read(figure.picture)
    cells = {
        (x.attributes["class"] or "").split()[1]: x.attributes["d"]
        for x in page.every("path", "cell")
    }
    lines = [percent(x.attributes["x1"]) for x in page.every("line", "limit-error")]

    assert {
        "d-3": "M0 1h50v14h-50z",
        "d-4": "M100 1h50v14h-50zM950 1h50v14h-50z",
    } == cells
    assert [25.0, 80.0] == lines
    assert (("w", "100", "50 %", "0 %", "1,024"),) == figure.grid.rows


def test_of_many_parameters_those_that_lose_most_are_drawn_in_order() -> None:
    sizes = Exponents(lowest=-20, counts=(1,), zeros=0, nonfinite=0)
    found = [precision(f"p{i}", sizes, (i * 37 % 100) / 100) for i in range(100)]
    shown = exponents.rows(found)

    assert exponents.MOST == len(shown)
    assert min(one.lost("float16") for one in shown) >= 0.6
    assert sorted(shown, key=lambda one: int(one.name[1:])) == list(shown)


def test_a_gradient_of_zeros_has_no_size_to_draw() -> None:
    nothing = Exponents(lowest=0, counts=(), zeros=9, nonfinite=1)
    deep_flow = DeepFlow(precision=(precision("w", nothing, 0.0),))

    assert exponents.draw(having(chain(), deep=deep_flow).flow) is None


def test_the_forward_signal_has_a_line_for_samples_and_one_for_tokens() -> None:
    points = tuple(
        StreamPoint(
            layer=f"b{i}", size=1.0, variation=1.0 - 0.5 * i, tokens=0.2, rank=3.0
        )
        for i in range(3)
    )
    figure = deep.stream(having(chain(), deep=DeepFlow(stream=points)).flow)
    assert figure is not None

    assert ["over samples", "over tokens"] == [key.name for key in figure.keys]
    assert 2 == len(list(read(figure.picture).every("path", "line")))
    assert ("b2", "1", "0 %", "20 %", "3.0") == figure.grid.rows[-1]


# --- training -----------------------------------------------------------------------


def run(name: str, values: dict[int, tuple[float | None, ...]]) -> Run:
    epochs = tuple(
        Epoch(
            number=number,
            steps=10 * number,
            train_loss=None if number == 0 else 1.0 / number,
            valid_loss=1.0 / (number + 1),
            metric=number / 10,
            lr=0.1,
            seconds=2.0,
            attenuation=-4.0 + number,
            layers=tuple(
                LayerGradient(layer=f"layers.{i}", rms=1.0, relative=x, to_weight=None)
                for i, x in enumerate(row)
            ),
        )
        for number, row in values.items()
    )
    return Run(name=name, epochs=epochs, best=max(values))


def test_a_heatmap_has_the_colour_of_each_cell() -> None:
    found = run("sdagd", {0: (None, 0.0), 1: (-3.5, 0.5), 2: (-0.2, 0.1)})
    figure = heatmap.draw(found)
    assert figure is not None
    paths = {
        (x.attributes["class"] or "").split()[1]: x.attributes["d"]
        for x in read(figure.picture).every("path", "cell")
    }

    # The output's layer is the upper row; cells are 333.33 wide and 20 high.
    assert "M0 20h333.33v20h-333.33z" == paths["h-n"]
    assert "M333.33 20h333.33v20h-333.33z" == paths["h-0"]
    assert "M333.33 0h333.33v20h-333.33z" == paths["h-5"]
    assert set(paths) == {"h-n", "h-0", "h-4", "h-5"}
    assert (("layers.1", "0.00", "0.10"), ("layers.0", "exactly zero", "−0.20")) == (
        figure.grid.rows
    )


@pytest.mark.parametrize(
    ("value", "kind"),
    [(-9.0, "h-0"), (-3.0, "h-1"), (-0.3, "h-4"), (0.0, "h-4"), (3.0, "h-8")],
)
def test_colours_change_at_the_edges(value, kind) -> None:
    assert kind == heatmap.kind(value)


def test_a_large_heatmap_stays_small() -> None:
    rows = {e: tuple(math.sin(i * e) * 4 for i in range(300)) for e in range(200)}
    figure = heatmap.draw(run("sgd", rows))
    assert figure is not None

    assert heatmap.MOST_LAYERS == len(figure.grid.rows)
    assert "252 layers" in figure.grid.left_out
    assert len(figure.picture) < 120_000


def test_learning_curves_end_where_the_run_ends() -> None:
    runs = [run("sdagd", {0: (), 1: (), 2: ()}), run("adam", {0: (), 1: ()})]
    figure = learning.draw(runs, metric="accuracy")
    assert figure is not None
    panels = [x.text for x in read(figure.picture).every("h4")]

    assert ["loss", "accuracy", "trunk, decades"] == panels
    assert ["0.2000", "0.1000"] == [key.figure for key in figure.keys]
    assert ("sdagd", "2", "0.5000", "0.3333", "0.2000", "−2.00", "6.0") == (
        figure.grid.rows[0]
    )


def test_a_steep_loss_is_drawn_by_its_logarithm() -> None:
    epochs = tuple(
        replace(epoch, valid_loss=10.0**-epoch.number)
        for epoch in run("sgd", dict.fromkeys(range(5), ())).epochs
    )
    figure = learning.draw([Run(name="sgd", epochs=epochs, best=4)])
    assert figure is not None

    assert "log₁₀ of the loss" == next(read(figure.picture).every("h4")).text


# --- both sides ---------------------------------------------------------------------


def test_both_budgets_share_one_scale() -> None:
    drawn = overlay.budgets((("before", SICK), ("after", chain((-1.0, 0.0)).flow)))
    ticks = [
        [
            x.text
            for x in read(figure.picture).every("text")
            if x.attributes["x"] == "-8"
        ]
        for figure in drawn
    ]

    assert ["before", "after"] == [figure.title for figure in drawn]
    assert ticks[0] == ticks[1]


@pytest.mark.parametrize(
    ("share", "value"),
    [(0.0, -4.0), (0.25, -2.4), (0.5, -0.8), (0.75, -0.4), (1.0, 0.0)],
)
def test_profiles_are_read_between_their_points(share, value) -> None:
    """Places are 0, 1/6, 2/6, 3/6 and 1; decades −4, −2.8, −2, −0.8 and 0."""
    line = profile.points(chain((-4.0, -2.0, 0.0)).flow)

    assert pytest.approx(value) == overlay.at(line, share)


# --- nothing makes them fail --------------------------------------------------------


@pytest.mark.parametrize(
    "draw",
    [
        budget.draw,
        profile.draw,
        activations.draw,
        lag.draw,
        deep.attention,
        deep.spectrum,
        deep.stream,
        exponents.draw,
        lambda flow: overlay.profiles(flow, flow),
    ],
)
def test_nothing_is_drawn_of_nothing(draw) -> None:
    assert draw(NOTHING) is None


def test_no_run_is_drawn_of_nothing() -> None:
    assert learning.draw([]) is None
    assert learning.draw([Run(name="sgd", epochs=(), best=0)]) is None
    assert heatmap.draw(Run(name="sgd", epochs=(), best=0)) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308, -1e308])
def test_no_figure_of_a_step_makes_a_picture_fail(value) -> None:
    odd = Interval(value=value, lo=value, hi=value, n=4)
    for changed in (
        {"gain": odd},
        {"attenuation": odd},
        {"gain": odd, "attenuation": odd},
    ):
        steps = tuple(
            replace(step, **changed) if i in (0, 3) else step
            for i, step in enumerate(SICK.trunk)
        )
        flow = replace(SICK, trunk=steps)
        for figure in (
            budget.draw(flow),
            profile.draw(flow),
            overlay.profiles(flow, SICK),
        ):
            assert figure is not None
            _finite(figure.picture)


def _finite(picture: str) -> None:
    """Every coordinate of a picture is a number."""
    for element in read(picture).every():
        for name, value in element.attributes.items():
            if name in {
                "x",
                "y",
                "x1",
                "x2",
                "y1",
                "y2",
                "cx",
                "cy",
                "width",
                "height",
            }:
                assert math.isfinite(float((value or "").removesuffix("%"))), value
            if name == "d":
                assert "nan" not in (value or "")
                assert "inf" not in (value or "")
