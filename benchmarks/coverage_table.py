"""The tables of ``docs/coverage.md`` from the lines that ``coverage.py`` wrote."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Line = dict[str, Any]
PARTS = ("torchvision", "timm", "transformers")
NOTHING = "VG701 nothing was converted: "


def lines(results: Path) -> list[Line]:
    """Returns the records of a results file; of one model the last counts."""
    if not results.exists():
        return []
    found: dict[tuple[str, str], Line] = {}
    for text in results.read_text().splitlines():
        line = json.loads(text)
        found[line["part"], line["name"]] = line
    return list(found.values())


def built(line: Line) -> bool:
    return line.get("built") == "yes"


def fine(line: Line, check: str) -> bool:
    """Tells whether a check came to an end."""
    record = line.get(check)
    return record is not None and "refused" not in record and "failed" not in record


def found_all(line: Line) -> bool:
    record = line.get("activations", {})
    return fine(line, "activations") and record["found"] >= record["kernels"]


def handled(line: Line) -> bool:
    return fine(line, "activations") and not line["activations"]["no_handle"]


def untreatable(line: Line, to: str, nature: tuple[str, ...]) -> bool:
    """Tells a model in which the architecture leaves nothing to convert."""
    said = line.get(to, {}).get("refused", "")
    if not said.startswith(NOTHING):
        return False
    reasons = said.removeprefix(NOTHING).split("; ")
    shown = [r for r in reasons if not r.startswith("and ")]
    return all("no activation" in r or any(n in r for n in nature) for r in shown)


def whole(line: Line, to: str) -> bool:
    """Tells whether all that could be converted was."""
    return fine(line, to) and not line[to]["not_converted"]


def preserved(line: Line, to: str) -> bool:
    return fine(line, to) and line[to]["preserved"]


def answers(line: Line, to: str, what: str) -> bool:
    return fine(line, to) and line[to][what] == "yes"


def read_back(line: Line) -> bool:
    """Tells whether all that was converted was written and read back bit-equal."""
    done = [to for to in ("ar", "adact") if fine(line, to)]
    return bool(done) and all(answers(line, to, "reloaded") for to in done)


def summary(found: list[Line], nature: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """Yields the table of figures per library."""
    yield "| | torchvision | timm | transformers | all |"
    yield "|---|---|---|---|---|"
    checks: list[tuple[str, Callable[[Line], bool], Callable[[Line], bool]]] = [
        ("ran on made-up input", built, lambda _: True),
        ("scanned", lambda x: fine(x, "scan"), lambda _: True),
        ("traced by torch.fx, equal outputs", lambda x: fine(x, "fx"), lambda _: True),
        ("recorded", lambda x: fine(x, "activations"), lambda _: True),
        ("every activation kernel accounted for", found_all, lambda _: True),
        ("every activation has a place to be replaced", handled, lambda _: True),
    ]
    for to, name in (("ar", "AR"), ("adact", "AdAct")):
        every = "layer before an activation" if to == "ar" else "hidden activation"
        checks += [
            (f"{name}: something converted", lambda x, to=to: fine(x, to), _any),
            (
                f"{name}: every {every} converted, or none there by nature",
                lambda x, to=to: whole(x, to) or untreatable(x, to, nature[to]),
                _any,
            ),
            (
                f"{name}: bit-equal at the converted modules, of those converted",
                lambda x, to=to: preserved(x, to),
                lambda x, to=to: fine(x, to),
            ),
            (
                f"{name}: every new parameter gets a gradient, of those converted",
                lambda x, to=to: answers(x, to, "trains"),
                lambda x, to=to: fine(x, to),
            ),
            (
                f"{name}: saved, read again and bit-equal, of those converted",
                lambda x, to=to: answers(x, to, "reloaded"),
                lambda x, to=to: fine(x, to),
            ),
        ]
    label = "AR, AdAct or both converted, saved, read again and bit-equal"
    checks.append((label, read_back, _any))
    for label, passes, counts in checks:
        cells = [
            _share([x for x in found if x["part"] == p and counts(x)], passes)
            for p in PARTS
        ]
        cells.append(_share([x for x in found if counts(x)], passes))
        yield f"| {label} | {' | '.join(cells)} |"


def _any(_line: Line) -> bool:
    return True


def _share(counted: list[Line], passes: Callable[[Line], bool]) -> str:
    good = sum(passes(line) for line in counted)
    if not counted:
        return "–"
    return f"{good}/{len(counted)} ({100 * good / len(counted):.1f} %)"


def activations(found: list[Line]) -> str:
    """Returns the sentence on activations one by one."""
    records = [x["activations"] for x in found if fine(x, "activations")]
    total = sum(r["found"] for r in records)
    without = sum(sum(r["no_handle"].values()) for r in records)
    return (
        f"{total:,} activation calls in all, {total - without:,} of them "
        f"({100 * (total - without) / max(total, 1):.2f} %) with a place where they "
        "can be replaced."
    )


def rows(found: list[Line]) -> Iterator[str]:
    """Yields one row a model: the number of edits, and what went wrong."""
    yield "| model | parameters | fx | activations | AR | AdAct | remarks |"
    yield "|---|---|---|---|---|---|---|"
    for line in sorted(found, key=lambda x: x["name"]):
        if not built(line):
            why = line.get("built") or line.get("ended", "")
            yield f"| {line['name']} | | | | | | {_cell(why)} |"
            continue
        acts = line.get("activations", {})
        yield (
            f"| {line['name']} | {_count(line['parameters'])} "
            f"| {'yes' if fine(line, 'fx') else 'no'} | {acts.get('found', '–')} "
            f"| {_edits(line, 'ar')} | {_edits(line, 'adact')} "
            f"| {_cell('; '.join(remarks(line)))} |"
        )


def _edits(line: Line, to: str) -> str:
    return str(line[to]["edits"]) if fine(line, to) else "–"


def remarks(line: Line) -> Iterator[str]:
    """Yields what a reader should know of a model, fx aside."""
    if "ended" in line:
        yield line["ended"]
    for check in ("scan", "activations"):
        for word in ("refused", "failed"):
            if word in line.get(check, {}):
                yield f"{check} {word}: {line[check][word]}"
    acts = line.get("activations", {})
    if acts.get("found", 0) < acts.get("kernels", 0):
        beside = acts["kernels"] - acts["found"]
        yield f"{beside} kernels on parameters, constants or detached values"
    yield from _conversion(line.get("ar", {}), "AR")
    yield from _conversion(line.get("adact", {}), "AdAct")


def _conversion(record: Line, name: str) -> Iterator[str]:
    for word in ("refused", "failed"):
        if word in record:
            said = record[word].removeprefix(NOTHING).partition("; ")[0]
            yield f"{name}: {said.partition(': ')[2] or said}"
    for reason, count in record.get("not_converted", {}).items():
        yield f"{name}: {count} × {reason}"
    for what in ("trains", "reloaded"):
        if record.get(what, "yes") != "yes":
            yield f"{name} {what}: {record[what]}"
    if record.get("preserved") is False:
        yield f"{name}: equal up to rounding"


def _why(refusal: str) -> str:
    """Returns the kind of reason for which torch.fx failed, without names."""
    if "outputs differ" in refusal:
        return "the graph computes something else"
    if "the traced model fails" in refusal:
        return "the graph fails where the model does not"
    return refusal.partition(": ")[2][:110]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:240]


def _count(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e5 else f"{number / 1e3:.0f} k"


def markdown(results: Path, listed: dict[str, list[str]]) -> str:
    """Returns all tables.

    Args:
        results: the lines.
        listed: the models of each library, tried or not.
    """
    from coverage_checks import HOPELESS, NATURE

    found = lines(results)
    text = [
        *summary(found, {"ar": NATURE, "adact": HOPELESS}),
        "",
        activations(found),
    ]
    for part in PARTS:
        mine = [line for line in found if line["part"] == part]
        left = sorted(set(listed[part]) - {line["name"] for line in mine})
        text += ["", f"### {part}: {len(mine)} of {len(mine) + len(left)} models", ""]
        text += [*rows(mine)] if mine else []
        if left:
            text += ["", f"Not tried yet: {', '.join(left)}."]
    reasons = Counter(
        _why(line["fx"]["refused"]) for line in found if "refused" in line.get("fx", {})
    )
    text += ["", "### Why `torch.fx` fails", ""]
    text += [f"- {count} × {reason}" for reason, count in reasons.most_common()]
    return "\n".join(text)
