"""The manual pages of the treatments, for ``vgaudit explain ar`` and the like.

``python -m vgaudit.reports.treatments > docs/treatments.md`` writes all of them.
"""

from __future__ import annotations

import sys
import textwrap
from dataclasses import dataclass, fields

from vgaudit.conversion import Treatment

__all__ = ["PAGES", "Page", "manual", "page"]

WIDTH = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a user needs to know of a treatment before it touches a model."""

    summary: str
    changes: str
    preserves: str
    refuses: str
    cost: str
    references: str


_HEADINGS = {
    "changes": "What it changes",
    "preserves": "What it preserves",
    "refuses": "When it refuses",
    "cost": "Cost",
    "references": "References",
}

_UNITS = """\
Every refused activation is listed with its reason (VG701): an output activation, a
gate, a normalization in between that cancels the scale (--normed converts it all the
same), a layer whose weight is computed or used elsewhere, a raw parameter whose output
axis nobody states, pre-activations that do not vary on the data."""

PAGES: dict[Treatment, Page] = {
    "ar": Page(
        summary="Auto-rotation: multiplies each unit's pre-activation by ρ = L / D.",
        changes="""\
A layer that feeds a hidden activation computes z = ρ·f instead of f = ⟨w, x⟩ + b.
D is the size of f over the layer's inputs and depends on w and b, so ρ moves as they
train; L is what |z| is to keep, and is trained too. The layers are calibrated on the
data (99 % of |z| below 4 for sigmoid, 2 for tanh), centred where the signal dies, and
folded: w ← ρ·w, b ← ρ·b, after which ρ = 1 and the function is what it was.

It does not bound |z| by L. That claim of the paper is false for weights of mixed
sign: f(x_Q) is a sum with mean zero, and may be far smaller than f elsewhere. Take
w = (1, −1), b = 0.1, inputs in [0, 1]: at x_Q = −1, f = 0.1, so ρ = 10·L, and at
x = (1, 0), z = 11·L. The report prints the share of |z| > L on your data. Only
--denominator interval bounds it, for inputs in the range seen, and it makes deep nets
worse: typical values grow with √n, a worst case with n.""",
        preserves="""\
The sign of every pre-activation, so ReLU units stay dead or alive. With --preserve
L = D, so that ρ = 1: all outputs are bit-equal, and so are the gradients. Without it
the report states the largest change of any output.""",
        refuses=_UNITS,
        cost="""\
One pass over the weights of a converted layer per call; the operator runs once, as
before. Three more entries a layer in the state_dict. --to plain bakes it out, exactly.
On deep sigmoid nets --to rescale does about as well and adds nothing: try it first.""",
        references="docs/ar.md; docs/convert.md has the MNIST table beside BatchNorm.",
    ),
    "adact": Page(
        summary="AdAct: trainable piecewise linear functions in place of activations.",
        changes="""\
Each hidden activation becomes a PiecewiseLinear with trainable values at fixed hinges
(9 unless --hinges says otherwise), one function per channel, or one for all with
--shared. Functions called in the source of a method are replaced there, on a subclass.
It starts as the old activation where that is piecewise linear, as old(x) + 0 where it
is a curve without rails, and as tanh where the activation saturates: --start.""",
        preserves="""\
With --preserve the outputs, bit for bit: ReLU is reproduced exactly, and others get
old(x) + PL(x) with PL = 0. The gradients are then the old ones, too: it helps by
training only. A function that starts as tanh changes the outputs; the report says by
how much.""",
        refuses="""\
Output activations, gates, soft caps of logits, PReLU and RReLU (they have parameters or
randomness of their own), and calls more than one function away from a method. The
gates inside a fused LSTM, GRU or RNN are reached with --unfuse.""",
        cost="""\
Forward and backward take about 7 times those of ReLU, whatever the number of hinges,
and save one tensor. A hinge beside which no data falls is dead and gets no gradient:
the report counts them. More parameters overfit sooner: keep a validation set.""",
        references="docs/adact.md; arXiv 2308.05724.",
    ),
    "rescale": Page(
        summary="Folds calibrated statistics into weights and biases; no new layers.",
        changes="""\
One factor per layer, in forward order, each measured behind those before it, so that
99 % of |z| lies below the activation's size; means are subtracted where the signal
dies. It is what ar does once, without the part that stays.""",
        preserves="""\
No function: the report states the largest change of any output. Architecture, keys and
shapes stay; a layer without bias gets one where it is centred. Where nothing is centred
and the activation saturates, the next Linear layer is refitted, so that a trained but
saturated net nearly keeps its function.""",
        refuses=_UNITS,
        cost="None afterwards: the result is an ordinary model that needs no vgaudit.",
        references="Layer-sequential unit variance, arXiv 1511.06422; docs/convert.md.",
    ),
    "plain": Page(
        summary="Bakes auto-rotation out: plain layers with the weights ρ·w and ρ·b.",
        changes="Auto-rotated layers become Linear, convolutions, LSTM … again.",
        preserves="The outputs, bit for bit; else it fails, without a file (VG702).",
        refuses="""\
Models without an auto-rotated layer; layers with --border reference, whose factor
varies along the border.""",
        cost="None: the weights fit the original architecture, without vgaudit.",
        references="docs/convert.md.",
    ),
}


def page(name: Treatment) -> str:
    """Returns the manual page of a treatment as text for a terminal."""
    found = PAGES[name]
    parts = [f"{name}\n{'=' * len(name)}\n\n{found.summary}\n"]
    for field in fields(found):
        if field.name in _HEADINGS:
            body = _filled(getattr(found, field.name))
            parts.append(f"{_HEADINGS[field.name]}\n{body}\n")
    return "\n".join(parts)


def manual() -> str:
    """Returns the pages of all treatments as Markdown."""
    parts = [
        "# Treatments\n\nWhat `vgaudit convert MODEL --to TREATMENT` does; "
        "`vgaudit explain TREATMENT` shows the same. Made from the source by "
        "`python -m vgaudit.reports.treatments > docs/treatments.md`.\n"
    ]
    for name, found in PAGES.items():
        parts.append(f"## {name}\n\n{_literal(found.summary)}\n")
        parts += [
            f"**{_HEADINGS[field.name]}**\n\n{_literal(getattr(found, field.name))}\n"
            for field in fields(found)
            if field.name in _HEADINGS
        ]
    return "\n".join(parts)


def _literal(text: str) -> str:
    """Returns text in which Markdown sees no marks: |z| and * stay what they are."""
    return text.replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


def _filled(text: str) -> str:
    """Returns paragraphs that fit a terminal."""
    return "\n\n".join(
        textwrap.fill(
            " ".join(paragraph.split()),
            WIDTH,
            initial_indent="  ",
            subsequent_indent="  ",
            break_on_hyphens=False,
        )
        for paragraph in text.split("\n\n")
    )


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.write(manual())
