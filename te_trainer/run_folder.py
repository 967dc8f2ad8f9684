"""The output folder of a run: whose it is, who works in it, and how it is written to.

Everything is written beside its place first and renamed when it is whole, so that a run may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from te_trainer.config.flat import flat
from te_trainer.config.yaml_text import check_yaml
from te_trainer.errors import DivergedError, InputError
from te_trainer.processes import process_state

LOCK = ".lock"
PARTIAL = ".partial-"


@contextlib.contextmanager
def claimed(root: Path) -> Iterator[None]:
    """Hold a folder for this process alone; the system lets go of it when the process ends, however it ends.

    A folder that a failed start would leave without `run.yaml` is removed again.

    Raises:
        InputError: the folder holds other things than a run, or another process holds it.
    """
    if root.exists() and not root.is_dir():
        raise InputError(f"output_dir: {root} is a file; name a folder")
    foreign = [path.name for path in root.iterdir()] if root.is_dir() else []
    foreign = [name for name in foreign if name != LOCK and not name.startswith(PARTIAL)]
    if foreign and not (root / "run.yaml").is_file():
        raise InputError(
            f"output_dir: {root} holds '{sorted(foreign)[0]}' and no run.yaml, so it is not a run's folder; name "
            "another one"
        )
    made = next((parent for parent in [*reversed(root.absolute().parents), root] if not parent.exists()), None)
    lock = FileLock(root / LOCK)
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"output_dir: another process works in {root}; wait for it, or name another folder") from None
    except OSError as error:
        raise InputError(f"output_dir: {root} cannot be made ({error.strerror}); name another folder") from None
    try:
        clear_partial(root)
        yield
    except BaseException:
        if not (root / "run.yaml").exists():
            for path in [made] if made else list(root.iterdir()):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        raise
    finally:
        lock.release()


@contextlib.contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `final` when the block ends well."""
    partial = final.with_name(PARTIAL + final.name)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(final, ignore_errors=True)
    partial.replace(final)


def write_text(path: Path, text: str) -> None:
    """Write a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(PARTIAL + path.name)
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


@contextlib.contextmanager
def atomic_file(final: Path) -> Iterator[Path]:
    """Give a path that becomes `final` when the block ends well."""
    partial = final.with_name(PARTIAL + final.name)
    try:
        yield partial
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(final)


@contextlib.contextmanager
def folder_for(file: Path) -> Iterator[None]:
    """Make the folder that a file is to be written to; a folder that is made, and stays empty, is removed again.

    Raises:
        InputError: it cannot be made, or nothing can be written to it.
    """
    folder = file.absolute().parent
    made = [path for path in [folder, *folder.parents] if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise InputError(f"output: {folder} cannot be written to ({error.strerror}); name another folder") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


@contextlib.contextmanager
def claimed_file(file: Path) -> Iterator[None]:
    """Hold a file that is to be written for this process alone, in a folder that is there.

    Raises:
        InputError: another process writes it.
    """
    place = file.with_name(f"{PARTIAL}{file.name}.lock")
    lock = FileLock(place)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"output: another process writes {file}; wait for it, or name another file") from None
    try:
        yield
    finally:
        # Removed while it is held: who opened it before finds out that it is gone, and takes another.
        place.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def full_disk_is_named(root: Path, key: str = "output_dir") -> Iterator[None]:
    """Say in one sentence that the disk is full; libraries wrap the system's error in many of their own.

    Args:
        key: of the configuration, that names the folder.

    Raises:
        InputError: names the folder.
    """
    try:
        yield
    except (InputError, DivergedError):
        raise
    except Exception as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        if full or (root.exists() and shutil.disk_usage(root).free < 1_000_000):
            raise InputError(
                f"{key}: no disk space left in {root}; make room, and the same command continues"
            ) from None
        raise


def clear_partial(root: Path) -> None:
    """Remove what a killed run had not finished writing."""
    for path in sorted(root.rglob(f"{PARTIAL}*"), reverse=True):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """An empty folder that all ranks see, gone when the block ends."""
    state = process_state()
    if state.is_main_process:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    state.wait_for_everyone()
    try:
        yield path
    finally:
        if state.is_main_process:
            shutil.rmtree(path, ignore_errors=True)
    state.wait_for_everyone()


def refuse_other_configuration(root: Path, config: dict[str, Any]) -> None:
    """Refuse to go on in a folder with another configuration than it was begun with.

    Raises:
        InputError: names every key that differs, with both values.
    """
    path = root / "run.yaml"
    if not path.is_file():
        return
    try:
        text = path.read_text(encoding="utf-8")
        check_yaml(text)
        begun = flat(yaml.safe_load(text)["config"])
    except (yaml.YAMLError, ValueError, KeyError, TypeError):
        raise InputError(f"output_dir: {root} holds a run.yaml that no run wrote; name another folder") from None
    wanted = flat(yaml.safe_load(yaml.safe_dump(config)))
    differ = [key for key in sorted(begun.keys() | wanted.keys()) if begun.get(key) != wanted.get(key)]
    if differ:
        listed = ", ".join(f"{key} (was {begun.get(key)}, is {wanted.get(key)})" for key in differ)
        raise InputError(f"output_dir: {root} was begun with another configuration: {listed}; name another folder")
