"""Scores of a file of pairs, or the nearest sentences of each sentence of a file, with a trained encoder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from te_trainer.config.commands import check_output
from te_trainer.config.names import is_folder
from te_trainer.config.schema import ContrastiveDataConfig, ScoreConfig
from te_trainer.config.types import SENTENCE_COLUMNS
from te_trainer.data import SentenceManifest, build_sentences, load_gold, rows_with_both, write_rows
from te_trainer.data.other_columns import OtherColumns
from te_trainer.data.outputs import PREDICTION, PROBABILITY, neighbour_blocks, prediction_blocks, write_table
from te_trainer.distributed import process_state, shutdown_process_group
from te_trainer.errors import InputError
from te_trainer.files.atomic import PARTIAL
from te_trainer.files.disk_errors import disk_errors_as_input_error
from te_trainer.files.locks import lock_output_file
from te_trainer.files.scratch import scratch_folder
from te_trainer.labelling import SAME_SCORE, embed_sentences, score_pairs
from te_trainer.metrics.calibration import PlattScaling, describe_calibration, fit_platt
from te_trainer.models import Encoder, check_encoder, describe_encoder, load_encoder, resolve_checkpoint
from te_trainer.models.attention import check_attention
from te_trainer.models.precision import resolve_precision
from te_trainer.runs.chosen_encoder import Use, choose_encoder
from te_trainer.runs.commits import pin_commits
from te_trainer.runs.layout import RunLayout
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.quiet import quiet_libraries
from te_trainer.runs.truncation import count_truncation, describe_truncation
from te_trainer.search import nearest, write_neighbour_pairs

Blocks = Iterator[dict[str, Any]]  # of the output's columns


def main(config: ScoreConfig) -> None:
    quiet_libraries()
    state = process_state(config.ddp_timeout)

    # ------------------------------------------------------------ models
    config, taken = take_encoders(config)
    data = config.data
    pin_commits(
        [name for name in (config.model, config.rerank) if name is not None],
        [(source, data.dir) for source in (data.pairs, data.sentences, data.queries, config.probabilities)],
    )
    kind = check_encoder(config.model, config.pooling, config.prompt, config.max_length)
    if data.sentences is not None and kind == "cross-encoder":
        raise InputError(
            f"model: {config.model} is a cross-encoder, which has no vectors to search by; name a bi-encoder, and this "
            "one as rerank"
        )
    if config.rerank is not None and check_encoder(config.rerank) != "cross-encoder":
        raise InputError(f"rerank: {config.rerank} is a bi-encoder; name a cross-encoder")
    for name in filter(None, (config.model, config.rerank)) if config.attn_implementation else ():
        checkpoint = resolve_checkpoint(name)
        check_attention(checkpoint.empty_model(checkpoint.kind), config.attn_implementation, "attn_implementation")

    # ------------------------------------------------------------ scores, by way of a scratch folder
    output = Path(config.output)
    scratch = output.with_name(f"{PARTIAL}{output.name}.scratch")
    progress = RunProgress(enabled=state.is_main_process)
    with (
        disk_errors_as_input_error(output.parent, key="output"),
        lock_output_file(output) if state.is_main_process else contextlib.nullcontext(),
        scratch_folder(scratch),
        progress,
    ):
        # another process may have written the output since the command line was read
        check_output(config.output, config.overwrite)
        for line in taken:
            progress.say(line)
        blocks = (score if data.pairs is not None else search)(config, scratch, progress)
        if state.is_main_process:
            write_table(output, blocks)
        progress.say(f"The scores are in {output}.")
    shutdown_process_group()


def take_encoders(config: ScoreConfig) -> tuple[ScoreConfig, list[str]]:
    """Put encoders of runs where the configuration names the runs' folders; give a line that says why for each."""
    chosen: dict[str, Any] = {}
    lines = []
    uses: dict[str, Use] = {"model": "sentences" if config.data.pairs is None else "pairs", "rerank": "rerank"}
    for key, use in uses.items():
        name = getattr(config, key)
        if name is not None and is_folder(name) and RunLayout(Path(name)).manifest.is_file():
            encoder, why = choose_encoder(Path(name), use, key)
            chosen[key] = str(encoder)
            lines.append(f"{key}: of the run in {name}, {encoder.relative_to(name)} is taken: {why}")
    return replace(config, **chosen), lines


def score(config: ScoreConfig, scratch: Path, progress: RunProgress) -> Blocks:
    """Score every pair of a source."""
    file, data = scratch / "pairs.arrow", config.data
    assert data.pairs is not None
    taken = [*SENTENCE_COLUMNS, PREDICTION, *([PROBABILITY] if config.probabilities else [])]
    others = OtherColumns(scratch / "others.jsonl", taken) if data.keep else None
    if progress.enabled:
        for note in write_rows(data.pairs, file, others, columns=data.columns, folder=data.dir, split=data.split):
            progress.say(f"pairs: {note}")
    process_state().wait_for_everyone()
    pairs = Dataset.from_file(str(file))
    whole = rows_with_both(pairs)
    lacking = len(pairs) - len(whole)
    note = f", {lacking:,} lack a sentence and get no score" if lacking else ""
    progress.say(f"pairs: {data.pairs}: {len(pairs):,} rows{note}")

    encoder = load(config, "model", {"pairs": pairs}, progress)
    to_probability = None
    if config.probabilities is not None:
        progress.total = 2
        to_probability = calibrate(config, config.probabilities, encoder, scratch, progress)
    predictions = np.full(len(pairs), np.nan, dtype=np.float32)
    chosen = pairs.select(whole) if lacking else pairs
    with stage("pairs", config, progress) as arguments:
        predictions[whole] = score_pairs(encoder, chosen, scratch=scratch, **arguments)
    if len(whole) > 1 and np.ptp(predictions[whole]) < SAME_SCORE:
        progress.say(
            f"warning: all {len(whole):,} pairs have the same score ({predictions[whole[0]]:.3f}); if they differ, the "
            "model tells no texts apart: choose another pooling or another model"
        )
    scores = {PREDICTION: predictions}
    if to_probability is not None:
        scores[PROBABILITY] = to_probability(predictions).astype(np.float32)
    return prediction_blocks(pairs, scores, others)


