"""The benchmark's tables, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from benchmarks.detection import limits, score
from benchmarks.detection.grid import LAST, NAMES, members
from benchmarks.detection.score import GROUPS, Judge, Row, Tally, wilson

KINDS = ("sgd", "adam")
RATES = ("tool", "optimizer", "recall", "precision", "false alarms")
START = "### Labels ("
TOOLS = (
    "AutoTrainer",
    "SageMaker Debugger",
    "DeepDiagnosis",
    "TheDeepChecker",
    "TorchLens",
    "torchmortem",
)


def render(rows: Sequence[Row]) -> str:
    """Returns all tables; rates are those of the models that nothing was fitted on."""
    first = [r for r in rows if r["half"] != "report"]
    second = [r for r in rows if r["half"] == "report"]
    fits = {k: {g: score.fit(first, k, g) for g in GROUPS} for k in KINDS}
    fitted = {
        k: {g: f.limit if f else score.DEFAULTS[k][g] for g, f in each.items()}
        for k, each in fits.items()
    }
    judges: dict[str, Judge] = {
        "vgaudit": score.ours(("error",), None),
        "vgaudit, as fitted": score.ours(("error",), fitted),
        **{name: score.peer(name) for name in TOOLS},
    }
    parts = [
        _labels(rows),
        _fits(fits),
        _kinds(first),
        _own(first, judges),
        *(_rates(second, group, judges) for group in ("any", *GROUPS)),
        _draws(rows, judges["vgaudit"]),
        _rules(second),
        _places(second, judges),
        _cut(rows),
        _disguises(rows),
        _families(second, judges["vgaudit"]),
        _errors(second, judges["vgaudit"]),
    ]
    return "\n\n".join(parts) + "\n"


def written(page: str, tables: str) -> str:
    """Returns the page with its tables, which are its end, made anew."""
    return page[: page.index(START)] + tables


def _table(head: Sequence[str], body: Iterator[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])


def _labels(rows: Sequence[Row]) -> str:
    def body() -> Iterator[Sequence[str]]:
        for part in ("fit", "seen", "report"):
            for kind in KINDS:
                found = Counter(score.label(r, kind) for r in rows if r["half"] == part)
                names = ("healthy", *GROUPS, "unclear")
                total = str(sum(found.values()))
                yield (part, kind, total, *(str(found[n]) for n in names))

    head = ("part", "optimizer", "models", "healthy", *GROUPS, "unclear")
    return f"### Labels ({len(rows)} models)\n\n" + _table(head, body())


def _fits(fits: dict[str, dict[str, score.Fit | None]]) -> str:
    def body() -> Iterator[Sequence[str]]:
        for kind, each in fits.items():
            for group, f in each.items():
                if f is None:
                    yield kind, group, "none", "", "", "", ""
                    continue
                default = f"{score.DEFAULTS[kind][group]:g}"
                gap = f"{f.lo:.2f} … {f.hi:.2f}"
                sizes = f"{f.sick} / {f.healthy}"
                yield (
                    kind, group, default, f"{f.limit:g}", gap, str(f.errors), sizes
                )  # fmt: skip

    head = ("optimizer", "group", "default", "fitted", "equally good", "errors")
    table = _table((*head, "sick / healthy"), body())
    return f"### Thresholds, on the models that limits were fitted on\n\n{table}"


def _kinds(rows: Sequence[Row]) -> str:
    head = ("rule", "kind of net", "optimizer", "limit", "gap", "its errors", "fewest")
    table = _table((*head, "sick / well"), limits.table(rows))
    return f"### Limits by the kind of net, on the same models\n\n{table}"


def _share(pair: tuple[int, int]) -> str:
    hits, total = pair
    if not total:
        return "–"
    lo, hi = (100 * x for x in wilson(hits, total))
    return f"{100 * hits / total:.1f} % [{lo:.0f}, {hi:.0f}] ({hits}/{total})"


def _rates(rows: Sequence[Row], group: str, judges: dict[str, Judge]) -> str:
    def body() -> Iterator[Sequence[str]]:
        for name, judge in judges.items():
            for kind in KINDS:
                t = score.tally(rows, kind, group, judge)
                if t is not None:
                    yield name, kind, *map(_share, _three(t))

    title = "Anything wrong" if group == "any" else group.capitalize()
    return f"### {title}, on the unseen models\n\n{_table(RATES, body())}"


def _own(rows: Sequence[Row], judges: dict[str, Judge]) -> str:
    """Our own rates where limits were fitted: what fitting flatters."""
    own = {name: judge for name, judge in judges.items() if name not in TOOLS}
    table = _rates(rows, "any", own).partition("\n\n")[2]
    return f"### Anything wrong, on the models that limits were fitted on\n\n{table}"


def _draws(rows: Sequence[Row], judge: Judge) -> str:
    """Our own rates on each part: what fitting flatters."""

    def body() -> Iterator[Sequence[str]]:
        for name in NAMES:
            mine = [r for r in rows if r["name"] in members(name)]
            for kind in KINDS:
                t = score.tally(mine, kind, "any", judge)
                if t is not None and mine:
                    yield f"{name}.json ({len(mine)})", kind, *map(_share, _three(t))

    table = _table(("models", *RATES[1:]), body())
    return f"### Anything wrong, vgaudit on each draw\n\n{table}"


def _rules(rows: Sequence[Row]) -> str:
    """Each rule alone, against the label that it speaks of."""

    def body() -> Iterator[Sequence[str]]:
        for code in score.ANY:
            judge, group = score.ours(("error",), None, (code,)), score.group_of(code)
            for kind in KINDS:
                t = score.tally(rows, kind, group, judge)
                if t is None or not t.hits + t.alarms:
                    continue
                p = score.places(rows, kind, judge)
                named = _share((p.right, p.named)) if p.named else "–"
                yield code, kind, group, *map(_share, _three(t)), named

    head = ("rule", "optimizer", "label", *RATES[2:], "named layers that are stuck")
    return f"### By rule, errors on the unseen models\n\n{_table(head, body())}"


def _three(t: Tally) -> tuple[tuple[int, int], ...]:
    return t.recall, t.precision, t.false_alarms


def _places(rows: Sequence[Row], judges: dict[str, Judge]) -> str:
    def body() -> Iterator[Sequence[str]]:
        for name, judge in judges.items():
            for kind in KINDS:
                p = score.places(rows, kind, judge)
                if p.models:
                    yield (
                        name,
                        kind,
                        str(p.models),
                        _share((p.first, p.models)),
                        _share((p.right, p.named)),
                        _share((p.found, p.stuck)),
                    )

    head = ("tool", "optimizer", "models", "layer nearest the input is stuck")
    more = ("named layers that are stuck", "stuck layers that are named")
    return f"### Localisation, on the unseen models\n\n{_table((*head, *more), body())}"


def _cut(rows: Sequence[Row]) -> str:
    """VG104 against parameters that no run of a net that learns has moved.

    In float32 only: in a narrow type a small step can round to none.
    """

    def body() -> Iterator[Sequence[str]]:
        for kind in KINDS:
            well = [
                r
                for r in rows
                if score.label(r, kind) == "healthy" and "float16" not in r["name"]
            ]
            cut = [r for r in well if r["oracle"][kind]["still"]]
            whole = [r for r in well if not r["oracle"][kind]["still"]]
            yield kind, _share(_with(cut, kind)), _share(_with(whole, kind))

    head = ("optimizer", "with parameters that never moved", "without such")
    return f"### VG104 in nets that learn, all models\n\n{_table(head, body())}"


def _with(rows: Sequence[Row], kind: str) -> tuple[int, int]:
    found = [any(f[0] == "VG104" for f in r["ours"]["findings"][kind]) for r in rows]
    return sum(found), len(found)


def _disguises(rows: Sequence[Row]) -> str:
    arms = dict.fromkeys(arm for r in rows for arm in r["with_loss"]["changed"])

    def body() -> Iterator[Sequence[str]]:
        for arm in arms:
            asked = [r for r in rows if arm in r["with_loss"]["changed"]]
            changed = [
                f"{r['name']} ({', '.join(r['with_loss']['changed'][arm])})"
                for r in asked
                if r["with_loss"]["changed"][arm]
            ]
            yield arm, str(len(asked)), str(len(changed)), "; ".join(changed[:6])

    head = ("disguise", "models", "with a change", "which (the first six)")
    return f"### The same question in disguise, all models\n\n{_table(head, body())}"


def _families(rows: Sequence[Row], judge: Judge) -> str:
    def body() -> Iterator[Sequence[str]]:
        families: dict[str, list[Row]] = {}
        for row in rows:
            name = row["name"].removeprefix(LAST.prefix)
            families.setdefault(name.partition("-")[0], []).append(row)
        for family, mine in families.items():
            counts = [score.tally(mine, k, "any", judge) for k in KINDS]
            cells = [_share(pair) for t in counts if t for pair in _two(t)]
            yield family, *cells

    head = ("family", "recall SGD", "false alarms SGD", "recall Adam")
    table = _table((*head, "false alarms Adam"), body())
    return f"### By family, on the unseen models\n\n{table}"


def _two(t: Tally) -> tuple[tuple[int, int], tuple[int, int]]:
    return t.recall, t.false_alarms


def _errors(rows: Sequence[Row], judge: Judge) -> str:
    lines = []
    for kind in KINDS:
        t = score.tally(rows, kind, "any", judge)
        if t is not None:
            lines += [f"- missed: {n}" for n in t.missed]
            lines += [f"- false alarm: {n}" for n in t.alarmed]
    return "### Every error on the unseen models\n\n" + "\n".join(lines)
