"""``vgaudit explain RULE``: the manual page of a rule or a treatment."""

from __future__ import annotations

from typing import Annotated

import typer


def explain(
    rule: Annotated[
        str,
        typer.Argument(
            help="A code (VG101), the start of one (VG1), a name "
            "(vanishing-gradient), or a treatment (ar, adact, rescale, plain).",
            show_default=False,
        ),
    ],
) -> int:
    """Show what a rule measures, or what a treatment changes and what it keeps."""
    from vgaudit.cli.output import show
    from vgaudit.explain import page
    from vgaudit.reports import treatments
    from vgaudit.rules.selection import find

    for name in treatments.PAGES:
        if rule.lower() == name:
            show(treatments.page(name))
            return 0
    show("\n".join(page(found) for found in find(rule)))
    return 0
