"""From a plain PLM and sentences to a bi-encoder, by contrastive training (SimCSE, Mirror-BERT): the paper's step 0.

    accelerate launch recipes/contrastive.py --config recipes/contrastive/simcse_bert_base.yaml

Every key of the YAML file can be overridden as `--section.key value`; `--help` lists them. The same command, run again
after an interruption, continues.
"""

from __future__ import annotations

import json
from pathlib import Path

from te_trainer.config import ContrastiveConfig, parse_contrastive
from te_trainer.runs.command import run_in_output_dir


def main() -> None:
    run_in_output_dir(parse_contrastive(), train_in)


def train_in(root: Path, config: ContrastiveConfig) -> None:
    from te_trainer.contrastive.run import (
        check,
        collect,
        load_sentences,
        prepare_sentences,
        record_path,
        refuse_missing_encoder,
    )
    from te_trainer.contrastive.stage import (
        ContrastiveSettings,
        contrastive_training,
        count_contrastive_truncation,
        score_once,
    )
    from te_trainer.distil.preparation import describe_gold, load_gold_sets
    from te_trainer.distil.settings import stage_seed
    from te_trainer.distributed import process_state
    from te_trainer.files.atomic import write_text
    from te_trainer.files.records import read_json
    from te_trainer.metrics import spearman
    from te_trainer.models.precision import resolve_precision
    from te_trainer.report import print_contrastive_results
    from te_trainer.runs.layout import RunLayout, truncation_record
    from te_trainer.runs.progress import RunProgress
    from te_trainer.runs.saved import check_encoder_files
    from te_trainer.runs.scoring import Scorer
    from te_trainer.runs.truncation import describe_contrastive_truncation, read_truncations

    state = process_state()
    results_file = root / "results.json"
    if results_file.exists():
        if state.is_main_process:
            results = read_json(results_file, "start", "final")
            refuse_missing_encoder(root)
            print_contrastive_results(results, spearman.__name__)
            print(f"The run in {root} is finished; there is nothing to do.")
        return

    ################
    # Model, gold scores, sentences
    ################
    layout, settings = RunLayout(root), ContrastiveSettings(config.contrastive)
    check(config, root)
    dev, tests = load_gold_sets(config.data)
    if state.is_main_process:
        prepare_sentences(config, root, state.num_processes, dev, tests)
        count_contrastive_truncation(settings, config.model, layout.sentences, config.seed)
    state.wait_for_everyone()
    counts, sentences = load_sentences(root)
    truncations = read_truncations(truncation_record(layout.sentences))

    ################
    # Scores, training, scores
    ################
    precision = resolve_precision(settings.training(state.num_processes)["precision"])
    progress = RunProgress(enabled=state.is_main_process)
    with progress:
        cut = describe_contrastive_truncation(truncations)
        for line in [*counts.describe(), *describe_gold(dev, tests), *cut]:
            progress.say(line)
        scorer = Scorer(dev, tests, spearman, None, layout.gold_scratch)
        training = contrastive_training(
            settings,
            config.model,
            report_to=config.report_to,
            ddp_timeout=config.ddp_timeout,
            folder=layout.contrastive_encoder,
            dev=dev,
            metric=spearman,
            seed=stage_seed(config.seed, 0, "bi-encoder", 0),
            progress=progress,
            run_dir=root,
        )
        score_once(settings, config.model, "start", record_path(root, "start"), scorer, progress)
        training.run("contrastive training", progress.total, sentences)
        if not record_path(root, "final").exists():
            delete = f"the folder {training.folder}"
            check_encoder_files(training.folder, delete=delete, then="the same command trains the encoder again")
        score_once(settings, str(training.folder), "trained", record_path(root, "final"), scorer, progress)

    ################
    # Results
    ################
    if state.is_main_process:
        results = collect(root, training.read_record(), precision) | {"truncation": truncations}
        write_text(results_file, json.dumps(results, indent=2) + "\n")
        print_contrastive_results(results, spearman.__name__)
        print(f"The bi-encoder is in {training.folder}.")
