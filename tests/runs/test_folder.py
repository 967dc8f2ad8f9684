"""A folder is one run's at a time, a file one process's; what others have there stays."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from forked import run_forked, run_ranks

from te_trainer.config.commands import parse_evaluation
from te_trainer.errors import InputError
from te_trainer.files.atomic import write_text
from te_trainer.files.locks import lock_output_file
from te_trainer.runs.folder import LOCK, lock_run_dir
from te_trainer.runs.manifest import RunManifest, read_manifest


class Stopped(BaseException):
    """As an interruption."""


def fails_in(root: Path, meanwhile: Path | None = None) -> None:
    with pytest.raises(Stopped), lock_run_dir(root):
        assert (root / LOCK).exists()
        if meanwhile is not None:
            write_text(meanwhile, "of another run")
        raise Stopped


def test_a_failed_start_leaves_nothing_that_it_made(tmp_path: Path) -> None:
    fails_in(tmp_path / "runs" / "deep" / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "other", ["runs/b/results.json", "runs/deep/b/results.json", "runs/deep/a/in0/.partial-pool/x"]
)
def test_a_failed_start_leaves_what_another_run_has_put_there(tmp_path: Path, other: str) -> None:
    fails_in(tmp_path / "runs" / "deep" / "a", tmp_path / other)
    assert (tmp_path / other).read_text() == "of another run"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / other]


WITHOUT_LOCKS = """
import errno, fcntl, sys

# the command that replaces this process
sys.orig_argv = [sys.executable, __file__, *sys.argv[1:]]

def flock(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")

fcntl.flock = flock
from te_trainer.config.commands import parse_evaluation
from te_trainer.distributed import RestartNeeded, was_restarted
from te_trainer.runs.folder import run_in_output_dir

def work(manifest):
    manifest.begin_or_continue([])
    if not was_restarted():
        raise RestartNeeded

run_in_output_dir(parse_evaluation(["--models", "[x]", "--output_dir", sys.argv[1]]), work)
print("done")
"""


def test_a_process_that_is_replaced_lets_go_of_a_folder_on_a_disk_without_locks(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(WITHOUT_LOCKS, encoding="utf-8")
    done = run_forked(tmp_path / "script.py", [str(tmp_path / "a")])
    assert done.stdout == "done\n", done.stderr
    (tmp_path / "a" / LOCK).write_text("1\nanother machine\n", encoding="utf-8")
    done = run_forked(tmp_path / "script.py", [str(tmp_path / "a")])
    assert f"or, if there is none any more, delete {tmp_path}/a/.lock" in done.stderr


@pytest.mark.parametrize("lock", [False, True])
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, to whom folders are closed")
def test_a_finished_run_of_another_user_is_opened(lock: bool) -> None:
    root = Path(tempfile.mkdtemp())  # pytest's own are closed to others
    try:
        root.chmod(0o755)
        write_text(root / "run.yaml", "config: {}\n")
        if lock:
            write_text(root / LOCK, "")
        os.seteuid(65534)
        with pytest.raises(InputError, match=rf"^output_dir: {root} cannot be written to \(Permission denied\); name"):
            lock_run_dir(root).__enter__()
        os.seteuid(0)
        write_text(root / "results.json", "{}")
        os.seteuid(65534)
        with lock_run_dir(root):
            assert (root / LOCK).exists() == lock
    finally:
        os.seteuid(0)
        shutil.rmtree(root)


AS_SOMEBODY_ELSE = """
import os, sys
from te_trainer.config.commands import parse_evaluation
from te_trainer.runs.folder import run_in_output_dir

config = parse_evaluation(["--models", "[x]", "--output_dir", sys.argv[1]])
os.seteuid(65534)
run_in_output_dir(config, lambda manifest: print("opened"))
"""


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, to whom folders are closed")
def test_several_processes_open_a_finished_run_of_another_user(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(AS_SOMEBODY_ELSE, encoding="utf-8")
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        config = parse_evaluation(["--models", "[x]", "--output_dir", root])
        RunManifest(Path(root), config, 2).begin_or_continue([])
        write_text(Path(root) / "results.json", "{}")
        done = run_ranks(tmp_path / "script.py", [root])
    assert (done.stdout.count("opened"), done.returncode) == (2, 0), done.stderr


def test_a_folder_in_the_place_of_the_lock_is_named(tmp_path: Path) -> None:
    (tmp_path / ".lock" / "inner").mkdir(parents=True)
    with pytest.raises(InputError, match=r"\.lock is a folder; delete it"), lock_run_dir(tmp_path):
        pass


def test_what_systems_put_into_a_folder_makes_it_nobodys(tmp_path: Path) -> None:
    for name in (".DS_Store", "._x", "desktop.ini", ".nfs000000000012"):
        (tmp_path / name).touch()
    with lock_run_dir(tmp_path):
        pass
    (tmp_path / "mine.txt").touch()
    with pytest.raises(InputError, match=r"holds 'mine.txt' and no run.yaml"), lock_run_dir(tmp_path):
        pass


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    root = tmp_path / "runs" / "a"
    root.mkdir(parents=True)
    fails_in(root)
    assert root.is_dir() and list(root.iterdir()) == []


def test_a_run_that_has_begun_stays(tmp_path: Path) -> None:
    with pytest.raises(Stopped), lock_run_dir(tmp_path / "a"):
        write_text(tmp_path / "a" / "run.yaml", "config: {}\n")
        raise Stopped
    assert (tmp_path / "a" / "run.yaml").exists()


def test_the_folder_of_an_output_is_removed_only_if_it_was_made_and_is_empty(tmp_path: Path) -> None:
    with lock_output_file(tmp_path / "new" / "deep" / "scores.tsv"):
        assert (tmp_path / "new" / "deep").is_dir()
    assert list(tmp_path.iterdir()) == []
    with lock_output_file(tmp_path / "new" / "deep" / "scores.tsv"):
        write_text(tmp_path / "new" / "other.tsv", "of another process")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["other.tsv"]
    with pytest.raises(InputError, match=r"cannot be written to \(.*; name another folder"):
        lock_output_file(tmp_path / "new" / "other.tsv" / "scores.tsv").__enter__()


def test_an_output_file_is_written_by_one_process(tmp_path: Path) -> None:
    file = tmp_path / "scores.tsv"
    with lock_output_file(file), pytest.raises(InputError, match=r"another process writes .*scores\.tsv"):
        lock_output_file(file).__enter__()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("thesis", "holds 'chapter1.tex' and no run.yaml"),
        ("file", "is a file"),
        ("file/below", "cannot be made (Not a directory)"),
        pytest.param(
            "/proc/run",
            "cannot be made",
            marks=pytest.mark.skipif(
                not Path("/proc/self").exists(), reason="wants a folder in which nobody can write"
            ),
        ),
    ],
)
def test_a_folder_that_no_run_can_have_is_refused(tmp_path: Path, output: str, words: str) -> None:
    write_text(tmp_path / "thesis" / "chapter1.tex", "words")
    write_text(tmp_path / "file", "words")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=rf"^output_dir: {tmp_path / output} .*{re.escape(words)}"):
        lock_run_dir(tmp_path / output).__enter__()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("text", ["a: 1\n", "words\n", "", "a: [\n"], ids=["other keys", "words", "empty", "no YAML"])
def test_a_run_file_of_another_program_is_refused(tmp_path: Path, text: str) -> None:
    write_text(tmp_path / "run.yaml", text)
    with pytest.raises(InputError, match=rf"^output_dir: {tmp_path} holds a run\.yaml that is damaged"):
        read_manifest(tmp_path)
