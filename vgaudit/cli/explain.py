"""``vgaudit explain RULE``: the manual page of a rule."""

from __future__ import annotations

from typing import Annotated

import typer


def explain(
    rule: Annotated[
        str,
        typer.Argument(
            help="A code (VG101), the start of one (VG1), or a name "
            "(vanishing-gradient).",
            show_default=False,
        ),
    ],
) -> int:
    """Show what a rule measures, why it matters, its thresholds and treatments."""
    from vgaudit.cli.output import show
    from vgaudit.explain import page
    from vgaudit.rules.selection import find

    show("\n".join(page(found) for found in find(rule)))
    return 0
