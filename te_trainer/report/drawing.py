"""matplotlib, imported where something is drawn, into files alone."""

from __future__ import annotations

import os
from importlib.util import find_spec
from types import ModuleType

IN_MODULE = "module://"


def import_matplotlib() -> ModuleType:
    """Import matplotlib where a notebook has named its screen for all that it starts, and this environment lacks it."""
    screen = os.environ.get("MPLBACKEND", "")
    if screen.startswith(IN_MODULE) and find_spec(screen.removeprefix(IN_MODULE).partition(".")[0]) is None:
        del os.environ["MPLBACKEND"]
    import matplotlib

    return matplotlib
