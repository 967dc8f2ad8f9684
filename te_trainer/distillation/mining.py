"""The pool of a run that has sentences: pairs are mined from them with the bi-encoders that the cycles start from."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from datasets import Dataset

from te_trainer.data import PoolManifest, SentenceManifest, add_mined_pairs, pairs_of
from te_trainer.data.arrow_io import BLOCK_ROWS
from te_trainer.data.digests import text_digest
from te_trainer.distillation.encoders import load_run_encoder
from te_trainer.distillation.plan import DistillationPlan
from te_trainer.distillation.work import mining_work
from te_trainer.distributed import on_main_process
from te_trainer.errors import InputError
from te_trainer.files.atomic import atomic_folder
from te_trainer.files.records import write_json
from te_trainer.files.scratch import scratch_folder
from te_trainer.labelling import Progress, cosines, embed_sentences
from te_trainer.mining.bm25 import bm25_pairs
from te_trainer.mining.candidates import SOURCES, Candidates, document_pairs, merge, random_pairs
from te_trainer.mining.draw import band_edges, band_of, draw_by_score
from te_trainer.mining.near_duplicates import look_the_same, near_duplicates
from te_trainer.mining.neighbours import nearest_pairs
from te_trainer.models import BiEncoder
from te_trainer.runs.layout import EncoderKey, RunLayout
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.store import RunStore

BINS = 50  # of the record's histograms
EXAMPLE_BANDS, EXAMPLES = 5, 10

LeftOut: TypeAlias = dict[str, dict[str, int]]  # candidates by the reason, then by the source


def mine_pool(plan: DistillationPlan, store: RunStore, progress: RunProgress) -> bool:
    """Mine pairs and write the pool, unless it is there; says whether it was mined now.

    Every PLM's start embeds the sentences: all of them where candidates are its neighbours, else those of candidates.
    Candidates are scored by its cosines; those of several PLMs are combined as labels are. All ranks embed and search;
    the first one gathers, draws and writes.

    Raises:
        DivergedError: A vector is NaN or infinite.
        InputError: Candidates are lacking, or a package.
    """
    layout, mining, seed = store.layout, plan.config.mining, plan.config.seed
    sentences = SentenceManifest.load(layout.mining)[1]
    pairs = plan.pairs_to_mine(len(sentences))
    work = mining_work(plan, layout)
    if layout.pool.exists():
        progress.skip(work.total(len(plan.models)))
        return False
    began = time.monotonic()
    rng = np.random.default_rng((seed, 4))
    anchors = np.sort(rng.choice(len(sentences), plan.anchors(len(sentences)), replace=False))
    searches = "neighbours" in mining.sources
    vectors, found = [], [np.empty((0, 2), dtype=np.int64)]
    left_out: LeftOut = {}
    with scratch_folder(layout.mining_scratch) as scratch:
        file, embedded = scratch / "candidates.npz", np.arange(len(sentences))

        def gather_on_main() -> None:
            neighbours = np.concatenate(found)
            candidates, dropped = _candidates(plan, layout, sentences, anchors, neighbours, progress.advance)
            left_out.update(dropped)
            if not len(candidates.rows):
                raise InputError(f"{plan.config.mining_key}: {describe_nothing(len(sentences), left_out)}")
            np.savez(file, **candidates._asdict())

        def gather() -> None:
            progress.begin("mine pairs: gather candidates", work.gather)
            on_main_process(gather_on_main)
            progress.end()

        if not searches:
            # scores want the vectors of candidates alone
            gather()
            embedded = np.unique(np.load(file)["rows"])
        for number, name in enumerate(plan.models):
            folder = scratch / str(number)
            on_main_process(folder.mkdir)
            progress.begin(f"mine pairs: embed sentences with {name}", work.embed)
            encoder = load_run_encoder(plan, store, EncoderKey.start(name))
            assert isinstance(encoder, BiEncoder)
            texts = sentences.select(embedded)
            vectors.append(embed_sentences(encoder, texts, folder, progress=progress.advance, **plan.labelling))
            progress.end()
            if searches:
                progress.begin(f"mine pairs: nearest sentences by {name}", work.search)
                found.append(nearest_pairs(vectors[-1], anchors, mining.candidates, folder, progress.advance))
                progress.end()
        if searches:
            gather()

        def write() -> None:
            candidates = Candidates(**np.load(file))
            rows = np.searchsorted(embedded, candidates.rows)
            by_start = [cosines(each, rows) for each in vectors]
            differ = ~look_the_same(by_start)
            for name, count in _by_source(candidates.source[~differ]).items():
                left_out["near_duplicates"][name] += count
            if not differ.any():
                raise InputError(
                    f"{plan.config.mining_key}: the two texts of each of {len(rows):,} candidates look the same to the "
                    f"start, which reads {plan.config.bi_encoder.max_length} tokens; give texts that differ in them, a "
                    "higher bi_encoder.max_length or another bi_encoder.pooling, and another output_dir"
                )
            candidates = Candidates(candidates.rows[differ], candidates.source[differ])
            scores = plan.combine(each[differ] for each in by_start)
            drawn = draw_by_score(scores, candidates.rows, pairs, mining.per_sentence, seed)
            given = layout.given_pairs if layout.given_pairs.exists() else None
            notes = describe_candidates(pairs, len(drawn), len(candidates.rows), len(sentences), left_out)
            with atomic_folder(layout.pool) as folder:
                add_mined_pairs(given, _pairs(sentences, candidates.rows[drawn]), folder, notes)
                record = {"sentences": len(sentences), "left_out": left_out}
                record |= describe_mining(sentences, candidates, scores, drawn)
                record["seconds"] = round(time.monotonic() - began, 3)
                write_json(folder / layout.mined_record.name, record)

        on_main_process(write)
    return True


def describe_nothing(sentences: int, left_out: LeftOut) -> str:
    """Why no candidate is left, and what to do."""
    alike, given = (sum(left_out[name].values()) for name in ("near_duplicates", "in_pool"))
    if not alike + given:
        sources = " and ".join(left_out["in_pool"])
        why, mend = f"no pair can be mined of {sentences:,} sentences by {sources}", "more texts or more mining.sources"
    elif not given:
        why, mend = f"all {alike:,} candidates are near-duplicates", "texts that differ in more of their words"
    else:
        why = f"data.pool holds {'all ' * (not alike)}{given:,} candidates"
        why += f", and the other {alike:,} are near-duplicates" * (alike > 0)
        mend = "other texts, a higher mining.candidates or more mining.sources"
    return f"{why}; give {mend}, and another output_dir"


def describe_candidates(wanted: int, drawn: int, candidates: int, sentences: int, left_out: LeftOut) -> list[str]:
    """How many candidates were left out, and of fewer pairs than were wanted, which keys give more; a line each."""
    alike, given = (sum(left_out[name].values()) for name in ("near_duplicates", "in_pool"))
    parts = [f"{alike:,} as near-duplicates"] * (alike > 0) + [f"{given:,} because data.pool holds them"] * (given > 0)
    lines = [f"left out of the candidates: {', '.join(parts)}"] if parts else []
    if drawn < wanted:
        mend = "" if drawn == candidates else ", a higher mining.per_sentence"
        if candidates + alike + given < sentences * (sentences - 1) // 2:
            mend += ", a higher mining.candidates or more mining.sources"
        found = f"{drawn:,} of {wanted:,} wanted pairs (mining.pairs) were found"
        lines.append(f"{found}; more {'different ' * (alike > 0)}sentences{mend} would give more")
    return lines


def describe_mining(
    sentences: Dataset, candidates: Candidates, scores: np.ndarray, drawn: np.ndarray
) -> dict[str, Any]:
    """What the report says of mined pairs; `pairs` are those that were drawn.

    Returns:
        `{"candidates": {source: n}, "pairs": {source: n}, "histogram": {"edges", "candidates", "pairs"}, "examples":
        [{"from": f, "to": f, "pairs": [[sentence1, sentence2, score, source]]}]}`
    """
    edges = np.linspace(scores.min(), scores.max(), BINS + 1)
    bands = band_edges(scores, EXAMPLE_BANDS)
    # the outer bands hold what is beyond them, too
    bands[[0, -1]] = scores.min(), scores.max()
    band = band_of(scores[drawn], bands)
    examples = []
    for number, (low, high) in enumerate(pairwise(bands.tolist())):
        here = drawn[band == number][:: max(1, int((band == number).sum()) // EXAMPLES)][:EXAMPLES]
        texts = _pairs(sentences, candidates.rows[here])
        shown = [
            [one, two, round(float(scores[index]), 4), SOURCES[candidates.source[index]]]
            for (one, two), index in zip(texts, here, strict=True)
        ]
        examples.append({"from": round(low, 4), "to": round(high, 4), "pairs": shown})
    return {
        "candidates": _by_source(candidates.source),
        "pairs": _by_source(candidates.source[drawn]),
        "histogram": {
            "edges": [round(edge, 6) for edge in edges.tolist()],
            "candidates": np.histogram(scores, edges)[0].tolist(),
            "pairs": np.histogram(scores[drawn], edges)[0].tolist(),
        },
        "examples": examples,
    }


def _candidates(
    plan: DistillationPlan,
    layout: RunLayout,
    sentences: Dataset,
    anchors: np.ndarray,
    neighbours: np.ndarray,
    progress: Progress,
) -> tuple[Candidates, LeftOut]:
    """All candidates, without near-duplicates and pairs that are given.

    Returns:
        The candidates, and how many were left out, by each source that was looked into: `{"near_duplicates": {source:
        n}, "in_pool": {source: n}}`. One that is both counts as a near-duplicate.
    """
    mining, documents = plan.config.mining, layout.mining / "documents.npy"
    found = {}
    if "neighbours" in mining.sources:
        found["neighbours"] = neighbours
    if "bm25" in mining.sources:
        found["bm25"] = bm25_pairs(sentences, anchors, mining.candidates, progress)
    if "document" in mining.sources and documents.exists():
        found["document"] = document_pairs(np.load(documents), anchors)
    if "random" in mining.sources:
        found["random"] = random_pairs(anchors, mining.candidates, plan.config.seed)
    candidates = merge(found)
    alike = near_duplicates(sentences, candidates.rows)
    given = np.zeros_like(alike)
    if layout.given_pairs.exists():
        given = ~alike & are_given(sentences, candidates.rows, PoolManifest.load(layout.given_pairs)[1])
    keep = ~(alike | given)
    left_out = {
        name: dict.fromkeys(found, 0) | _by_source(candidates.source[each])
        for name, each in (("near_duplicates", alike), ("in_pool", given))
    }
    return Candidates(candidates.rows[keep], candidates.source[keep]), left_out


def _by_source(source: np.ndarray) -> dict[str, int]:
    """How many there are of each source, of those that there are any of; `source` is that of `Candidates`."""
    counts = np.bincount(source, minlength=len(SOURCES)).tolist()
    return {name: count for name, count in zip(SOURCES, counts, strict=True) if count}


def are_given(sentences: Dataset, rows: np.ndarray, given: Dataset) -> np.ndarray:
    """Whether each pair of rows is among the given pairs, in either order."""
    number = {text_digest(text): row for row, text in enumerate(sentences["sentence1"])}
    known = {tuple(sorted(number.get(text_digest(text), -1) for text in pair)) for pair in pairs_of(given)}
    return np.array([tuple(pair) in known for pair in rows.tolist()], dtype=bool)


def _pairs(sentences: Dataset, rows: np.ndarray) -> Iterator[tuple[str, str]]:
    """The texts of pairs of rows."""
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        columns = [sentences[block[:, side].tolist()]["sentence1"] for side in (0, 1)]
        yield from zip(*columns, strict=True)
