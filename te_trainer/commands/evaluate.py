"""Scores of bi-encoders, cross-encoders and ensembles on pairs with gold scores, as the paper's tables have them."""

from __future__ import annotations

from te_trainer.config.schema import EvaluationConfig
from te_trainer.distributed import process_state
from te_trainer.evaluation.models import resolve_models
from te_trainer.evaluation.paper_tables import show_tables, write_tables
from te_trainer.evaluation.predictions import begin_or_continue, count_truncations, predict_all
from te_trainer.evaluation.results import collect
from te_trainer.evaluation.sets import load_sets
from te_trainer.files.records import write_json
from te_trainer.runs.folder import run_in_output_dir
from te_trainer.runs.manifest import RunManifest
from te_trainer.runs.progress import RunProgress


def main(config: EvaluationConfig) -> None:
    run_in_output_dir(config, evaluate)


def evaluate(manifest: RunManifest[EvaluationConfig]) -> None:
    # ------------------------------------------------------------ models, sets with gold scores
    config, root, layout = manifest.config, manifest.root, manifest.layout
    state = process_state()
    models = resolve_models(config)
    sets, notes = load_sets(config)
    if state.is_main_process:
        begin_or_continue(manifest, models, sets)
        count_truncations(root, models, sets)
    state.wait_for_everyone()

    # ------------------------------------------------------------ predictions, on all ranks
    with RunProgress(enabled=state.is_main_process) as progress:
        for line in (*(task.describe() for task in sets), *notes):
            progress.say(line)
        predict_all(root, models, sets, progress)

    # ------------------------------------------------------------ scores
    if state.is_main_process:
        results = collect(root, config, models, sets)
        write_json(layout.results, results)
        write_tables(root, results)
        show_tables(results)
        tables = f"{layout.markdown_table} and {layout.latex_table.name}"
        print(f"The tables are in {tables}, predictions in {layout.model_predictions('')}.")
