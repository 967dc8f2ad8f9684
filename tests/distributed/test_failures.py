"""What a person reads when processes of a run fail: one sentence, whichever of them it comes from."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, process_environment, run_launched, tiny_arguments
from forked import run_ranks, script_with

FAILING = """
import os, signal, sys, time
from te_trainer.runs.exit_status import run_command
from te_trainer.errors import InputError

how, ranks = sys.argv[1], sys.argv[2]

def main():
    if how == "interrupt":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
        print("begun", flush=True)
        time.sleep(60)
    if os.environ["RANK"] in ranks:
        raise {"input": InputError, "defect": KeyError}[how]("rows are missing")

sys.exit(run_command(main))
"""


def start(how: str, ranks: str, folder: Path, count: int = 3) -> list[subprocess.Popen[str]]:
    """Processes with what torchrun gives them: a rank, a parent, and a file for errors each."""
    script = folder / "failing.py"
    script.write_text(FAILING, encoding="utf-8")
    found = []
    for rank in map(str, range(count)):
        (folder / "attempt_0" / rank).mkdir(parents=True, exist_ok=True)
        launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(count)}
        errors = str(folder / "attempt_0" / rank / "error.json")
        found.append(
            subprocess.Popen(
                [sys.executable, str(script), how, ranks],
                env=process_environment(**launched, TORCHELASTIC_ERROR_FILE=errors),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return found


def ends(processes: list[subprocess.Popen[str]]) -> tuple[list[int], str]:
    """Their exit statuses, and what all of them said."""
    said = "".join(process.communicate(timeout=120)[1] for process in processes)
    return [process.returncode for process in processes], said


def test_what_fails_on_all_ranks_is_said_once_without_a_rank(tmp_path: Path) -> None:
    assert ends(start("input", "012", tmp_path)) == ([2] * 3, "error: rows are missing\n")


def test_what_fails_on_one_rank_is_said_with_its_number(tmp_path: Path) -> None:
    assert ends(start("input", "2", tmp_path)) == ([0, 0, 2], "error: rank 2: rows are missing\n")


@pytest.mark.parametrize("ranks", ["1", "012"])
def test_a_defect_leaves_one_stack_trace(ranks: str, tmp_path: Path) -> None:
    statuses, said = ends(start("defect", ranks, tmp_path))
    assert statuses == [int(rank in ranks) for rank in "012"]
    assert said.count("Traceback (most recent call last)") == said.count("KeyError: 'rows are missing'") == 1


def test_an_interruption_is_said_once(tmp_path: Path) -> None:
    processes = start("interrupt", "", tmp_path)
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
    assert ends(processes) == ([130] * 3, "error: interrupted; the same command continues\n")


def test_a_command_that_a_failed_one_started_speaks_for_itself(tmp_path: Path) -> None:
    """It inherits the launcher's variables, and another process has failed before it."""
    assert ends(start("input", "0", tmp_path, count=1))[1] == "error: rows are missing\n"
    command = [sys.executable, str(tmp_path / "failing.py"), "input", "0"]
    nested = f"import subprocess, sys; sys.exit(subprocess.call({command}))"
    errors = str(tmp_path / "attempt_0" / "0" / "error.json")
    done = subprocess.run(
        [sys.executable, "-c", nested],
        env=process_environment(RANK="0", LOCAL_RANK="0", TORCHELASTIC_ERROR_FILE=errors),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, "error: rows are missing\n")


# ---------------------------------------------------------------- through the launcher

ELSEWHERE = """
import os, runpy, sys

recipe, folder = sys.argv.pop(1), sys.argv.pop(1)
# a machine whose disk lacks the model
os.chdir(folder if os.environ["RANK"] == "0" else "/")
sys.argv[0] = recipe
runpy.run_path(recipe, run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.distributed
def test_an_output_folder_on_two_machines_disks_is_refused(tiny: Path, tmp_path: Path) -> None:
    for machine in ("0", "1"):
        (tmp_path / machine / "run").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    script = script_with(tmp_path, f"import os; os.chdir({str(tmp_path)!r} + '/' + os.environ['RANK'])")
    done = run_ranks(script, tiny_arguments(tiny, Path("run")))
    sentence = "output_dir: run is not one folder on all machines; name one on a disk that all of them see\n"
    assert (done.returncode, done.stderr) == (2, f"error: {sentence}error: rank 1: {sentence}")
    assert sorted(path for path in tmp_path.rglob("*") if path != script) == before


@pytest.mark.slow
@pytest.mark.distributed
def test_a_recipe_that_fails_on_one_rank_says_so_and_ends(tiny: Path, tmp_path: Path) -> None:
    """The others wait for it in a barrier meanwhile, for as long as ddp_timeout says."""
    script = tmp_path / "elsewhere.py"
    script.write_text(ELSEWHERE, encoding="utf-8")
    (tmp_path / "model").symlink_to(tiny)
    recipe = [str(ROOT / "recipes" / "trans_encoder.py"), str(tmp_path)]
    done = run_launched("cpu_ddp.yaml", script, *recipe, *tiny_arguments(Path("model"), tmp_path / "run"))
    said = done.stderr.splitlines()
    assert done.returncode == 1  # accelerate's own, whatever its processes end with
    errors = [line for line in said if line.startswith("error: ")]
    assert len(errors) == 1 and errors[0].startswith("error: rank 1: model model: "), done.stderr
    assert "exitcode  : 2" in done.stderr  # what torchrun reports of rank 1
    assert "te_trainer/runs/exit_status.py" not in done.stderr  # no stack trace of ours
