"""The pool of a run that has sentences: pairs are mined from them with the bi-encoders that the cycles start from."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from datasets import Dataset

from te_trainer.data import PoolManifest, SentenceManifest, add_mined_pairs, pairs_of
from te_trainer.data.digests import text_digest
from te_trainer.distillation.encoders import load_run_encoder
from te_trainer.distillation.mined_record import (
    LeftOut,
    by_source,
    describe_candidates,
    describe_mining,
    describe_nothing,
    texts_of,
)
from te_trainer.distillation.plan import DistillationPlan
from te_trainer.distillation.work import mining_work
from te_trainer.distributed import ask_main_process, on_main_process
from te_trainer.errors import InputError
from te_trainer.files.atomic import atomic_folder
from te_trainer.files.records import write_json
from te_trainer.files.scratch import scratch_folder
from te_trainer.labelling import Progress, cosines, embed_sentences
from te_trainer.mining.bm25 import bm25_pairs
from te_trainer.mining.candidates import Candidates, document_pairs, merge, random_pairs
from te_trainer.mining.draw import draw_by_score
from te_trainer.mining.near_duplicates import look_the_same, near_duplicates
from te_trainer.mining.neighbours import nearest_pairs
from te_trainer.models import BiEncoder
from te_trainer.runs.layout import EncoderKey, RunLayout
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.store import RunStore


def mine_pool(plan: DistillationPlan, store: RunStore, progress: RunProgress) -> bool:
    """Mine pairs and write the pool, unless it is there; says whether it was mined now.

    Every PLM's start embeds the sentences: all of them where candidates are its neighbours, else those of candidates.
    Candidates are scored by its cosines; those of several PLMs are combined as labels are. All ranks embed and search;
    the first one gathers, draws and writes.

    Raises:
        DivergedError: A vector is NaN or infinite.
        InputError: Candidates are lacking, or a package.
    """
    layout = store.layout
    if ask_main_process(layout.pool.exists):
        progress.skip(mining_work(plan, layout).total(len(plan.models)))
        return False
    with scratch_folder(layout.mining_scratch) as scratch:
        _Mining(plan, store, progress, scratch).run()
    return True


class _Mining:
    """The stage: `scratch` is a folder that all ranks see, for vectors and what else they share."""

    def __init__(self, plan: DistillationPlan, store: RunStore, progress: RunProgress, scratch: Path) -> None:
        self.plan, self.store, self.progress, self.scratch = plan, store, progress, scratch
        self.layout, self.mining = store.layout, plan.config.mining
        self.sentences = SentenceManifest.load(self.layout.mining)[1]
        self.work = mining_work(plan, self.layout)
        rng, count = np.random.default_rng((plan.config.seed, 4)), len(self.sentences)
        self.anchors = np.sort(rng.choice(count, plan.anchors(count), replace=False))
        self.began = time.monotonic()
        # of the first rank
        self.candidates: Candidates
        self.left_out: LeftOut

    def run(self) -> None:
        if "neighbours" in self.mining.sources:
            embedded = np.arange(len(self.sentences))
            vectors = self._embed(embedded)
            self._gather(self._search(vectors))
        else:
            # scores want the vectors of candidates alone
            embedded = self._gather(np.empty((0, 2), dtype=np.int64))
            vectors = self._embed(embedded)
        on_main_process(lambda: self._write(embedded, vectors))

    def _embed(self, rows: np.ndarray) -> list[np.ndarray]:
        """Vectors of these sentences by each PLM's start."""
        texts, vectors = self.sentences.select(rows), []
        for number, name in enumerate(self.plan.models):
            folder = self.scratch / str(number)
            on_main_process(folder.mkdir)
            self.progress.begin(f"mine pairs: embed sentences with {name}", self.work.embed)
            encoder = load_run_encoder(self.plan, self.store, EncoderKey.start(name))
            assert isinstance(encoder, BiEncoder)
            advance = self.progress.advance
            vectors.append(embed_sentences(encoder, texts, folder, progress=advance, **self.plan.labelling))
            self.progress.end()
        return vectors

    def _search(self, vectors: list[np.ndarray]) -> np.ndarray:
        """Each anchor's nearest sentences by each PLM's start, as pairs of rows, shape (n, 2)."""
        found = []
        for number, name in enumerate(self.plan.models):
            self.progress.begin(f"mine pairs: nearest sentences by {name}", self.work.search)
            folder, advance = self.scratch / str(number), self.progress.advance
            found.append(nearest_pairs(vectors[number], self.anchors, self.mining.candidates, folder, advance))
            self.progress.end()
        return np.concatenate(found)

    def _gather(self, neighbours: np.ndarray) -> np.ndarray:
        """Gather candidates on the first rank; gives the rows of their sentences, ascending."""
        file = self.scratch / "rows.npy"

        def gather() -> None:
            found = _candidates(self.plan, self.layout, self.sentences, self.anchors, neighbours, self.progress.advance)
            self.candidates, self.left_out = found
            if not len(self.candidates.rows):
                why = describe_nothing(len(self.sentences), self.left_out)
                raise InputError(f"{self.plan.config.mining_key}: {why}")
            np.save(file, np.unique(self.candidates.rows))

        self.progress.begin("mine pairs: gather candidates", self.work.gather)
        on_main_process(gather)
        self.progress.end()
        rows: np.ndarray = np.load(file)
        return rows

    def _write(self, embedded: np.ndarray, vectors: list[np.ndarray]) -> None:
        """Score the candidates, draw pairs of them, and write the pool."""
        plan, sentences, candidates = self.plan, self.sentences, self.candidates
        rows = np.searchsorted(embedded, candidates.rows)
        by_start = [cosines(each, rows) for each in vectors]
        differ = ~look_the_same(by_start)
        for name, count in by_source(candidates.source[~differ]).items():
            self.left_out["near_duplicates"][name] += count
        if not differ.any():
            raise InputError(
                f"{plan.config.mining_key}: the two texts of each of {len(rows):,} candidates look the same to the "
                f"start, which reads {plan.config.bi_encoder.max_length} tokens; give texts that differ in them, a "
                "higher bi_encoder.max_length or another bi_encoder.pooling, and another output_dir"
            )
        candidates, wanted = candidates.of(differ), plan.pairs_to_mine(len(sentences))
        scores = plan.combine(each[differ] for each in by_start)
        drawn = draw_by_score(scores, candidates.rows, wanted, self.mining.per_sentence, plan.config.seed)
        given = self.layout.given_pairs if self.layout.given_pairs.exists() else None
        notes = describe_candidates(wanted, len(drawn), len(candidates.rows), len(sentences), self.left_out)
        with atomic_folder(self.layout.pool) as folder:
            add_mined_pairs(given, texts_of(sentences, candidates.rows[drawn]), folder, notes)
            record = {"sentences": len(sentences), "left_out": self.left_out}
            record |= describe_mining(sentences, candidates, scores, drawn)
            record["seconds"] = round(time.monotonic() - self.began, 3)
            write_json(folder / self.layout.mined_record.name, record)


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
    left_out = {
        name: dict.fromkeys(found, 0) | by_source(candidates.source[each])
        for name, each in (("near_duplicates", alike), ("in_pool", given))
    }
    return candidates.of(~(alike | given)), left_out


def are_given(sentences: Dataset, rows: np.ndarray, given: Dataset) -> np.ndarray:
    """Whether each pair of rows is among the given pairs, in either order."""
    number = {text_digest(text): row for row, text in enumerate(sentences["sentence1"])}
    known = {tuple(sorted(number.get(text_digest(text), -1) for text in pair)) for pair in pairs_of(given)}
    return np.array([tuple(pair) in known for pair in rows.tolist()], dtype=bool)
