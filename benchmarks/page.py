"""Renewing a page of the documents from stored results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


def renew(about: str | None, change: Callable[[str], str]) -> None:
    """Rewrites the page that the command line names, or says that it is out of date.

    Args:
        about: what the command does.
        change: makes the new text of a page from the old one.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("page", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    before = options.page.read_text()
    after = change(before)
    if not options.check:
        options.page.write_text(after)
    elif after != before:
        sys.exit(f"{options.page} is out of date")
