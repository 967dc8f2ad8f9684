"""Memory of each process after every stage of a run: does anything stay behind?

    accelerate launch --config_file accelerate_configs/cpu.yaml benchmarks/stage_memory.py \\
        --config recipes/quickstart.yaml --output_dir runs/memory

Is the job of recipes/trans_encoder.py, with its keys. It prints one line for each stage of the cycles, and at the end a
JSON list of what the first process holds in MB after each training, mapped files left out.
"""

from __future__ import annotations

import gc
import json
from typing import Any

import psutil

from te_trainer.commands import distil
from te_trainer.config.commands import parse
from te_trainer.distillation.stages import DistillationStages
from te_trainer.distributed import process_state, shutdown_process_group

memory: list[float] = []


class MeasuredStages(DistillationStages):
    """Stages, after each of which the process's memory is looked at."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.after_stage = measure


def measure() -> None:
    gc.collect()
    # pages of files come and go as the system has room
    own = sum(part.anonymous + part.swap for part in psutil.Process().memory_maps())
    memory.append(round(own / 1e6, 1))
    if process_state().is_main_process:
        print(f"stage {len(memory)}: {memory[-1]} MB", flush=True)


def main() -> None:
    vars(distil)["DistillationStages"] = MeasuredStages
    distil.main(parse())
    if process_state().is_main_process:
        # every second stage is a training
        print(json.dumps(memory[1::2]), flush=True)
    shutdown_process_group()


if __name__ == "__main__":
    main()
