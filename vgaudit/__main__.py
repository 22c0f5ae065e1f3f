"""``python -m vgaudit``: the command line."""

from __future__ import annotations

from vgaudit.cli import main

if __name__ == "__main__":
    main()
