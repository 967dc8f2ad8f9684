"""matplotlib, imported where something is drawn, into files alone."""

from __future__ import annotations

import os
from types import ModuleType


def import_matplotlib() -> ModuleType:
    """Import matplotlib where a notebook has named its screen for all that it starts, and this environment lacks it."""
    try:
        import matplotlib
    except ValueError:
        if os.environ.pop("MPLBACKEND", None) is None:
            raise
        import matplotlib
    return matplotlib
