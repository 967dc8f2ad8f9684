"""The one life of an output folder, which one process locks.

A command holds its folder, refuses to continue there with another configuration, writes `run.yaml` before it works and
`results.json` when it is done. In between, what is done is what lies on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from accelerate.utils import broadcast_object_list, gather_object
from filelock import FileLock, Timeout

from te_trainer.config.schema import ContrastiveConfig, EvaluationConfig, RunConfig
from te_trainer.distributed import (
    RestartNeeded,
    on_main_process,
    process_state,
    restart_process,
    shutdown_process_group,
)
from te_trainer.errors import InputError
from te_trainer.files.atomic import PARTIAL, remove, write_text
from te_trainer.files.disk_errors import disk_errors_as_input_error
from te_trainer.files.locks import make_folder, remove_empty
from te_trainer.runs.commits import pin_begun
from te_trainer.runs.layout import RunLayout
from te_trainer.runs.manifest import RunManifest
from te_trainer.runs.quiet import quiet_libraries

Config = TypeVar("Config", RunConfig, ContrastiveConfig, EvaluationConfig)

LOCK = ".lock"
# What systems put into folders: views of macOS and Windows, attributes of macOS, removed files that NFS still holds.
SYSTEMS = (".DS_Store", "desktop.ini", "._", ".nfs")


def run_in_output_dir(
    config: Config,
    work: Callable[[RunManifest[Config]], None],
    make_plan: Callable[[Config, int], Any] | None = None,
) -> bool:
    """Let all ranks work in a configuration's output folder, which this run holds meanwhile; then they part."""
    quiet_libraries()
    root = Path(config.output_dir)
    state = process_state(config.ddp_timeout)
    try:
        with (
            disk_errors_as_input_error(root),
            lock_run_dir(root) if state.is_main_process else contextlib.nullcontext(),
        ):
            _refuse_several_folders(root)
            manifest = RunManifest(root, config, state.num_processes, make_plan)
            # what a section means may depend on its model
            pin_begun(manifest.begun or {})
            manifest.refuse_other_configuration()
            on_main_process(lambda: _remove_leavings(manifest))
            work(manifest)
    except RestartNeeded:
        restart_process()
    shutdown_process_group()
    return bool(state.is_main_process)


@contextlib.contextmanager
def lock_run_dir(root: Path) -> Iterator[None]:
    """Make an output folder if need be, and hold it for this process alone, which the system ends with the process.

    After a failed start, one that leaves no `run.yaml`, the empty folders that this process made are removed again.
    """
    if root.exists() and not root.is_dir():
        raise InputError(f"output_dir: {root} is a file; name a folder")
    names = [path.name for path in root.iterdir()] if root.is_dir() else []
    # a process that was killed while it read the pool leaves a program's pairs, and no run.yaml yet
    own = {LOCK, RunLayout(root).python_pairs.name}
    mine = {name for name in names if name in own or name.startswith((PARTIAL, *SYSTEMS))}
    foreign = sorted(set(names) - mine)
    if foreign and not (root / "run.yaml").is_file():
        raise InputError(
            f"output_dir: {root} holds '{foreign[0]}' and no run.yaml, so it is not a run's folder; name another one"
        )
    made: list[Path] = []
    lock = FileLock(root / LOCK)
    try:
        made += make_folder(root)
        lock.acquire(timeout=0)
    except Timeout:
        # a disk without locks has a text in the place of one, which outlives a process of another machine
        left = f", or, if there is none any more, delete {root / LOCK}" if _holds_text(root / LOCK) else ""
        raise InputError(
            f"output_dir: another process works in {root}; wait for it, or name another folder{left}"
        ) from None
    except OSError as error:
        remove_empty(made)
        if (root / LOCK).is_dir():
            raise InputError(f"output_dir: {root / LOCK} is a folder; delete it, or name another folder") from None
        if not _is_finished_where_nothing_is_written(root, error):
            what = "written to" if root.is_dir() else "made"
            raise InputError(f"output_dir: {root} cannot be {what} ({error.strerror}); name another folder") from None
    try:
        yield
    except BaseException:
        if not (root / "run.yaml").exists():
            # It is removed while it is held: a process that opened it before sees that it is gone, and makes another.
            (root / LOCK).unlink(missing_ok=True)
            remove_empty(made)
        raise
    finally:
        lock.release()


def _holds_text(lock: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return lock.stat().st_size > 0
    return False


def _is_finished_where_nothing_is_written(root: Path, error: OSError) -> bool:
    """Whether nothing need be written, because the run is finished and there is nothing to do."""
    return error.errno in (errno.EACCES, errno.EROFS) and RunLayout(root).results.exists()


def _remove_leavings(manifest: RunManifest[Any]) -> None:
    """Remove what a process that was killed left in the folder of a run, and what no later one writes again."""
    layout = manifest.layout
    if manifest.begun is None or layout.results.exists():
        return
    remove(layout.gold_scratch)
    remove(layout.mining_scratch)
    for folder in (layout.pool, layout.sentences):
        # half of the tokens; `Dataset.map` gives them their name when it has all
        for path in folder.glob("tmp*"):
            remove(path)


def _refuse_several_folders(root: Path) -> None:
    """Wait for all ranks, and refuse an output folder that is another one on another machine."""
    state = process_state()
    if state.num_processes == 1:
        return
    token, file = secrets.token_hex(), root / f"{PARTIAL}token"
    if state.is_main_process:
        try:
            write_text(file, token)
        except OSError as error:
            if not _is_finished_where_nothing_is_written(root, error):
                raise
            token = ""
    token = broadcast_object_list([token])[0]
    if not token:
        return
    try:
        is_seen = file.read_text() == token
    except OSError:
        is_seen = False
    all_see = all(gather_object([is_seen]))
    if state.is_main_process:
        file.unlink()
    if not all_see:
        raise InputError(
            f"output_dir: {root} is not one folder on all machines; name one on a disk that all of them see"
        )
