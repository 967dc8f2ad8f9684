"""Scores of bi-encoders, cross-encoders and ensembles on pairs with gold scores, as the paper's tables have them.

    accelerate launch recipes/evaluate_sts.py --models '[runs/sts/bert/bi-encoder, runs/sts/bert/cross-encoder]'

Every key can stand in a YAML file, too (`--config`); `--help` lists them. The same command, run again after an
interruption, continues.
"""

from __future__ import annotations

import json
from pathlib import Path

from te_trainer.config import EvaluationConfig, parse_evaluation
from te_trainer.runs.command import run_in_output_dir


def main() -> None:
    run_in_output_dir(parse_evaluation(), evaluate_in)


def evaluate_in(root: Path, config: EvaluationConfig) -> None:
    from te_trainer.distributed import process_state
    from te_trainer.evaluation.models import resolve_models
    from te_trainer.evaluation.predictions import count_truncations, predict_all, write_run_file
    from te_trainer.evaluation.results import collect
    from te_trainer.evaluation.sets import load_sets
    from te_trainer.evaluation.tables import show_tables, write_tables
    from te_trainer.files.atomic import write_text
    from te_trainer.runs.progress import RunProgress

    ################
    # Models, sets with gold scores
    ################
    state = process_state()
    models = resolve_models(config)
    sets = load_sets(config)
    if state.is_main_process:
        write_run_file(root, config, models, sets)
        count_truncations(root, models, sets)
    state.wait_for_everyone()

    ################
    # Predictions, on all ranks
    ################
    with RunProgress(enabled=state.is_main_process) as progress:
        for task in sets:
            progress.say(task.describe())
        predict_all(root, models, sets, progress)

    ################
    # Scores
    ################
    if state.is_main_process:
        results_file = root / "results.json"
        results = collect(root, config, models, sets)
        write_text(results_file, json.dumps(results, indent=2) + "\n")
        write_tables(root, results)
        show_tables(results)
        print(f"The tables are in {root / 'table.md'} and table.tex, predictions in {root / 'predictions'}.")
