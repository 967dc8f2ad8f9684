"""From a plain PLM and sentences to a bi-encoder, by contrastive training (SimCSE, Mirror-BERT): the paper's step 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from te_trainer.config.schema import ContrastiveConfig
from te_trainer.contrastive.plan import ContrastivePlan, contrastive_training, make_plan
from te_trainer.contrastive.preparation import check_run, prepare_sentences, refuse_changed_finished
from te_trainer.data import SentenceManifest
from te_trainer.distributed import ask_main_process, on_main_process, process_state
from te_trainer.files.records import read_json, write_json
from te_trainer.metrics import spearman
from te_trainer.models import BiEncoder
from te_trainer.models.precision import precision_of
from te_trainer.report.run_tables import print_contrastive_results
from te_trainer.runs.checks import describe_gold, load_gold_sets
from te_trainer.runs.environment import describe_environment
from te_trainer.runs.folder import run_in_output_dir
from te_trainer.runs.manifest import RunManifest
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.saved import check_encoder_files
from te_trainer.runs.scoring import Scorer, describe
from te_trainer.runs.training import training_seed
from te_trainer.runs.truncation import (
    count_once,
    count_truncation,
    describe_contrastive_truncation,
    read_truncations,
)


def main(config: ContrastiveConfig) -> None:
    run_in_output_dir(config, train_contrastively, make_plan)


def train_contrastively(manifest: RunManifest[ContrastiveConfig]) -> None:
    config, layout = manifest.config, manifest.layout
    state = process_state()
    encoder = layout.contrastive_encoder
    if ask_main_process(layout.results.exists):
        if state.is_main_process:
            results = read_json(layout.results, "start", "final")
            refuse_changed_finished(manifest)
            delete = f"{layout.results}" + (f" and the folder {encoder}" if encoder.exists() else "")
            check_encoder_files(encoder, delete=delete, then="the same command trains it again")
            print_contrastive_results(results, spearman.__name__)
            print(f"The run in {layout.root} is finished; there is nothing to do.")
        return

    # ------------------------------------------------------------ model, gold scores, sentences
    plan: ContrastivePlan = manifest.plan
    check_run(manifest)
    gold = load_gold_sets(config.data)
    if state.is_main_process:
        prepare_sentences(manifest, gold)
        count_contrastive_truncation(plan, layout.sentences, config.seed)
    state.wait_for_everyone()
    counts, sentences = SentenceManifest.load(layout.sentences)
    truncations = read_truncations(layout.sentences)

    # ------------------------------------------------------------ scores, training, scores
    precision = precision_of(plan.training)
    progress = RunProgress(enabled=state.is_main_process)
    with progress:
        cut = describe_contrastive_truncation(truncations)
        trainings = plan.describe("contrastive training", counts.num_rows)
        for line in [*manifest.other_versions(), *counts.describe(), *describe_gold(gold), *trainings, *cut]:
            progress.say(line)
        scorer = Scorer(gold, spearman, None, layout.gold_scratch)
        training = contrastive_training(
            plan,
            config,
            folder=encoder,
            dev=gold.dev,
            metric=spearman,
            seed=training_seed(config.seed, 0, "bi-encoder", 0),
            progress=progress,
            run_dir=layout.root,
        )
        start = score_once(plan, config.model, "start", layout.contrastive_scores("start"), scorer, progress)
        training.run("contrastive training", progress.total, sentences)
        final_scores = layout.contrastive_scores("final")
        if not ask_main_process(final_scores.exists):
            then = "the same command trains the encoder again"
            check_encoder_files(encoder, delete=f"the folder {encoder}", then=then)
        final = score_once(plan, str(encoder), "trained", final_scores, scorer, progress)

    # ------------------------------------------------------------ results
    if state.is_main_process:
        record = training.read_record()
        seconds = {"train": float(record["seconds"]), "evaluate": start["seconds"] + final["seconds"]}
        seconds["total"] = sum(seconds.values())
        # scores are fractions, `{"dev": f, "test": {task: f, ..., "avg": f}}`
        results = {
            "start": {"bi-encoder": start["scores"]},
            "final": {"bi-encoder": {"path": str(encoder.absolute()), **final["scores"]}},
            "training": {key: record.get(key) for key in ("steps", "loss")},
            "seconds": {key: round(value, 3) for key, value in seconds.items()},
            "environment": describe_environment(precision),
            "truncation": truncations,
        }
        write_json(layout.results, results)
        print_contrastive_results(results, spearman.__name__)
        print(f"The bi-encoder is in {encoder}.")


def score_once(
    plan: ContrastivePlan, model: str, title: str, record: Path, scorer: Scorer, progress: RunProgress
) -> dict[str, Any]:
    """Score a bi-encoder, unless its record is there; give the record."""
    if ask_main_process(record.exists):
        return read_json(record, "scores", "seconds", then="the same command scores the encoder again")
    entry: dict[str, Any] = {"scores": {}, "seconds": 0.0}
    if any(scorer.gold):
        entry, _ = scorer.score(BiEncoder.from_pretrained(model, **plan.encoder))
    on_main_process(lambda: write_json(record, entry))
    if entry["scores"]:
        progress.say(f"{title}: {describe(entry['scores'])}")
    return entry


def count_contrastive_truncation(plan: ContrastivePlan, folder: Path, seed: int) -> None:
    """Count what contrastive training cuts of its sentences, unless that is known."""
    _, sentences = SentenceManifest.load(folder)
    start, length, prompt = plan.start, plan.section.max_length, plan.prompt_text
    count_once(
        folder,
        lambda: {"bi-encoder": count_truncation(sentences, "bi-encoder", start.tokenizer, length, prompt, seed)},
    )