def calibrate(config: ScoreConfig, source: str, encoder: Encoder, scratch: Path, progress: RunProgress) -> PlattScaling:
    """Fit probabilities to the encoder's scores of pairs whose answer is known; say how far they can be trusted."""
    data = config.data
    gold = load_gold(source, "test", dict(data.columns), data.dir, key="probabilities")
    for note in gold.notes:
        progress.say(f"probabilities: {note}")
    if config.same_from is None and not set(gold.scores.tolist()) <= {0.0, 1.0}:
        raise InputError(
            f"probabilities: the scores in {source} are not 0 and 1 alone; say from which score on two sentences are "
            "the same, e.g. --same_from 4"
        )
    same = gold.scores >= (1.0 if config.same_from is None else config.same_from)
    if min(same.sum(), (~same).sum()) < 2:
        raise InputError(
            f"probabilities: of {len(same)} pairs in {source}, {same.sum()} are the same; at least two must be, and "
            "two must not be; score more pairs"
        )
    with scratch_folder(scratch / "probabilities") as folder, stage("probabilities", config, progress) as arguments:
        scores = score_pairs(encoder, gold.columns, scratch=folder, **arguments)
    platt = fit_platt(scores, same)
    if platt.slope <= 0:
        raise InputError(
            f"probabilities: the pairs in {source} that are the same score no higher than the others; correct their "
            "scores, or name another model"
        )
    progress.say(f"probabilities: {source}: {describe_calibration(scores, same)}")
    return platt


def search(config: ScoreConfig, scratch: Path, progress: RunProgress) -> Blocks:
    """Find the nearest sentences of each sentence, or of each query."""
    # ------------------------------------------------------------ sentences and queries
    data = config.data
    named = {"sentences": data.sentences, "queries": data.queries}
    sources = {name: source for name, source in named.items() if source is not None}
    if progress.enabled:
        for name, source in sources.items():
            how = ContrastiveDataConfig([source], data.column, data.split, {**data.columns}, dir=data.dir)
            build_sentences(how, scratch / name, key=f"data.{name}")
    process_state().wait_for_everyone()
    loaded = {name: SentenceManifest.load(scratch / name) for name in sources}
    texts = {name: dataset for name, (_, dataset) in loaded.items()}
    sentences, queries = texts["sentences"], texts.get("queries", texts["sentences"])
    candidates = len(sentences) - (queries is sentences)
    if not candidates:
        raise InputError(f"data.sentences: one distinct sentence in {data.sentences}; at least two are needed")
    for name, (manifest, _) in loaded.items():
        for line in manifest.describe(name):
            progress.say(line)
    top_k = min(config.top_k, candidates)
    if top_k < config.top_k:
        progress.say(f"top_k: {top_k:,}, because there are no more")

    # ------------------------------------------------------------ vectors, and the nearest of them
    encoder = load(config, "model", texts, progress)
    progress.total = len(sources) + 1 + (config.rerank is not None)
    vectors = {}
    for name, dataset in texts.items():
        with stage(name, config, progress) as arguments:
            vectors[name] = embed_sentences(encoder, dataset, scratch / name, **arguments)
    del encoder
    with stage("nearest", config, progress):
        rows, scores = nearest(vectors["sentences"], vectors.get("queries"), top_k, scratch, progress.advance)

    # ------------------------------------------------------------ a cross-encoder's order of them
    if config.rerank is not None:
        pairs = write_neighbour_pairs(queries, sentences, rows, scratch / "pairs.arrow")
        reranker = load(config, "rerank", {"rerank": pairs}, progress)
        with stage("rerank", config, progress) as arguments:
            scores = score_pairs(reranker, pairs, scratch=scratch, **arguments).reshape(rows.shape)
        order = np.argsort(-scores, axis=1, kind="stable")
        rows, scores = (np.take_along_axis(array, order, axis=1) for array in (rows, scores))
    return neighbour_blocks(queries, sentences, rows, scores)


def load(config: ScoreConfig, key: str, texts: dict[str, Dataset], progress: RunProgress) -> Any:
    """Load the encoder that a key names; say what it is, and how many of the texts are longer than it reads."""
    name = getattr(config, key)
    how: dict[str, Any] = {"pooling": config.pooling, "max_length": config.max_length, "prompt": config.prompt}
    attention = config.attn_implementation
    encoder = load_encoder(name, attn_implementation=attention, **(how if key == "model" else {}))
    progress.say(f"{key}: {name}: {describe_encoder(encoder)}")
    length_key = "max_length" if key == "model" else "max_length in its training"
    for title, pairs in texts.items() if progress.enabled else ():
        prompt = getattr(encoder, "prompt", "")
        counts = count_truncation(pairs, encoder.kind, encoder.tokenizer, encoder.max_length, prompt)
        for line in describe_truncation(title, encoder.kind, counts, length_key):
            progress.say(line)
    return encoder


@contextlib.contextmanager
def stage(title: str, config: ScoreConfig, progress: RunProgress) -> Iterator[dict[str, Any]]:
    """Show a stage's progress; give the arguments that all functions of labelling take."""
    progress.begin(title, 1)
    precision = resolve_precision(config.precision)
    yield {"precision": precision, "batch_tokens": config.batch_tokens, "progress": progress.advance}
    progress.end()
