"""What `accelerate launch` really starts, and stages in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, SAMPLE, process_environment, tiny_arguments
from forked import run_forked, run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

LAUNCH = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--main_process_port", "0"]

FSDP_ON_CPU = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
use_cpu: true
num_machines: 1
num_processes: 2
machine_rank: 0
mixed_precision: "no"
fsdp_config: {fsdp_version: 2, fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP, fsdp_state_dict_type: FULL_STATE_DICT}
"""


def launch(script: str, configuration: Path, *arguments: str) -> str:
    finished = subprocess.run(
        [*LAUNCH, "--config_file", str(configuration), script, *arguments],
        cwd=ROOT,
        env=process_environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return finished.stdout


def scores(output: Path) -> list[Any]:
    return json.loads((output / "results.json").read_text(encoding="utf-8"))["cycles"]


def test_fsdp_does_not_run_on_cpus(tmp_path: Path) -> None:
    """accelerate makes DDP of it without a word; once it does not, FSDP2 belongs to the engines that are tested."""
    configuration = tmp_path / "fsdp2.yaml"
    configuration.write_text(FSDP_ON_CPU, encoding="utf-8")
    script = tmp_path / "which.py"
    script.write_text(
        "from accelerate import Accelerator\n"
        "accelerator = Accelerator(cpu=True)\n"
        # in one piece: the lines of two processes may run into each other
        "line = f'{accelerator.num_processes} {accelerator.distributed_type.value}\\n'\n"
        "import os; os.write(1, line.encode())\n",
        encoding="utf-8",
    )
    assert set(launch(str(script), configuration).split("\n")[:2]) == {"2 MULTI_CPU"}


MINED = (
    "--data.pool",
    "[]",
    "--data.max_pairs",
    "null",
    "--data.sentences",
    str(SAMPLE / "dev.tsv"),
    "--mining.pairs",
    "96",
)


@pytest.mark.parametrize(
    ("configuration", "students", "source"), [("cpu", "both", ()), ("cpu_ddp", "bi-encoder", MINED)]
)
def test_isolated_stages_change_nothing(
    configuration: str, students: str, source: tuple[str, ...], tiny: Path, tmp_path: Path
) -> None:
    launcher = ROOT / "accelerate_configs" / f"{configuration}.yaml"
    recipe = str(ROOT / "recipes" / "trans_encoder.py")
    one_cycle = ["--distillation.cycles", "1", "--distillation.students", students, *source]
    kinds = ["bi-encoder", "cross-encoder"] if students == "both" else ["bi-encoder"]
    together = tiny_arguments(tiny, tmp_path / "together", *one_cycle)
    finished = run_ranks(recipe, together) if configuration == "cpu_ddp" else run_forked(recipe, together)
    assert finished.returncode == 0, finished.stderr[-4000:]
    isolated = ["--distillation.isolate_stages", "true"]
    said = launch(recipe, launcher, *tiny_arguments(tiny, tmp_path / "isolated", *one_cycle, *isolated))
    assert scores(tmp_path / "isolated") == scores(tmp_path / "together")
    for kind in kinds:
        weights = Path("tiny", kind, "model.safetensors")
        assert (tmp_path / "isolated" / weights).read_bytes() == (tmp_path / "together" / weights).read_bytes()
    assert said.count("kept: cycle") == len(kinds)  # the table is printed once, by the last process
    if source:  # two processes mine what one does
        run_forked("trans_encoder.py", tiny_arguments(tiny, tmp_path / "one", *one_cycle))
        pools = [(tmp_path / name / "pool" / "pairs.arrow").read_bytes() for name in ("together", "isolated", "one")]
        assert pools[0] == pools[1] == pools[2]


@pytest.mark.serial
def test_memory_does_not_grow_with_stages(tiny: Path, tmp_path: Path) -> None:
    """Six trainings in one process leave no more behind than two."""
    cycles = ["--distillation.cycles", "3"]
    said = launch(
        str(ROOT / "benchmarks" / "stage_memory.py"),
        ROOT / "accelerate_configs" / "cpu.yaml",
        *tiny_arguments(tiny, tmp_path / "run"),
        *cycles,
    )
    memory = json.loads(said.strip().splitlines()[-1])
    assert len(memory) == 6
    assert memory[5] <= 1.05 * memory[1], memory
