"""Every command that a document gives can be given: its program is there, and knows each of its keys."""

from __future__ import annotations

import re
import runpy
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import ROOT
from test_docs import DOCUMENTS

from te_trainer.cli import JOBS, recipes
from te_trainer.config.parsing import read
from te_trainer.config.schema import RunConfig

JOB_OF_SCRIPT = {"trans_encoder": "distil", "evaluate_sts": "evaluate", "push_to_hub": "push"}
# Bash splits the commands, with its variables and quotes, but finds none of the programs: each is written down instead.
RECORD_INSTEAD = r"""command_not_found_handle() { printf '%s\037' "$@" >> "$RECORD"; printf '\036' >> "$RECORD"; }"""
BLOCK = re.compile(r"^ *```bash\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
BEGINNING = re.compile(r"^(?:te-trainer|accelerate|make|python|pip) ", re.MULTILINE)
PROGRAM = re.compile(r"te[-_]trainer|(recipes|benchmarks)/\w+\.py")
PLACEHOLDERS = ("LAUNCHED_WITH", "/X.yaml")


def documented_commands(document: Path, folder: Path) -> list[list[str]]:
    """What the bash blocks of a document run one after another, each as its program and arguments."""
    blocks = "\n".join(BLOCK.findall(document.read_text(encoding="utf-8")))
    script = f"{RECORD_INSTEAD}\n{blocks}"
    environment = {"PATH": "/nowhere", "RECORD": str(folder / "record")}
    (folder / "record").touch()
    subprocess.run(["/bin/bash", "-c", script], cwd=folder, env=environment, capture_output=True, check=False)
    records = (folder / "record").read_text(encoding="utf-8").split("\036")[:-1]
    assert len(records) >= len(BEGINNING.findall(blocks)), "bash has not come to all of them"
    return [record.split("\037")[:-1] for record in records]


def check_job(job: str, arguments: list[str], folder: Path) -> None:
    """Read a job's keys; `my.yaml` is the one in the README."""
    (my_file,) = re.findall(r"^```yaml\n(# my\.yaml\n.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    (folder / "my.yaml").write_text(my_file, encoding="utf-8")
    JOBS[job][0]([str(folder / "my.yaml") if argument == "my.yaml" else argument for argument in arguments])


def check_benchmark(script: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Let a benchmark's own parser read its arguments; what it does not know are keys of the main job."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("sys.argv", [script, *arguments, "--help"])
        patch.syspath_prepend(str((ROOT / script).parent))
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert not ended.value.code
    known = set(re.findall(r"--[\w-]+(?![\w.-])", capsys.readouterr().out))
    for key, value in pairwise([*arguments, ""]):
        if key.startswith("--") and key not in known:
            read(RunConfig, [key, value])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_command_of_a_document_can_be_given(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in documented_commands(document, tmp_path):
        place = next((number for number, part in enumerate(command) if PROGRAM.fullmatch(part)), None)
        if command[0] == "make":
            assert command[1] in targets, command
        if place is None or command[0] == "git" or any(name in part for name in PLACEHOLDERS for part in command):
            continue
        program, *arguments = command[place:]
        job = arguments.pop(0) if program.startswith("te") else Path(program).stem
        if job == "recipes":
            recipes("recipes", *arguments[:-1], str(tmp_path / arguments[-1]))
        elif program.startswith("benchmarks"):
            check_benchmark(program, arguments, capsys)
        else:
            check_job(JOB_OF_SCRIPT.get(job, job), arguments, tmp_path)
