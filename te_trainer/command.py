"""The frame of every recipe: exit statuses, and one sentence instead of a stack trace where a person can mend it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from te_trainer.errors import DivergedError, InputError


def run_command(main: Callable[[], None]) -> int:
    """Run a recipe's main function.

    Returns:
        0 when it is done, 2 for input that cannot be used, 1 when training diverged, 130 when interrupted. Anything
        else is a defect of ours and keeps its stack trace.
    """
    try:
        main()
    except InputError as error:
        return _complain(str(error), 2)
    except DivergedError as error:
        return _complain(str(error), 1)
    except KeyboardInterrupt:
        return _complain("interrupted; the same command continues", 130)
    return 0


def _complain(sentence: str, status: int) -> int:
    if os.environ.get("RANK", "0") == "0":
        print(f"error: {sentence}", file=sys.stderr)
    return status
