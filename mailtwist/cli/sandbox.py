"""A mark in the data folder: a sandbox runs on it, and nothing that is sent may leave.

The commands beside ``mailtwist dev`` read no configuration that says so.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

FILE: Final = "dev-mode"


def mark(data_dir: Path, *, is_on: bool) -> None:
    """Say that this process runs the sandbox, or that what it sends leaves."""
    path = data_dir / FILE
    if is_on:
        path.write_text(f"{os.getpid()}\n")
    else:
        path.unlink(missing_ok=True)


def is_running(data_dir: Path) -> bool:
    """Whether the sandbox that left its mark is there still."""
    try:
        os.kill(int((data_dir / FILE).read_text()), 0)
    except PermissionError:
        return True  # another user's
    except (OSError, ValueError, OverflowError):
        return False
    return True
