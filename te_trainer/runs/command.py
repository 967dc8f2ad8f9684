"""The frame of every command: its exit status, one sentence instead of a stack trace where the user can fix the cause,
and the one life of an output folder.

A command holds its folder, refuses to continue there with another configuration, writes `run.yaml` before it works and
`results.json` when it is done. In between, what is done is what lies on the disk.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from te_trainer.config.schema import ContrastiveConfig, EvaluationConfig, RunConfig
from te_trainer.distributed import is_first_to_fail
from te_trainer.errors import DivergedError, InputError
from te_trainer.escaping import printable

if TYPE_CHECKING:
    from te_trainer.runs.manifest import RunManifest

Config = TypeVar("Config", RunConfig, ContrastiveConfig, EvaluationConfig)


def run_command(main: Callable[[], None], again: str = "continues") -> int:
    """Run a command's main function.

    Of the processes that one launcher started on a machine, the first that fails says why: the others fail in the same
    way, or because it is gone.

    Args:
        again: What the same command does after an interruption.

    Returns:
        The exit status: 0 when the command is done, 2 for input that cannot be used, 1 when training diverged, 130 when
        it was interrupted. Any other exception is a defect of ours and keeps its stack trace.
    """
    try:
        main()
    except InputError as error:
        return _complain(str(error), 2)
    except DivergedError as error:
        return _complain(str(error), 1)
    except KeyboardInterrupt:
        return _complain(f"interrupted; the same command {again}", 130, by_name=False)
    except Exception:
        if is_first_to_fail():
            raise
        return 1
    return 0


def run_in_output_dir(
    config: Config,
    work: Callable[[RunManifest[Config]], None],
    make_plan: Callable[[Config, int], Any] | None = None,
) -> bool:
    """Let all ranks work in a configuration's output folder, which this run holds meanwhile; then they part."""
    # imported here, so that --help and a wrong key answer at once
    from te_trainer.distributed import process_state, shutdown_process_group
    from te_trainer.files.disk_errors import disk_errors_as_input_error
    from te_trainer.runs.commits import pin_begun
    from te_trainer.runs.folder import lock_run_dir
    from te_trainer.runs.manifest import RunManifest
    from te_trainer.runs.quiet import quiet_libraries

    quiet_libraries()
    root = Path(config.output_dir)
    state = process_state(config.ddp_timeout)
    with disk_errors_as_input_error(root), lock_run_dir(root) if state.is_main_process else contextlib.nullcontext():
        state.wait_for_everyone()
        manifest = RunManifest(root, config, state.num_processes, make_plan)
        # what a section means may depend on its model
        pin_begun(manifest.begun or {})
        manifest.refuse_other_configuration()
        work(manifest)
    shutdown_process_group()
    return bool(state.is_main_process)


def _complain(sentence: str, status: int, by_name: bool = True) -> int:
    if is_first_to_fail():
        rank = os.environ.get("RANK", "0")
        where = f"rank {rank}: " if by_name and rank != "0" else ""
        print(f"error: {where}{printable(sentence)}", file=sys.stderr)
    return status
