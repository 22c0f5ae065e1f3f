"""``vgaudit rules``: the rules, one line each."""

from __future__ import annotations


def rules() -> int:
    """List the rules: code, name, and what each finds."""
    from vgaudit.cli.output import show
    from vgaudit.explain import listing

    show(listing())
    return 0
