"""Scores of a file of pairs, or the nearest sentences of each sentence of a file, with a trained encoder.

    accelerate launch recipes/score.py --model MODEL --data.pairs pairs.csv --output scores.tsv
    accelerate launch recipes/score.py --model MODEL --data.sentences sentences.txt --top_k 5 --output nearest.tsv

Whether the model is a bi-encoder or a cross-encoder is found out from its checkpoint. `--help` lists all keys.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from te_trainer.config import ScoreConfig, parse_score

if TYPE_CHECKING:
    from datasets import Dataset

    from te_trainer.models import Encoder
    from te_trainer.runs.progress import RunProgress


def main() -> None:
    ################
    # Configuration; heavy imports follow it, so that --help and a wrong key answer at once
    ################
    config = parse_score()
    from te_trainer.config.commands import check_output
    from te_trainer.distributed import keep_freed_memory, process_state, shutdown_process_group
    from te_trainer.errors import InputError
    from te_trainer.files.atomic import PARTIAL
    from te_trainer.files.disk_errors import disk_errors_as_input_error
    from te_trainer.models import check_encoder
    from te_trainer.runs.commits import pin_commits
    from te_trainer.runs.folder import lock_output_file, scratch_folder
    from te_trainer.runs.progress import RunProgress
    from te_trainer.runs.quiet import quiet_libraries

    quiet_libraries()
    keep_freed_memory()
    state = process_state(config.ddp_timeout)

    ################
    # Models
    ################
    data = config.data
    pin_commits(
        [name for name in (config.model, config.rerank) if name is not None],
        [(source, data.dir) for source in (data.pairs, data.sentences, data.queries) if source is not None],
    )
    kind = check_encoder(config.model, config.pooling, config.prompt, config.max_length)
    if config.data.sentences is not None and kind == "cross-encoder":
        raise InputError(
            f"model: {config.model} is a cross-encoder, which has no vectors to search by; name a bi-encoder, and this "
            "one as rerank"
        )
    if config.rerank is not None and check_encoder(config.rerank) != "cross-encoder":
        raise InputError(f"rerank: {config.rerank} is a bi-encoder; name a cross-encoder")

    ################
    # Scores, in a folder that goes when they are written
    ################
    output = Path(config.output)
    scratch = output.with_name(f"{PARTIAL}{output.name}.scratch")
    progress = RunProgress(enabled=state.is_main_process)
    with (
        disk_errors_as_input_error(output.parent, key="output"),
        lock_output_file(output) if state.is_main_process else contextlib.nullcontext(),
        scratch_folder(scratch),
        progress,
    ):
        # another process may have written it since the command line was read
        check_output(config.output, config.overwrite)
        if config.data.pairs is not None:
            score(config, config.data.pairs, scratch, progress)
        else:
            search(config, scratch, progress)
        progress.say(f"The scores are in {output}.")
    shutdown_process_group()


def score(config: ScoreConfig, source: str, scratch: Path, progress: RunProgress) -> None:
    """Score every pair of a source."""
    import numpy as np
    from datasets import Dataset

    from te_trainer.data import rows_with_both, write_rows
    from te_trainer.data.outputs import PREDICTIONS, prediction_blocks, write_table
    from te_trainer.distributed import process_state
    from te_trainer.labelling import score_pairs
    from te_trainer.models import describe_encoder, load_encoder

    state = process_state()
    file = scratch / "pairs.arrow"
    data = config.data
    if state.is_main_process:
        for note in write_rows(source, file, columns=data.columns, benchmark_folder=data.dir, split=data.split):
            progress.say(f"pairs: {note}")
    state.wait_for_everyone()
    pairs = Dataset.from_file(str(file))
    filled = rows_with_both(pairs)
    lacking = len(pairs) - len(filled)
    progress.say(
        f"pairs: {source}: {len(pairs):,} rows" + (f", {lacking:,} lack a sentence and get no score" if lacking else "")
    )

    encoder = load_encoder(config.model, pooling=config.pooling, max_length=config.max_length, prompt=config.prompt)
    progress.say(f"model: {config.model}: {describe_encoder(encoder)}")
    say_truncation(encoder, pairs, "max_length", progress)
    progress.begin("pairs", 1)
    predictions = np.full(len(pairs), np.nan, dtype=np.float32)
    predictions[filled] = score_pairs(
        encoder,
        pairs.select(filled) if lacking else pairs,
        scratch=scratch,
        progress=progress.advance,
        **speed(config),
    )
    progress.end()
    if state.is_main_process:
        write_table(Path(config.output), PREDICTIONS, prediction_blocks(pairs, predictions))


def search(config: ScoreConfig, scratch: Path, progress: RunProgress) -> None:
    """Find the nearest sentences of each sentence, or of each query."""
    import numpy as np
    from datasets import Dataset

    from te_trainer.data import SentenceManifest, build_sentences
    from te_trainer.data.outputs import NEIGHBOURS, neighbour_blocks, write_table
    from te_trainer.distributed import process_state
    from te_trainer.errors import InputError
    from te_trainer.labelling import embed_sentences
    from te_trainer.models import BiEncoder, CrossEncoder, describe_encoder, load_encoder
    from te_trainer.search import nearest, score_found

    ################
    # Sentences and queries
    ################
    state = process_state()
    data = config.data
    named = {"sentences": data.sentences, "queries": data.queries}
    sources = {name: source for name, source in named.items() if source is not None}
    if state.is_main_process:
        for name, source in sources.items():
            build_sentences(
                [source],
                scratch / name,
                column=data.column,
                columns=data.columns,
                split=data.split,
                benchmark_folder=data.dir,
                key=f"data.{name}",
            )
    state.wait_for_everyone()
    texts = {}
    lines = []
    for name in sources:
        counts, texts[name] = SentenceManifest.load(scratch / name)
        lines += counts.describe()
    sentences, queries = texts["sentences"], texts.get("queries", texts["sentences"])
    others = len(sentences) - (queries is sentences)
    if not others:
        raise InputError(f"data.sentences: one distinct sentence in {data.sentences}; at least two are needed")
    for line in lines:
        progress.say(line)
    top_k = min(config.top_k, others)
    if top_k < config.top_k:
        progress.say(f"top_k: {top_k:,}, because there are no more")

    ################
    # Vectors, and the nearest of them
    ################
    encoder = load_encoder(config.model, pooling=config.pooling, max_length=config.max_length, prompt=config.prompt)
    assert isinstance(encoder, BiEncoder)
    progress.say(f"model: {config.model}: {describe_encoder(encoder)}")
    for name in sources:
        say_truncation(encoder, texts[name], "max_length", progress, name)
    progress.total = len(sources) + 1 + (config.rerank is not None)
    vectors: dict[str, np.ndarray] = {}
    for name in sources:
        progress.begin(name, 1)
        vectors[name] = embed_sentences(
            encoder, texts[name], scratch / name, progress=progress.advance, **speed(config)
        )
        progress.end()
    del encoder
    progress.begin("nearest", 1)
    rows, scores = nearest(vectors["sentences"], vectors.get("queries"), top_k, scratch, progress.advance)
    progress.end()

    ################
    # A cross-encoder's order of them
    ################
    if config.rerank is not None:
        reranker = load_encoder(config.rerank)
        assert isinstance(reranker, CrossEncoder)
        progress.say(f"rerank: {config.rerank}: {describe_encoder(reranker)}")
        progress.begin("rerank", 1)
        scores = score_found(reranker, queries, sentences, rows, scratch, progress.advance, **speed(config))
        progress.end()
        found = Dataset.from_file(str(scratch / "found.arrow"))
        say_truncation(reranker, found, "max_length in its training", progress, "rerank")
        order = np.argsort(-scores, axis=1, kind="stable")
        rows, scores = (np.take_along_axis(array, order, axis=1) for array in (rows, scores))

    if state.is_main_process:
        write_table(Path(config.output), NEIGHBOURS, neighbour_blocks(queries, sentences, rows, scores))


def say_truncation(encoder: Encoder, pairs: Dataset, key: str, progress: RunProgress, title: str = "pairs") -> None:
    """Say how many texts are longer than the encoder reads, if there are any."""
    from te_trainer.runs.truncation import count_truncation, describe_truncation

    if progress.enabled:
        prompt = getattr(encoder, "prompt", "")
        counts = count_truncation(pairs, encoder.kind, encoder.tokenizer, encoder.max_length, prompt)
        if counts["cut"]:
            progress.say(describe_truncation(title, encoder.kind, counts, key))


def speed(config: ScoreConfig) -> dict[str, Any]:
    """What changes how fast an encoder is, and next to nothing of what it says."""
    from te_trainer.models.precision import resolve_precision

    return {"precision": resolve_precision(config.precision), "batch_tokens": config.batch_tokens}
