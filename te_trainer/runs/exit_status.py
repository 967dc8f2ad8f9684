"""The exit status of every command, and one sentence instead of a stack trace where the user can fix the cause."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

from te_trainer.errors import DivergedError, InputError, first_line
from te_trainer.escaping import printable

DONE, FAILED, INPUT_REFUSED, INTERRUPTED, CLOSED_PIPE = 0, 1, 2, 130, 141
FAILURE_WAIT = 2.0  # seconds that a failed process waits for the first one to fail in the same way
MORE_MEMORY = (
    "for a training, set activation_checkpointing in its section, or lower per_device_train_batch_size and raise "
    "gradient_accumulation_steps as much (contrastive training needs another output_dir then); for scores, lower "
    "batch_tokens"
)


def run_command(main: Callable[[], object], again: str = "continues") -> int:
    """Run a command's main function; `again` says what the same command does after an interruption.

    Of the processes that one launcher started on a machine, the first that fails says why: the others fail in the same
    way, or because it is gone.

    Returns:
        The exit status: 0 when the command is done, 2 for input that cannot be used, 1 when training diverged or memory
        did not suffice, 130 when it was interrupted, 141 when nobody reads its output any more, as after `| head`. Any
        other exception is a defect of ours and keeps its stack trace.
    """
    try:
        main()
        if sys.stdout is not None:
            sys.stdout.flush()
    except InputError as error:
        return _complain(str(error), INPUT_REFUSED)
    except DivergedError as error:
        return _complain(str(error), FAILED)
    except BrokenPipeError:
        if not _lost_reader():
            raise
        _is_first_to_fail()  # so that the other processes end without a word, too
        return CLOSED_PIPE
    except KeyboardInterrupt:
        return _complain(f"interrupted; the same command {again}", INTERRUPTED, by_name=False)
    except Exception as error:
        if (lack := _lack_of_memory(error)) is not None:
            return _complain(f"{lack}; {MORE_MEMORY}; the command with that change {again}", FAILED)
        if _is_first_to_fail():
            raise
        return FAILED
    return DONE


def _lost_reader() -> bool:
    """Whether the command's output is a pipe that nobody reads any more; what is left of it goes nowhere then."""
    output = select.poll()
    try:
        output.register(sys.stdout.fileno(), 0)
    except OSError:  # what stands in for it, as in a notebook, is no file
        return False
    is_lost = any(event & (select.POLLERR | select.POLLHUP) for _, event in output.poll(0))
    if is_lost:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return is_lost


def _lack_of_memory(error: Exception) -> str | None:
    """What torch says where a device, or a CPU's allocator, has no memory left; None of other errors."""
    torch = sys.modules.get("torch")  # a command that is refused at once has not imported it
    is_device = torch is not None and isinstance(error, torch.OutOfMemoryError)
    return ". ".join(first_line(error).split(". ")[:2]) if is_device or "DefaultCPUAllocator" in str(error) else None


def _complain(sentence: str, status: int, by_name: bool = True) -> int:
    if _is_first_to_fail():
        rank = os.environ.get("RANK", "0")
        where = f"rank {rank}: " if by_name and rank != "0" else ""
        print(f"error: {where}{printable(sentence)}", file=sys.stderr)
    return status


def _is_first_to_fail() -> bool:
    """Whether no other process that the same launcher started on this machine has failed before.

    The processes of `accelerate launch` and `torchrun` find out by a file in the folder that the launcher makes for
    their errors. Each process of another launcher counts as the first.
    """
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not error_file:
        return True
    # a command that such a process starts inherits the variable, but not the parent
    failed = Path(error_file).parents[1] / f"te_trainer-failed-{os.getppid()}"
    if os.environ.get("LOCAL_RANK", "0") != "0":
        # the first process reports what fails on all of them, without naming a rank
        deadline = time.monotonic() + FAILURE_WAIT
        while not failed.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    try:
        failed.touch(exist_ok=False)
    except OSError as error:
        return not isinstance(error, FileExistsError)
    return True
