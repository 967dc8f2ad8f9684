"""A disk that does not take what is written is named in one sentence, whatever a library made of its error."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from forked import MAY_NOT_MOUNT, run_forked

from te_trainer.errors import DivergedError, InputError
from te_trainer.files.atomic import write_text
from te_trainer.files.disk_errors import disk_errors_as_input_error

WRITERS = ("text", "arrow", "labels", "numpy", "npz", "shared array", "safetensors", "torch", "parquet")


def write_all(root: Path) -> None:
    """Write half a megabyte in every way in which a run does; print what comes of each as JSON."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    from datasets import Dataset
    from safetensors.torch import save_file

    from te_trainer.data.arrow_io import PAIR_SCHEMA, write_arrow
    from te_trainer.distributed import SharedArray
    from te_trainer.files.atomic import atomic_file

    numbers = np.random.default_rng(0).random(64_000)
    text = pa.record_batch([["x" * 1000] * 250] * 2, schema=PAIR_SCHEMA)
    writers = {
        "text": lambda path: path.write_text("x" * 512_000),
        "arrow": lambda path: write_arrow(path, [text]),
        "labels": lambda path: Dataset.from_dict({"score": numbers}).save_to_disk(str(path)),
        "numpy": lambda path: np.save(path, numbers),
        "npz": lambda path: np.savez(path, numbers),
        "shared array": lambda path: SharedArray(path, (64_000,), "float64").append(numbers),
        "safetensors": lambda path: save_file({"a": torch.from_numpy(numbers)}, path),
        "torch": lambda path: torch.save({"a": torch.from_numpy(numbers)}, path),
        "parquet": lambda path: pq.write_table(pa.table({"a": numbers}), path),
    }
    for name, write in writers.items():
        try:
            with disk_errors_as_input_error(root), atomic_file(root / f"{name}.x.npz") as path:
                write(path)
            outcome = "written"
        except InputError as error:
            outcome = str(error)
        except Exception as error:
            outcome = f"not caught: {error!r}"
        print(json.dumps([name, outcome]), flush=True)
        for left in root.glob(".partial-*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def outcomes(done: subprocess.CompletedProcess[str]) -> list[dict[str, str]]:
    """What came of the writers, a folder after another."""
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert found and [name for name, _ in found] == [*WRITERS] * (len(found) // len(WRITERS)), done.stderr
    return [dict(found[at : at + len(WRITERS)]) for at in range(0, len(found), len(WRITERS))]


def test_a_limit_of_file_sizes_is_named(tmp_path: Path) -> None:
    script = "import resource, sys; from pathlib import Path; import test_disk_errors\n"
    script += "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    script += "test_disk_errors.write_all(Path(sys.argv[1]))"
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    done = run_forked(tmp_path / "script.py", [str(tmp_path)])
    (found,) = outcomes(done)
    for name, sentence in found.items():
        assert sentence.startswith("output_dir: ") and str(tmp_path) in sentence and "ulimit -f" in sentence, name
        assert sentence.endswith(", and run the same command again")


def test_a_mount_is_named(tmp_path: Path) -> None:
    script = "import forked, subprocess; from pathlib import Path; forked.own_mounts(); import test_disk_errors\n"
    words = {"full": "no disk space left in {}", "read-only": "{} is on a disk that is mounted read-only"}
    for kind, options in (("full", ["size=300k"]), ("read-only", ["size=4m", "remount,ro"])):
        folder = tmp_path / kind
        folder.mkdir()
        for option in options:
            mount = ["mount", "-t", "tmpfs", "-o", option, "t", str(folder)]
            script += f"subprocess.run({mount!r}, check=True)\n"
        script += f"test_disk_errors.write_all(Path({str(folder)!r}))\n"
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    done = run_forked(tmp_path / "script.py", [])
    if done.returncode == MAY_NOT_MOUNT:
        pytest.skip("wants the right to mount")
    for (kind, expected), found in zip(words.items(), outcomes(done), strict=True):
        for name, sentence in found.items():
            assert sentence.startswith(f"output_dir: {expected.format(tmp_path / kind)}"), (name, sentence)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no disk space left in"),
        (errno.EDQUOT, "the disk quota in"),
        (errno.EFBIG, "is larger than allowed"),
        (errno.EROFS, "is on a disk that is mounted read-only"),
        (errno.EIO, "cannot be read or written (input/output error)"),
        (errno.ESTALE, "cannot be read or written (stale file handle)"),
        (errno.EACCES, "may not be read or written (permission denied)"),
    ],
)
@pytest.mark.parametrize("wrapped", ["plain", "cause", "context", "words", "rust"])
def test_each_error_has_its_sentence(tmp_path: Path, number: int, words: str, wrapped: str) -> None:
    error = OSError(number, os.strerror(number))
    with pytest.raises(InputError) as caught, disk_errors_as_input_error(tmp_path, "output"):
        if wrapped == "plain":
            raise error
        if wrapped == "words":
            raise RuntimeError(f"cannot write: {os.strerror(number)}")
        if wrapped == "rust":
            raise RuntimeError(f"I/O error: {os.strerror(number)} (os error {number})")
        try:
            raise error
        except OSError as first:
            if wrapped == "cause":
                raise ValueError("a library's own") from first
            raise ValueError("a library's own")  # noqa: B904
    sentence = str(caught.value)
    assert sentence.startswith("output: ") and words in sentence and str(tmp_path) in sentence
    assert "\n" not in sentence and sentence.endswith(", and run the same command again")


