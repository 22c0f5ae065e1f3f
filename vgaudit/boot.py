"""The script that starts the worker, run by its path and with ``-P``.

So no file in the working folder can shadow a library: the folder that holds vgaudit
goes last on the import path, where the installed ones have been searched already.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Finds vgaudit and runs the worker."""
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from vgaudit.worker import main as work

    work()


if __name__ == "__main__":
    main()
