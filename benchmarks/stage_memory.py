"""Memory of each process after every stage of a run: does anything stay behind?

    accelerate launch --config_file accelerate_configs/cpu.yaml benchmarks/stage_memory.py \\
        --config recipes/quickstart.yaml --output_dir runs/memory

Takes the keys of recipes/trans_encoder.py; writes the run into its output_dir and prints one line a stage, and at the
end a JSON list of what the first process holds in MB after each training, mapped files left out.
"""

from __future__ import annotations

import gc
import json
from pathlib import Path

import psutil

from te_trainer.config.commands import parse
from te_trainer.data import PoolManifest
from te_trainer.distillation.cycle import distil
from te_trainer.distillation.plan import make_plan
from te_trainer.distillation.preparation import check_models, prepare_texts
from te_trainer.distillation.stages import DistillationStages
from te_trainer.distributed import process_state, shutdown_process_group
from te_trainer.metrics import TASK_METRICS
from te_trainer.models.precision import resolve_precision
from te_trainer.runs.checks import load_gold_sets
from te_trainer.runs.layout import RunLayout
from te_trainer.runs.manifest import RunManifest
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.quiet import quiet_libraries
from te_trainer.runs.scoring import Scorer
from te_trainer.runs.store import RunStore


def main() -> None:
    config = parse()
    quiet_libraries()
    state = process_state()
    root = Path(config.output_dir)
    manifest = RunManifest(root, config, state.num_processes, make_plan)
    plan = manifest.plan
    check_models(plan)
    gold = load_gold_sets(config.data, config.distillation.task)
    if state.is_main_process:
        prepare_texts(manifest, gold)
    state.wait_for_everyone()
    pool, pairs = PoolManifest.load(root / "pool")
    memory: list[float] = []

    def measure() -> None:
        gc.collect()
        # pages of files come and go as the system has room
        own = sum(part.anonymous + part.swap for part in psutil.Process().memory_maps())
        memory.append(round(own / 1e6, 1))
        if state.is_main_process:
            print(f"stage {len(memory)}: {memory[-1]} MB", flush=True)

    metric = TASK_METRICS[config.distillation.task][0]
    scorer = Scorer(gold, metric, config.distillation.batch_tokens, root / ".scratch-gold")
    store = RunStore(
        RunLayout(root),
        cycles=plan.cycles,
        trains_start=config.step0 is not None,
        pairs=pool.num_rows,
        pool=pool.fingerprint,
        precision=resolve_precision(config.distillation.precision),
    )
    stages = DistillationStages(plan, store, pairs, scorer, RunProgress(enabled=False), measure)
    distil(stages)
    if state.is_main_process:
        # every second stage is a training
        print(json.dumps(memory[1::2]), flush=True)
    shutdown_process_group()


if __name__ == "__main__":
    main()