def test_a_file_on_another_disk_is_named_by_its_folder(tmp_path: Path) -> None:
    root, cache = tmp_path / "run", tmp_path / "cache"
    with pytest.raises(InputError) as caught, disk_errors_as_input_error(root):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(cache / "weights"))
    assert str(caught.value).startswith(f"the disk quota in {cache} is used up")
    with pytest.raises(InputError) as caught, disk_errors_as_input_error(root):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(root / "pool" / "pairs.arrow"))
    assert str(caught.value).startswith(f"output_dir: the disk quota in {root} is used up")


def test_a_file_may_lack_an_owner(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"operation not permitted"), disk_errors_as_input_error(tmp_path):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(tmp_path / "weights"))


@pytest.mark.parametrize("there", ["file", "dead link", "folder"])
def test_what_lies_where_a_run_writes_is_named(tmp_path: Path, there: str) -> None:
    """A file or a link in the way of a folder, a folder in the way of a file."""
    if there == "folder":
        name, target = tmp_path / "cycle-1" / "record.json", tmp_path / "cycle-1" / "record.json"
        name.mkdir(parents=True)
    else:
        name, target = tmp_path / "cycle-1", tmp_path / "cycle-1" / "bi-encoder" / "record.json"
        name.touch() if there == "file" else name.symlink_to(tmp_path / "gone")
    with pytest.raises(InputError) as caught, disk_errors_as_input_error(tmp_path):
        write_text(target, "{}")
    kind = there.rpartition(" ")[2]
    assert str(caught.value).startswith(f"output_dir: {name} is a {kind}, and something else is to be there; ")
    name.rmdir() if there == "folder" else name.unlink()
    write_text(target, "{}")


def test_a_folder_that_is_made_twice_is_a_defect(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError), disk_errors_as_input_error(tmp_path):
        tmp_path.joinpath("cycle-1").mkdir()
        tmp_path.joinpath("cycle-1").mkdir()


@pytest.mark.parametrize(
    "error",
    [ValueError("a defect"), OSError(errno.ENOENT, "No such file"), InputError("a sentence"), DivergedError("nan")],
)
def test_other_errors_stay_what_they_are(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, disk_errors_as_input_error(tmp_path):
        raise error
    assert caught.value is error
